"""Theory as lines, simulation as dots, against time."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richlearn.bench._sections import VARIANT
from richlearn.figures._style import styled, symbol
from richlearn.figures._theory import Run, colours, explain, runs
from richlearn.predictions.base import quantity

_LABELS = {
    "mu": "$\\mu = a\\,‖w‖$",
    "phi": "$\\phi = \\cos(w, \\beta_*)$",
    "S": "kernel distance $S(0, t)$",
    "sigma": "singular values of $\\beta$",
    "norm": "$‖\\beta‖$",
    "beta": "components of $\\beta$",
}
_SWEPT = ("delta", "lam", "epsilon", "tau")
_WHOLE = ("mu", "phi", "sigma", "norm", "S")  # what says most in one panel; else the components of β


def _quantities(run: Run) -> list[str]:
    names = list(dict.fromkeys(map(quantity, run.predicted)))
    return [name for name in _WHOLE if name in names] or names[:1]


def _label(run: Run) -> str:
    return ", ".join(f"{symbol(name)} = {value:g}".replace("-", "−") for name, value in run.cell.arguments.items() if name in _SWEPT)


@styled
def dynamics(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any) -> Figure:
    """Every quantity of the protocol's prediction against time, a row of panels a variant, for the first seed.

    Args:
        trials: table of trials.
        curves: table of their curves, with `observed` and `predicted`.
        protocol: what was asked.

    Raises:
        UsageError: no run was compared with theory.
    """
    found = runs(protocol, trials, curves)
    variants = list(dict.fromkeys(run.cell.parameters.get(VARIANT) for run in found))
    names = _quantities(found[0])
    figure = Figure(figsize=(3.3 * len(names) + 1.2, 2.5 * len(variants) + 0.6))
    panels = figure.subplots(len(variants), len(names), squeeze=False, sharex=True)
    for run, colour in zip(found, colours(found), strict=True):
        row = panels[variants.index(run.cell.parameters.get(VARIANT))]
        for axes, name in zip(row, names, strict=True):
            axes.plot(run.times, run.of(name, "predicted"), color=colour, linewidth=1.2)
            axes.plot(run.times, run.of(name), "o", color=colour, markersize=2.6, markeredgewidth=0, alpha=0.8)
            axes.plot([], [], "-o", color=colour, markersize=2.6, label=_label(run))
    last = max(run.times[-1] for run in found)
    first = min(run.times[np.argmax(run.times > 0)] for run in found)
    for (place, _), axes in np.ndenumerate(panels):
        axes.set_xscale("log")
        axes.set_xlim(max(first, last * 1e-4), last)
        if variants[place] is not None and axes is panels[place, 0]:
            axes.set_title(str(variants[place]).replace("_", " "), loc="left")
    for axes in panels[-1]:
        axes.set_xlabel("time $t$ = learning rate × updates")
    for row in panels:
        for axes, name in zip(row, names, strict=True):
            axes.set_ylabel(_LABELS.get(name, name))
    explain(panels[0, 0])
    handles = {text: handle for axes in panels.flat for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    figure.suptitle(f"{protocol.name}: theory and simulation")
    return figure
