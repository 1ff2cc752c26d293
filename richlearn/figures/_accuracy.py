"""Accuracy on the training and the test set during training (Kunin et al. 2024, fig 6d): how long generalisation lags behind."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richlearn.errors import UsageError
from richlearn.figures._classification import (
    ACCURACY,
    Line,
    by_alpha,
    by_row,
    chance_accuracy,
    cut_text,
    diverged_text,
    is_alpha_grid,
    label_below,
    legend,
    panel_grid,
    served,
    title,
)
from richlearn.figures._style import GREY, steps_axis, styled
from richlearn.figures._tables import largest_size, seeds_text

_DASHES = {"train_accuracy": (0, (4, 1.5)), ACCURACY: "-"}
_GOAL = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (1, 1.5))}


def _ends(trials: pd.DataFrame, points: pd.DataFrame) -> dict[Any, float]:
    """From which update on a diverged run has no accuracy: where it diverged, if that is known, else after its last measurement."""
    lost = trials[trials["status"] == "diverged"].set_index("trial")
    known = lost.get("diverged_at", pd.Series(dtype="Int64")).reindex(lost.index).dropna()
    last = points.groupby("trial")["step"].max().reindex(lost.index).astype(np.float64).fillna(-1.0) + 1
    return {**last.to_dict(), **known.astype(np.float64).to_dict()}


def history(trials: pd.DataFrame, curves: pd.DataFrame, column: str) -> pd.DataFrame:
    """Accuracy of every run at every update at which one was measured: index step, a column a trial.

    A run keeps its last value after it ended, so means over runs do not lose those that ended early; a diverged one is right as
    often as chance.
    """
    rows = curves[curves["trial"].isin(trials["trial"])]
    points = rows.assign(value=rows[column].astype(np.float64)).dropna(subset=["value"]) if column in rows else rows.assign(value=0.0)[:0]
    ends, chance = _ends(trials, points), chance_accuracy(trials.set_index("trial"))
    wide = points.pivot_table(index="step", columns="trial", values="value").reindex(columns=trials["trial"])
    wide = wide.reindex(sorted({*map(int, wide.index), *map(int, ends.values())})).astype(np.float64).ffill()
    for trial, end in ends.items():
        wide.loc[wide.index >= end, trial] = chance[trial]
    return wide


def _panel(axes: Axes, lines: list[Line], table: pd.DataFrame, histories: dict[str, pd.DataFrame]) -> None:
    for line in lines:
        runs = table.loc[table["cell_index"] == line.cell, "trial"]
        for column, found in histories.items():
            if len(runs):
                mean = found[runs].mean(axis=1)
                axes.plot(mean.index, mean, linestyle=_DASHES[column], color=line.colour, label=f"{line.text}, {column.split('_')[0]}")


def _axes(axes: Axes, protocol: Any, name: str, steps: np.ndarray) -> None:
    steps_axis(axes, steps[steps > 0].min(initial=max(steps.max(), 1.0)), max(steps.max(), 1.0))
    axes.set(ylim=(-0.03, 1.03), title=name)
    if protocol.goal.quantity == ACCURACY:
        axes.axhline(protocol.goal.threshold, **_GOAL, zorder=1, label="goal")


@styled
def accuracy_curves(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any) -> Figure:
    """Train accuracy (dashed) and test accuracy (solid) against updates, a panel for each α of a grid: means over the seeds.

    A run that ended early keeps its last value, a diverged one is right as often as chance from there on. At most eight values of α and
    seven other settings are shown; where α is no axis, each of more than seven rows has a panel of its own, beside the baseline's lines. Of
    several training sizes the largest is shown.

    Args:
        trials: table of trials.
        curves: table of their curves; `train_accuracy` and `test_accuracy` are read.
        protocol: its `name`, `cells()`, `baseline_row()`, `seeds` and `goal` are read.

    Raises:
        UsageError: no trial was run, or no accuracy was measured.
    """
    table, size = largest_size(served(protocol, trials))
    cells = protocol.cells()
    panels = by_alpha(cells) if is_alpha_grid(cells) else by_row(cells, table, protocol.baseline_row())
    histories = {column: found for column in _DASHES if len(found := history(table, curves, column)) and found.notna().any(axis=None)}
    if ACCURACY not in histories:
        raise UsageError(f"`accuracy_curves` needs measured accuracies; `{protocol.name}` has none")
    figure, grid = panel_grid(panels, 1.6)
    steps = np.unique(np.concatenate([found.index.to_numpy(np.float64) for found in histories.values()]))
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        _panel(axes, lines, table, histories)
        _axes(axes, protocol, name, steps)
    label_below(grid)
    figure.supylabel("accuracy", fontsize=9.5)
    goal = {f"goal: {protocol.goal.threshold:g}": _GOAL} if protocol.goal.quantity == ACCURACY else {}
    legend(figure, panels, {column.replace("_", " "): {"linestyle": _DASHES[column]} for column in histories} | goal)
    notes = size, cut_text(panels, cells), diverged_text(table, "at chance")
    figure.suptitle(title(f"{protocol.name}: mean over {seeds_text(table)}", *notes))
    return figure
