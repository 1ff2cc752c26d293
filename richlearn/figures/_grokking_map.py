"""How long training and generalisation take over logit scale τ and embedding scale α (Kunin et al. 2024, fig 12)."""

import json
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from richlearn.bench.content import canonical_json
from richlearn.bench.statistics import median
from richlearn.errors import UsageError
from richlearn.figures._classification import ACCURACY, FITTED, REACHED, diverged_text, goal_text, served, times, title
from richlearn.figures._style import GREY, plain_logs, styled
from richlearn.figures._tables import label, largest_size, seeds_text

_COLOURS = "viridis"
_PANELS = ((FITTED, "train", "time-to-train"), (REACHED, "test", "time-to-grok"))
_AXES = ("tau", "alpha")


def _groups(cells: list[Any]) -> dict[str, dict[int, tuple[float, float]]]:
    """Rows that differ in τ and α alone: what they have in common -> cell -> (τ, α)."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for index, cell in enumerate(cells):
        if set(_AXES) <= set(cell.parameters):
            rest = {name: value for name, value in cell.parameters.items() if name not in _AXES}
            place = float(cell.parameters["tau"]), float(cell.parameters["alpha"])
            found.setdefault(canonical_json([cell.name, rest]), {})[index] = place
    return found


def _map(table: pd.DataFrame, column: str, places: dict[int, tuple[float, float]], taus: list[float], alphas: list[float]) -> np.ndarray:
    """Median over the seeds, shape (τ, α): ``inf`` beyond the budget, ``nan`` where nothing was run."""
    values = np.full((len(taus), len(alphas)), np.nan)
    for index, (tau, alpha) in places.items():
        if len(runs := table[table["cell_index"] == index]):
            values[taus.index(tau), alphas.index(alpha)] = median(times(runs, column)).value
    return values


def _norm(maps: list[np.ndarray]) -> LogNorm | None:
    values = np.concatenate([values[np.isfinite(values)] for values in maps])
    if not values.size:
        return None
    low, high = max(values.min(), 1.0), max(values.max(), 1.0)
    return LogNorm(low, high) if high > low else LogNorm(low / 1.5, 1.5 * low)


def _cell(axes: Axes, row: int, column: int, value: float, budget: int, norm: LogNorm | None) -> None:
    """One cell: coloured with its number, hatched where censored, a dash where it was asked for and not run."""
    corner, text, ink = (column - 0.5, row - 0.5), "not run", GREY
    if np.isinf(value):
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="#B4B4B4", hatch="////", linewidth=0, label="censored"))
        text, ink = f"> {budget}", "black"
    elif norm is not None and not np.isnan(value):
        colour = mpl.colormaps[_COLOURS](norm(max(value, 1.0)))
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, linewidth=0, label="reached"))
        text, ink = f"{value:.0f}", "white" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5 else "black"
    axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor="white" if text != "not run" else "#D0D0D0", linewidth=1.2))
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.2} if np.isinf(value) else None
    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8, bbox=paper)


def _draw(axes: Axes, values: np.ndarray, asked: set[tuple[int, int]], budget: int, norm: LogNorm | None) -> None:
    for row, column in sorted(asked):
        _cell(axes, row, column, values[row, column], budget, norm)
    axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(-0.5, values.shape[0] - 0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _bar(figure: Figure, axes: np.ndarray, norm: LogNorm) -> None:
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=axes, aspect=24, pad=0.015)
    bar.set_label("updates (median)")
    bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue]
    if norm.vmax is not None and norm.vmin is not None and norm.vmax < 100 * norm.vmin:
        plain_logs(bar.ax.yaxis)


@styled
def grokking_map(trials: pd.DataFrame, protocol: Any) -> Figure:
    """Maps over τ and α of the median time-to-train and the median time-to-grok, in one colour scale.

    Times are updates until the first check at which the goal holds, on the training and on the test set. A cell whose median lies
    beyond the budget is hatched and says so; a combination that the protocol does not ask for is left blank. Rows that differ in
    more than τ and α have maps of their own.

    Args:
        trials: table of trials; `fit_first_reached` and `first_reached` are read.
        protocol: its `name`, `cells()`, `seeds`, `goal` and `budget()` are read.

    Raises:
        UsageError: the protocol has no rows with τ and α, no goal for the accuracy, or no trial was run.
    """
    groups = _groups(protocol.cells())
    if not groups or protocol.goal.quantity != ACCURACY:
        raise UsageError(
            f"`grokking_map` needs schemes with `tau` and `alpha` and a goal for `{ACCURACY}`; `{protocol.name}` has "
            f"{sum(map(len, groups.values()))} such rows and a goal for `{protocol.goal.quantity}`"
        )
    table, size = largest_size(served(protocol, trials))
    taus, alphas = (sorted({place[axis] for places in groups.values() for place in places.values()}) for axis in (0, 1))
    maps = [[_map(table, column, places, taus, alphas) for column, _, _ in _PANELS] for places in groups.values()]
    norm = _norm([values for row in maps for values in row])
    figure = Figure(figsize=(2 * max(0.72 * len(alphas) + 0.5, 2.8) + 1.3, len(groups) * max(0.5 * len(taus) + 0.7, 1.5) + 0.7))
    panels = figure.subplots(len(groups), 2, squeeze=False, sharex=True, sharey=True)
    for axes, values, places in zip(panels, maps, groups.values(), strict=True):
        asked = {(taus.index(tau), alphas.index(alpha)) for tau, alpha in places.values()}
        for side, found in zip(axes, values, strict=True):
            _draw(side, found, asked, protocol.budget(), norm)
    _label(panels, protocol, list(groups), taus, alphas)
    if norm is not None:
        _bar(figure, panels, norm)
    figure.suptitle(title(f"{protocol.name}: median over {seeds_text(table)}", size, diverged_text(table, "beyond the budget")))
    return figure


def _label(panels: np.ndarray, protocol: Any, groups: list[str], taus: list[float], alphas: list[float]) -> None:
    panels[0, 0].set_xticks(range(len(alphas)), [f"{alpha:.3g}" for alpha in alphas])
    panels[0, 0].set_yticks(range(len(taus)), [f"{tau:.3g}" for tau in taus])
    for axes, (_, part, name) in zip(panels[0], _PANELS, strict=True):
        axes.set_title(f"{name} ({goal_text(protocol, part)})")
    for axes in panels[-1]:
        axes.set_xlabel("embedding scale α")
    cells = [SimpleNamespace(name=name, parameters=rest) for name, rest in map(json.loads, groups)]
    for axes, cell in zip(panels[:, 0], cells, strict=True):
        axes.set_ylabel("logit scale τ" if len(cells) == 1 else f"{label(cell, cells)}\nlogit scale τ")
