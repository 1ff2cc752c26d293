"""Loss and kernel distance during training, one line a cell."""

from itertools import cycle, product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richlearn.figures._style import DASHES, GREY, PALETTE, steps_axis, styled
from richlearn.figures._tables import KERNEL, TEST_LOSS, TRAIN_LOSS, Quantity, bands, chosen, is_grid, label, mean, scored, seeds_text

_PANELS = (TEST_LOSS, TRAIN_LOSS, KERNEL)
MOST_CELLS = 21


def _looks(cells: list[Any]) -> list[tuple[str, Any]]:
    """A colour and a dash for each cell: on a τ × δ grid colour says δ and dash says τ."""
    if not is_grid(cells):
        looks = cycle((colour, dash) for dash, colour in product(DASHES, PALETTE))
        return [next(looks) for _ in cells]
    taus, deltas = (sorted({cell.parameters[name] for cell in cells}) for name in ("tau", "delta"))
    colour = dict(zip(deltas, cycle(PALETTE), strict=False))
    dash = dict(zip(taus, cycle(DASHES), strict=False))
    return [(colour[cell.parameters["delta"]], dash[cell.parameters["tau"]]) for cell in cells]


def _goal(protocol: Any, table: pd.DataFrame, quantity: Quantity) -> float | None:
    """The level that the goal asks for (mean over seeds), if it is a goal for this quantity."""
    goal = getattr(protocol, "goal", None)
    if goal is None or goal.quantity != quantity.column:
        return None
    return goal.fraction_of_zero_predictor * mean(table["zero_loss"], logarithmic=True)


def _panel(axes: Axes, quantity: Quantity, lines: list[tuple[pd.DataFrame, str, tuple[str, Any]]], goal: float | None) -> None:
    for table, text, (colour, dash) in lines:
        axes.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.13, linewidth=0)
        axes.plot(table.index, table["mean"], color=colour, linestyle=dash, label=text)
    steps = np.concatenate([table.index.to_numpy(np.float64) for table, _, _ in lines] or [np.ones(1)])
    steps_axis(axes, steps[steps > 0].min(initial=steps.max() or 1.0), steps.max() or 1.0)
    axes.set_ylabel(quantity.label)
    if quantity.logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)
    if goal:
        axes.axhline(goal, color=GREY, linewidth=1, linestyle=(0, (4, 2)))
        axes.annotate("goal", (0.01, goal), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points", color=GREY)


@styled
def curves(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any) -> Figure:
    """Test loss, train loss and kernel distance against updates: mean over seeds with a band of one standard deviation.

    Of a large τ × δ grid the four corners and the centre are drawn, of many other rows 21 evenly spread ones.

    Args:
        trials: table of trials.
        curves: table of their curves.
        protocol: its `name`, `cells()`, `seeds` and `goal` are read.

    Raises:
        UsageError: no trial was run.
    """
    table = scored(protocol, trials)
    cells = protocol.cells()
    shown = chosen(cells, MOST_CELLS)
    looks = _looks([cells[index] for index in shown])
    figure = Figure(figsize=(13.5, 3.6))
    panels = figure.subplots(1, len(_PANELS))
    for axes, quantity in zip(panels, _PANELS, strict=True):
        found = bands(table, curves, quantity)
        lines = [(found[index], label(cells[index], cells), look) for index, look in zip(shown, looks, strict=True) if index in found]
        _panel(axes, quantity, lines, _goal(protocol, table, quantity))
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside right center", handlelength=2.6)
    share = "" if len(shown) == len(cells) else f"; {len(shown)} of {len(cells)} rows"
    figure.suptitle(f"{protocol.name}: mean ± standard deviation over {seeds_text(table)}{share}")
    return figure
