"""Where each hidden unit goes (Kunin et al. 2024, fig 1a): |a_k| w_k in the plane, one panel a cell."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from richlearn.errors import UsageError
from richlearn.figures._style import GREY, PALETTE, styled
from richlearn.figures._tables import chosen, label, scored

_SIGNS = {1.0: (PALETTE[1], "teacher, readout +"), -1.0: (PALETTE[2], "teacher, readout −")}
MOST_CELLS = 12


def _paths(curves: pd.DataFrame, trial: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, shape (T,), and |a_k| w_k, shape (T, unit, 2), of one trial."""
    rows = curves[(curves["trial"] == trial) & curves["directions"].notna()].sort_values("step")
    if rows.empty:
        return np.zeros(0), np.zeros((0, 0, 2))
    points = np.stack([np.asarray(row, dtype=np.float64) for row in rows["directions"]])
    return rows["step"].to_numpy(np.float64), points.reshape(len(rows), -1, 2)


def _panel(axes: Axes, steps: np.ndarray, points: np.ndarray, norm: LogNorm) -> None:
    segments = np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 2)
    times = np.repeat(np.maximum(steps[1:], 1.0), points.shape[1])
    axes.add_collection(LineCollection(list(segments), array=times, cmap="viridis_r", norm=norm, linewidths=0.9, alpha=0.9))
    axes.plot(*points[0].T, "o", markersize=3.2, markerfacecolor="white", markeredgecolor=GREY, markeredgewidth=0.8, label="start")
    axes.plot(*points[-1].T, "o", markersize=3.6, color="black", label="end")


def _rays(axes: Axes, teacher: tuple[ArrayLike, ArrayLike], reach: float) -> None:
    directions, readouts = (np.asarray(part, dtype=np.float64) for part in teacher)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for (x, y), sign in zip(1.5 * reach * unit, np.sign(readouts.ravel()), strict=True):
        colour, text = _SIGNS[float(sign)]
        axes.plot([0, x], [0, y], color=colour, linewidth=1.4, linestyle=(0, (5, 2)), zorder=1, label=text)


def _finish(axes: Axes, points: np.ndarray, teacher: tuple[ArrayLike, ArrayLike] | None) -> None:
    reach = 1.06 * np.nanmax(np.abs(points), initial=0.0) or 1.0
    if teacher is not None:
        _rays(axes, teacher, reach)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$|a_k| w_{k,1}$")
    axes.axhline(0, color="#DDDDDD", linewidth=0.7, zorder=0)
    axes.axvline(0, color="#DDDDDD", linewidth=0.7, zorder=0)


def _times(paths: Iterable[tuple[np.ndarray, np.ndarray]]) -> LogNorm:
    """Colours from the first update at which a unit has gone 2% of its way, so that they are not spent on rest."""
    starts, ends = [], [10.0]
    for steps, points in paths:
        way = np.linalg.norm(points - points[0], axis=2).max(axis=1)
        starts.append(steps[np.argmax(way >= 0.02 * way.max())])
        ends.append(steps[-1])
    return LogNorm(min(max(min(starts), 1.0), max(ends) / 10), max(ends))


def _legend(figure: Figure) -> None:
    handles = {text: handle for axes in figure.axes for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


@styled
def trajectories(
    trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any, *, teacher: tuple[ArrayLike, ArrayLike] | None = None
) -> Figure:
    """The path of |a_k| w_k of every hidden unit in two dimensions, coloured by the update, for the first seed.

    Args:
        trials: table of trials.
        curves: table of their curves, with `directions`.
        protocol: its `name`, `cells()`, `seeds` and task are read.
        teacher: the teacher of that seed as (directions, shape (unit, 2); readouts, shape (unit,)), drawn as rays.

    Raises:
        UsageError: the input is not two-dimensional, or no trial has recorded directions.
    """
    if (dimension := protocol.task.parameters.get("dimension")) != 2:
        raise UsageError(f"`trajectories` needs a task with `dimension: 2`; `{protocol.name}` has `{dimension}`")
    table = scored(protocol, trials)
    seed, cells = table["seed"].min(), protocol.cells()
    firsts = table[table["seed"] == seed].drop_duplicates("cell_index").set_index("cell_index")["trial"]
    paths = {index: _paths(curves, firsts[index]) for index in chosen(cells, MOST_CELLS) if index in firsts.index}
    paths = {index: path for index, path in paths.items() if path[0].size}
    if not paths:
        raise UsageError(f"`trajectories` needs recorded directions; set `measure.directions: true` in `{protocol.name}` and run it again")
    columns = min(4, len(paths))
    rows = math.ceil(len(paths) / columns)
    figure = Figure(figsize=(3.1 * columns + 0.8, 3.3 * rows + 0.7))
    panels = figure.subplots(rows, columns, squeeze=False)
    norm = _times(paths.values())
    for axes, (index, (steps, points)) in zip(panels.flat, paths.items(), strict=False):
        _panel(axes, steps, points, norm)
        _finish(axes, points, teacher)
        axes.set_title(label(cells[index], cells))
    for axes in panels.flat[len(paths) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel("$|a_k| w_{k,2}$")
    figure.colorbar(ScalarMappable(norm, "viridis_r"), ax=panels, label="optimiser update", aspect=30, pad=0.02, extend="min")
    _legend(figure)
    figure.suptitle(f"{protocol.name}: each hidden unit's path, seed {seed}")
    return figure
