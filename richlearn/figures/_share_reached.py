"""How many runs have reached their goal by when: the empirical distribution of times under censoring at the budget."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richlearn.figures._classification import (
    FITTED,
    REACHED,
    Line,
    by_alpha,
    by_row,
    cut_text,
    diverged_text,
    goal_text,
    has_fit,
    is_alpha_grid,
    label_below,
    legend,
    panel_grid,
    served,
    times,
    title,
)
from richlearn.figures._style import readable_logs, styled
from richlearn.figures._tables import largest_size, seeds_text

_LOOKS = {REACHED: {"linestyle": "-", "linewidth": 1.6}, FITTED: {"linestyle": (0, (3, 1.5)), "linewidth": 0.9}}


def steps_of(reached: pd.Series, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the share of runs with a time of at most t, for t from `first` to `last`; it jumps at each time.

    >>> t, share = steps_of(pd.Series([30.0, 10.0, float("inf"), 10.0]), 1.0, 100.0)
    >>> t.tolist(), share.tolist()
    ([1.0, 10.0, 10.0, 30.0, 100.0], [0.0, 0.25, 0.5, 0.75, 0.75])
    """
    within = np.sort(reached[reached <= last].to_numpy(np.float64))
    shares = np.arange(within.size + 1) / len(reached)
    return np.concatenate([[first], within, [last]]), np.concatenate([shares, shares[-1:]])


def _panel(axes: Axes, lines: list[Line], table: pd.DataFrame, columns: list[str], ends: tuple[float, float]) -> None:
    for line in lines:
        runs = table[table["cell_index"] == line.cell]
        for column in columns if len(runs) else ():
            text = line.text if column == REACHED else "_"
            axes.step(*steps_of(times(runs, column), *ends), where="post", color=line.colour, label=text, **_LOOKS[column])


def _panels(protocol: Any, table: pd.DataFrame) -> dict[str, list[Line]]:
    """By row; rows that differ in more than α, by α."""
    cells = protocol.cells()
    alphas = [cell.parameters.get("alpha") for cell in cells]
    crossed = is_alpha_grid(cells) and 1 < len(set(alphas) - {None}) < len(alphas)
    return by_alpha(cells) if crossed else by_row(cells, table, protocol.baseline_row())


def _counted(panels: dict[str, list[Line]], table: pd.DataFrame) -> dict[str, list[Line]]:
    """`panels`; a single one with how many of each row's runs reached the goal, as lines may hide each other."""
    if "" not in panels:
        return panels
    reached = table.assign(held=times(table, REACHED) < np.inf).groupby("cell_index")["held"].agg(["sum", "size"])
    counts = {line.cell: "/".join(map(str, reached.loc[line.cell])) for line in panels[""] if line.cell in reached.index}
    return {"": [replace(line, text=f"{line.text}:  {counts.get(line.cell, 'not run')}") for line in panels[""]]}


def _ends(table: pd.DataFrame, columns: list[str], budget: int) -> tuple[float, float]:
    """Where the axis of updates begins, below the first time that any run has, and the budget."""
    known = np.concatenate([times(table, column) for column in columns])
    known = known[np.isfinite(known) & (known > 0)]
    return float(max(min(known.min(initial=budget) / 2, budget / 10), 0.5)), float(budget)


@styled
def share_reached(trials: pd.DataFrame, protocol: Any) -> Figure:
    """Share of a row's runs whose goal held at some check up to each update, a step function that ends at the budget.

    Solid: the goal on the test set; dashed and thin: the same on the training set, where the goal is one of accuracy. Diverged runs
    and those that never reached it stay in the denominator. Each of more than seven rows has a panel of its own, beside the baseline's
    lines. Of several training sizes the largest is shown.

    Args:
        trials: table of trials; `first_reached` and, if there, `fit_first_reached` are read.
        protocol: its `name`, `cells()`, `baseline_row()`, `seeds`, `goal` and `budget()` are read.

    Raises:
        UsageError: no trial was run.
    """
    table, size = largest_size(served(protocol, trials))
    cells, columns = protocol.cells(), [FITTED, REACHED] if has_fit(protocol, table) else [REACHED]
    panels = _counted(_panels(protocol, table), table)
    ends = _ends(table, columns, protocol.budget())
    figure, grid = panel_grid(panels, 1.8)
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        _panel(axes, lines, table, columns, ends)
        axes.set(xscale="log", xlim=ends, ylim=(-0.03, 1.03), xlabel="optimiser updates", title=name)
        readable_logs(axes.xaxis)
    label_below(grid)
    figure.supylabel("share of runs that reached the goal", fontsize=9.5)
    parts = {FITTED: "train", REACHED: "test"}
    legend(figure, panels, {goal_text(protocol, parts[column]): _LOOKS[column] for column in columns})
    notes = size, cut_text(panels, cells), diverged_text(table, "counted as not reaching it")
    figure.suptitle(title(f"{protocol.name}: {seeds_text(table)}, budget {protocol.budget():,} updates", *notes))
    return figure
