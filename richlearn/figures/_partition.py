"""How the activation regions of a two-layer network move over its input plane."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from richlearn.errors import UsageError
from richlearn.figures._style import PALETTE, styled
from richlearn.figures._theory import Run, runs, swept
from richlearn.theory import partition as regions

_EXTENT, _GRID = 1.6, 161
_PARITY = ("#FFFFFF", "#DCE6F0")


def _panel(axes: Axes, units: np.ndarray, data: tuple[np.ndarray, np.ndarray], levels: np.ndarray) -> None:
    """The partition of units (h, 3), rows (a, w₁, w₂), with the network's level lines and the data."""
    found = regions(units[:, 1:], extent=_EXTENT)
    faces = [_PARITY[region.colour] for region in found]
    axes.add_collection(PolyCollection([region.vertices for region in found], facecolors=faces, edgecolors="#8FA3B8", linewidths=0.5))
    side = np.linspace(-_EXTENT, _EXTENT, _GRID)
    plane = np.stack(np.meshgrid(side, side), axis=-1)
    surface = np.maximum(plane @ units[:, 1:].T, 0) @ units[:, 0]
    if np.abs(surface).max() > levels.max():  # what is small everywhere has no level lines worth a line
        axes.contour(side, side, surface, levels=levels, colors=PALETTE[4], linewidths=0.9)
    x, y = data
    for sign, colour, marker in ((1, PALETTE[1], "o"), (-1, PALETTE[0], "s")):
        own = np.sign(y[:, 0]) == sign
        axes.plot(*x[own].T, marker, color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.5, label=f"y = {sign:+d}")
    axes.set(xlim=(-_EXTENT, _EXTENT), ylim=(-_EXTENT, _EXTENT), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))


def _units(run: Run, place: int) -> np.ndarray:
    return run.of("unit")[place].reshape(-1, 3)


@styled
def partition(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any, data: tuple[ArrayLike, ArrayLike]) -> Figure:
    """Activation regions before and after training, coloured by the parity of active units, a column a row (paper's figure 5a).

    Args:
        trials: table of trials.
        curves: table of their curves, with `observed`.
        protocol: what was asked.
        data: training inputs (n, 2) and targets (n, 1).

    Raises:
        UsageError: no run was compared with theory, or the prediction is not piecewise_linear on two-dimensional input.
    """
    found = runs(protocol, trials, curves)
    x, y = (np.asarray(each, dtype=np.float64) for each in data)
    if "unit[0,2]" not in found[0].observed or "unit[0,3]" in found[0].observed:
        raise UsageError(f"`partition` needs the prediction piecewise_linear on two-dimensional input; `{protocol.name}` has another")
    levels = np.linspace(-1, 1, 5)
    figure = Figure(figsize=(3.0 * len(found) + 0.4, 6.6))
    panels = figure.subplots(2, len(found), squeeze=False, sharex=True, sharey=True)
    for column, run in zip(panels.T, found, strict=True):
        for axes, place in zip(column, (0, -1), strict=True):
            _panel(axes, _units(run, place), (x, y), levels)
        column[0].set_title(swept(run))
        column[1].set_xlabel("$x_1$")
    for axes, text in zip(panels[:, 0], ("start", "end"), strict=True):
        axes.set_ylabel(f"{text}\n$x_2$")
    panels[0, 0].plot([], [], color=PALETTE[4], label="$f$ = −1, −½, 0, ½, 1")
    panels[0, 0].plot([], [], "s", color=_PARITY[1], markersize=8, markeredgecolor="#8FA3B8", label="odd number of active units")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{protocol.name}: activation regions, seed {min(protocol.seeds)}")
    return figure
