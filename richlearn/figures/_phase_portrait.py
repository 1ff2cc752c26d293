"""The phase portrait (Kunin et al. 2024, figs 1b, 5b, 10): what training ends at, over scale τ and conserved quantity δ."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from richlearn.errors import UsageError
from richlearn.figures._style import GREY, plain_logs, styled
from richlearn.figures._tables import (
    HAMMING,
    KERNEL,
    PARAMETERS,
    TEST_LOSS,
    TRAIN_LOSS,
    Quantity,
    finals,
    is_grid,
    mean,
    scored,
    seeds_text,
)

# Losses: dark is low. Distances: dark is still.
_PANELS = ((TEST_LOSS, "viridis"), (KERNEL, "magma"), (HAMMING, "magma"), (PARAMETERS, "magma"), (TRAIN_LOSS, "viridis"))


def _edges(centres: np.ndarray) -> np.ndarray:
    """Cell borders halfway between `centres`, the outer ones as far out as their neighbours are in."""
    if centres.size == 1:
        return centres + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _map(table: pd.DataFrame, quantity: Quantity, taus: list[float], deltas: list[float]) -> np.ndarray:
    """Mean over seeds, shape (τ, δ); `nan` where a cell has no finite value."""
    means = table.groupby(["tau", "delta"])[quantity.column].agg(lambda values: mean(values, quantity.logarithmic))
    return means.reindex(pd.MultiIndex.from_product([taus, deltas])).to_numpy().reshape(len(taus), len(deltas))


def _norm(values: np.ndarray, quantity: Quantity) -> Normalize:
    known = values[np.isfinite(values)]
    if quantity.logarithmic:
        low, high = (known.min(), known.max()) if known.size else (0.1, 1.0)
        return LogNorm(low, high if high > low else 1.01 * low)
    return Normalize(0.0, known.max() if known.size and known.max() > 0 else 1.0)


def _draw(axes: Axes, values: np.ndarray, quantity: Quantity, colours: str, taus: list[float], deltas: list[float]) -> None:
    axes.patch.set(hatch="////", edgecolor=GREY, facecolor="white")
    vertical = 10 ** _edges(np.log10(taus))
    mesh = axes.pcolormesh(_edges(np.array(deltas)), vertical, np.ma.masked_invalid(values), cmap=colours, norm=_norm(values, quantity))
    mesh.set_edgecolor("face")
    axes.set_yscale("log")
    plain_logs(axes.yaxis)
    axes.spines[:].set_visible(True)
    axes.set_xlabel("conserved quantity δ")
    bar = axes.get_figure(root=True).colorbar(mesh, ax=axes, location="top", pad=0.03, aspect=18)  # pyright: ignore[reportOptionalMemberAccess]
    if quantity.logarithmic:
        bar.ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # nine labels a decade would run into each other
    bar.set_label(quantity.label, labelpad=5)
    bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue]


def _mark_best(axes: Axes, values: np.ndarray, taus: list[float], deltas: list[float]) -> None:
    if np.isfinite(values).any():
        row, column = np.unravel_index(np.nanargmin(values), values.shape)
        axes.plot(deltas[column], taus[row], "*", color="white", markeredgecolor="black", markersize=13, label="lowest test loss")


def _mark_diverged(axes: Axes, table: pd.DataFrame) -> None:
    lost = table[table["status"] == "diverged"]
    axes.plot(lost["delta"], lost["tau"], "x", color="black", markersize=6, label="diverged")


def _title(protocol: Any, table: pd.DataFrame, holes: bool) -> str:
    parts = [f"{protocol.name}: after {protocol.budget():,} updates, mean over {seeds_text(table)}", "★ lowest test loss"]
    if (table["status"] == "diverged").any():
        parts.append("× with diverged seeds, left out")
    return "   ".join([*parts, *(["hatched: no value"] if holes else [])])


@styled
def phase_portrait(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any) -> Figure:
    """Maps over τ (logarithmic) and δ of final test loss, kernel, Hamming and relative parameter distance, and train loss.

    Each is the mean over seeds of a run's last measurement, losses geometrically; a cell without a finite value is hatched, one
    with diverged seeds crossed (its mean is that of the others).

    Args:
        trials: table of trials.
        curves: table of their curves.
        protocol: its `name`, `cells()`, `seeds` and budget are read.

    Raises:
        UsageError: the protocol has no τ × δ grid, or no trial was run.
    """
    cells = [cell for cell in protocol.cells() if {"tau", "delta"} <= set(cell.parameters)]
    if not is_grid(cells):
        raise UsageError(f"`phase_portrait` needs schemes over a grid of `tau` and `delta`; `{protocol.name}` has {len(cells)} such rows")
    table = finals(scored(protocol, trials), curves, [quantity for quantity, _ in _PANELS])
    places = dict(enumerate(cell.parameters for cell in protocol.cells()))
    table = table.assign(**{name: [places[index].get(name) for index in table["cell_index"]] for name in ("tau", "delta")}).dropna(
        subset=["tau"]
    )
    taus, deltas = (sorted({float(cell.parameters[name]) for cell in cells}) for name in ("tau", "delta"))
    figure = Figure(figsize=(3.0 * len(_PANELS), 3.7))
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    maps = [_map(table, quantity, taus, deltas) for quantity, _ in _PANELS]
    for axes, values, (quantity, colours) in zip(panels, maps, _PANELS, strict=True):
        _draw(axes, values, quantity, colours, taus, deltas)
        _mark_diverged(axes, table)
    _mark_best(panels[0], maps[0], taus, deltas)
    panels[0].set_ylabel("overall scale τ")
    figure.suptitle(_title(protocol, table, bool(np.isnan(maps[0]).any())))
    return figure
