"""Theory as lines, simulation as dots, against time."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richlearn.bench._sections import VARIANT
from richlearn.figures._style import styled
from richlearn.figures._theory import Run, colours, explain, runs, swept
from richlearn.predictions.base import quantity

_LABELS = {
    "mu": "$\\mu = a\\,‖w‖$",
    "phi": "$\\phi = \\cos(w, \\beta_*)$",
    "S": "kernel distance $S(0, t)$",
    "sigma": "singular values of $\\beta$",
    "norm": "$‖\\beta‖$",
    "beta": "components of $\\beta$",
}
_WHOLE = ("mu", "phi", "sigma", "norm", "S")  # what says most in one panel; else the components of β


def _quantities(run: Run) -> list[str]:
    names = list(dict.fromkeys(map(quantity, run.predicted)))
    return [name for name in _WHOLE if name in names] or names[:1]


@styled
def dynamics(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any) -> Figure:
    """Every quantity of the protocol's prediction against time, a column of panels a variant, for the first seed.

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
    shape = (len(names), len(variants)) if len(variants) > 1 else (1, len(names))
    figure = Figure(figsize=(3.2 * shape[1] + 1.2, 2.6 * shape[0] + 0.4))
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey="row" if len(variants) > 1 else False)
    grid = panels if len(variants) > 1 else panels.T  # quantity, variant
    for run, colour in zip(found, colours(found), strict=True):
        column = grid[:, variants.index(run.cell.parameters.get(VARIANT))]
        for axes, name in zip(column, names, strict=True):
            axes.plot(run.times, run.of(name, "predicted"), color=colour, linewidth=1.2)
            axes.plot(run.times, run.of(name), "o", color=colour, markersize=2.6, markeredgewidth=0, alpha=0.8)
            axes.plot([], [], "-o", color=colour, markersize=2.6, label=swept(run))
    last = max(run.times[-1] for run in found)
    first = min(run.times[np.argmax(run.times > 0)] for run in found)
    for axes in panels.flat:
        axes.set(xscale="log", xlim=(max(first, last * 1e-4), last))
    for axes in panels[-1]:
        axes.set_xlabel("time $t$ = learning rate × updates")
    for row, name in zip(grid, names, strict=True):
        row[0].set_ylabel(_LABELS.get(name, name))
    for axes, variant in zip(grid[0], variants, strict=True):
        if variant is not None:
            axes.set_title(str(variant).replace("_", " "))
    explain(panels[0, 0])
    handles = {text: handle for axes in panels.flat for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    figure.suptitle(f"{protocol.name}: theory and simulation")
    return figure
