"""What the pictures of classification share: which runs they show, when those reached their goals, how rows become panels and lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from richlearn.bench.scores import chance_error
from richlearn.errors import UsageError
from richlearn.figures._style import GREY, PALETTE
from richlearn.figures._tables import label, scored

REACHED = "first_reached"  # the goal, on the test set
FITTED = "fit_first_reached"  # the same on the training set
ACCURACY = "test_accuracy"
MOST_PANELS = 8
MOST_ROWS = 24


def served(protocol: Any, trials: pd.DataFrame) -> pd.DataFrame:
    """The scored trials of `protocol` that were trained, diverged ones included.

    Raises:
        UsageError: there is none.
    """
    table = scored(protocol, trials)
    table = table[table["status"].isin(["finished", "diverged"])]
    if table.empty:
        raise UsageError(f"no scheme of `{protocol.name}` is applicable to its network, so there is nothing to draw")
    return table.reset_index(drop=True)


def times(table: pd.DataFrame, column: str) -> pd.Series:
    """When each run reached a goal: ``inf`` beyond the budget."""
    return pd.to_numeric(table[column]).astype("Float64").fillna(np.inf).astype(np.float64)


def has_fit(protocol: Any, table: pd.DataFrame) -> bool:
    """Whether the goal is one of test accuracy whose counterpart on the training set was timed as well."""
    return FITTED in table and protocol.goal.quantity == ACCURACY


def title(first: str, *notes: str) -> str:
    """`first` with what else is to be said, if anything is, on a second line; the notes begin with `; `."""
    return f"{first}\n{''.join(notes).removeprefix('; ')}".rstrip("\n")


def chance_accuracy(table: pd.DataFrame) -> pd.Series:
    """1/c of c classes: how often a diverged run is right."""
    return 1 - table["zero_loss"].astype(np.float64).map(chance_error)


def goal_text(protocol: Any, part: str = "test") -> str:
    """The goal in words, such as `test accuracy ≥ 0.99`."""
    if protocol.goal.quantity == ACCURACY:
        return f"{part} accuracy ≥ {protocol.goal.threshold:g}"
    return f"goal for {protocol.goal.quantity.replace('_', ' ')}"


def diverged_text(table: pd.DataFrame, meaning: str) -> str:
    """What a picture counts diverged runs as, where there are any."""
    count = int((table["status"] == "diverged").sum())
    return f"; {count} diverged run{'s' * (count != 1)} {meaning}" if count else ""


@dataclass(frozen=True)
class Line:
    """A row in a picture: the number of its cell, its text in the legend and its colour."""

    cell: int
    text: str
    colour: str


def spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of `values`, evenly spread, the first and the last among them.

    >>> spread("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if len(values) <= most:
        return list(values)
    return [values[round(place)] for place in np.linspace(0, len(values) - 1, most)]


def _alpha(value: float | None) -> str:
    if value is None:
        return "other rows"
    cell = SimpleNamespace(name="", parameters={"alpha": value})
    return label(cell, [cell])


def by_row(cells: Sequence[Any], table: pd.DataFrame, baseline: Any) -> dict[str, list[Line]]:
    """Title of a panel -> its lines: up to seven rows share one without a title; of more, each that has runs in `table` has its own.

    Behind each row but itself stands the `baseline`, if there is one; at most 24 rows are shown.
    """
    if len(cells) <= len(PALETTE):
        return {"": [Line(index, label(cell, cells), colour) for index, (cell, colour) in enumerate(zip(cells, PALETTE, strict=False))]}
    run = sorted(table["cell_index"].unique())
    behind = [Line(index, f"baseline: {label(baseline, cells)}", PALETTE[1]) for index in run if cells[index] == baseline]
    rows = [Line(index, "the row itself", PALETTE[0]) for index in spread(run, MOST_ROWS)]
    return {fill(label(cells[row.cell], cells), 28): [*(line for line in behind if line.cell != row.cell), row] for row in rows}


def is_alpha_grid(cells: Sequence[Any]) -> bool:
    """Whether most rows have an α, so that panels by α compare them; a scheme or two beside many others do not make one."""
    return 2 * sum("alpha" in cell.parameters for cell in cells) > len(cells) > 1


def by_alpha(cells: Sequence[Any]) -> dict[str, list[Line]]:
    """Title of a panel -> its lines: a panel for each α (at most eight), in each the same colours for the same other parameters.

    Rows without an α share a panel, the last.
    """
    rests = [SimpleNamespace(name=cell.name, parameters={k: v for k, v in cell.parameters.items() if k != "alpha"}) for cell in cells]
    texts = [label(rest, rests) for rest in rests]
    colours = dict(zip(spread(list(dict.fromkeys(texts)), len(PALETTE)), PALETTE, strict=False))
    alphas = sorted({float(cell.parameters["alpha"]) for cell in cells if "alpha" in cell.parameters})
    columns: list[float | None] = [*alphas, *([None] if any("alpha" not in cell.parameters for cell in cells) else [])]
    panels = {}
    for alpha in spread(columns, MOST_PANELS):
        lines = [
            Line(index, text, colours[text])
            for index, (cell, text) in enumerate(zip(cells, texts, strict=True))
            if cell.parameters.get("alpha") == alpha and text in colours
        ]
        panels[_alpha(alpha)] = lines
    return panels


def panel_grid(panels: dict[str, list[Line]], beside: float) -> tuple[Figure, list[Axes]]:
    """A figure with as many axes as there are panels, of shared scales, in a row, two or a square; `beside`: inches for the legend."""
    down = 1 if len(panels) <= 4 else max(2, round(len(panels) ** 0.5))
    across = -(-len(panels) // down)
    figure = Figure(figsize=(2.7 * across + beside + (across == 1) * 2, 2.5 * down + 0.6 + (across == 1)))
    grid = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    return figure, grid[: len(panels)]


def label_below(grid: list[Axes]) -> None:
    """Label the horizontal axes of panels with nothing below them, and no others; vertical ones are labelled at the left already."""
    across = grid[0].get_gridspec().ncols  # pyright: ignore[reportOptionalMemberAccess]
    for axes in grid[:-across]:
        axes.set_xlabel("")
    for axes in grid[-across:]:
        axes.tick_params(axis="x", which="both", labelbottom=True)


def legend(figure: Figure, panels: dict[str, list[Line]], kinds: dict[str, dict[str, Any]]) -> None:
    """Beside the panels: a colour for each row, and what each kind of line means, text -> its looks."""
    texts = {line.text: line.colour for lines in panels.values() for line in lines}
    single = next(iter(texts.values())) if len(texts) == 1 else GREY
    handles = [Line2D([], [], color=colour, label=text) for text, colour in texts.items()] if len(texts) > 1 else []
    handles += [Line2D([], [], **{"color": single, **looks}, label=text) for text, looks in kinds.items()]
    figure.legend(handles=handles, loc="outside right center", handlelength=2.6)


def cut_text(panels: dict[str, list[Line]], cells: Sequence[Any]) -> str:
    """How many rows a picture shows, where it does not show all."""
    shown = len({line.cell for lines in panels.values() for line in lines})
    return f"; {shown} of {len(cells)} rows" if shown < len(cells) else ""
