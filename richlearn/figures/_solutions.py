"""Which of many solutions a single neuron ends in."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from richlearn.errors import UsageError
from richlearn.figures._style import GREY, styled
from richlearn.figures._theory import colours, explain, runs, swept


@styled
def solutions(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any, data: tuple[ArrayLike, ArrayLike]) -> Figure:
    """Paths of β = a·w in the plane, the line of solutions Xβ = y, and on it the predicted ends (paper's figure 4b).

    Args:
        trials: table of trials.
        curves: table of their curves, with `observed` and `predicted`.
        protocol: what was asked.
        data: training inputs (n, 2) and targets (n, 1).

    Raises:
        UsageError: no run was compared with theory, or β is not a point of the plane.
    """
    found = runs(protocol, trials, curves)
    x, y = (np.asarray(each, dtype=np.float64) for each in data)
    if "beta[1]" not in found[0].predicted or "beta[2]" in found[0].predicted:
        raise UsageError(f"`solutions` needs a prediction of β (implicit_bias) on two-dimensional input; `{protocol.name}` has another")
    figure = Figure(figsize=(5.6, 4.6))
    axes = figure.subplots()
    foot, direction = np.linalg.pinv(x) @ y[:, 0], np.linalg.svd(x)[2][-1]
    if np.linalg.matrix_rank(x) == 1:
        axes.axline(tuple(foot), tuple(foot + direction), color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="$X\\beta = y$")
    for run, colour in zip(found, colours(found), strict=True):
        predicted, observed = run.of("beta", "predicted"), run.of("beta")
        axes.plot(*predicted[:-1].T, color=colour, linewidth=1.2)
        axes.plot(*observed.T, "o", color=colour, markersize=2.4, markeredgewidth=0)
        axes.plot(*predicted[-1], "X", color=colour, markersize=8, markeredgecolor="white")
        axes.plot([], [], "-o", color=colour, markersize=2.4, label=swept(run))
    axes.plot(*found[0].of("beta")[0], "o", markerfacecolor="white", markeredgecolor="black", markersize=6, label="start")
    explain(axes)
    axes.plot([], [], "X", color="black", markersize=7, label="predicted end")
    axes.set(xlabel="$\\beta_1$", ylabel="$\\beta_2$", aspect="equal", adjustable="datalim")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(f"{protocol.name}: the solution that each δ chooses")
    return figure
