"""Pictures of a benchmark's results: functions of its tables that return a matplotlib figure and leave pyplot alone."""

import inspect
from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from richlearn.errors import UsageError, nearest
from richlearn.figures._accuracy import accuracy_curves
from richlearn.figures._curves import curves
from richlearn.figures._dynamics import dynamics
from richlearn.figures._grokking_map import grokking_map
from richlearn.figures._hyperboloids import hyperboloids
from richlearn.figures._neuron import neuron
from richlearn.figures._partition import partition
from richlearn.figures._phase_portrait import phase_portrait
from richlearn.figures._sample_complexity import sample_complexity
from richlearn.figures._scheme_comparison import scheme_comparison
from richlearn.figures._share_reached import share_reached
from richlearn.figures._solutions import solutions
from richlearn.figures._style import save
from richlearn.figures._trajectories import trajectories

__all__ = [
    "FIGURES",
    "accuracy_curves",
    "curves",
    "draw",
    "dynamics",
    "grokking_map",
    "hyperboloids",
    "neuron",
    "partition",
    "phase_portrait",
    "sample_complexity",
    "save",
    "scheme_comparison",
    "share_reached",
    "solutions",
    "trajectories",
]

# What a protocol may name under `figures:`. Each asks for the tables it needs by the names of its arguments.
FIGURES: dict[str, Callable[..., Figure]] = {
    function.__name__: function
    for function in (
        phase_portrait,
        curves,
        trajectories,
        scheme_comparison,
        dynamics,
        hyperboloids,
        solutions,
        partition,
        sample_complexity,
        accuracy_curves,
        grokking_map,
        share_reached,
    )
}


def draw(
    name: str,
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    leaderboard: pd.DataFrame,
    protocol: Any,
    teacher: tuple[ArrayLike, ArrayLike] | None = None,
    data: tuple[ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """The figure called `name`, as a protocol's `figures:` lists it.

    Args:
        name: one of `FIGURES`.
        trials: table of trials.
        curves: table of their curves.
        leaderboard: from `leaderboard.build` or `leaderboard.read`.
        protocol: what was asked.
        teacher: directions and readouts of the first seed's teacher, for `trajectories`.
        data: inputs and targets of the first seed's training set, for `solutions` and `partition`.

    Raises:
        UsageError: there is no such figure (the nearest name is given), or its data is not there.
    """
    if name not in FIGURES:
        raise UsageError(f"unknown figure `{name}`; {nearest(name, FIGURES)}")
    given = {"trials": trials, "curves": curves, "leaderboard": leaderboard, "protocol": protocol, "teacher": teacher, "data": data}
    return FIGURES[name](**{argument: given[argument] for argument in inspect.signature(FIGURES[name]).parameters})
