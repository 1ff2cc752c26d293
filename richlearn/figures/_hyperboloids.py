"""The surfaces that conservation confines a single neuron to, with its paths on them."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richlearn.errors import UsageError
from richlearn.figures._style import PALETTE, styled
from richlearn.figures._theory import explain, runs
from richlearn.theory import hyperboloid


@styled
def hyperboloids(trials: pd.DataFrame, curves: pd.DataFrame, protocol: Any) -> Figure:
    """a² − ‖w‖² = δ in the space (w₁, w₂, a), a panel a δ, with theory's paths as lines and simulated ones as dots (paper's figure 2).

    Args:
        trials: table of trials.
        curves: table of their curves, with `observed` and `predicted`.
        protocol: what was asked; its rows have a parameter `delta`.

    Raises:
        UsageError: no run was compared with theory, the input is not two-dimensional, or rows have no δ.
    """
    found = runs(protocol, trials, curves)
    if not {"a", "w[0]", "w[1]"} <= found[0].predicted.keys() or "w[2]" in found[0].predicted:
        raise UsageError(f"`hyperboloids` needs the prediction single_neuron on two-dimensional input; `{protocol.name}` has another")
    if any("delta" not in run.cell.parameters for run in found):
        raise UsageError(f"`hyperboloids` needs rows with a parameter `delta`; those of `{protocol.name}` have none")
    deltas = sorted({run.cell.parameters["delta"] for run in found})
    reach = 1.1 * max(float(np.abs(np.hstack([run.of("w"), run.of("w", "predicted")])).max()) for run in found)
    figure = Figure(figsize=(4.0 * len(deltas), 4.4))
    panels = [figure.add_subplot(1, len(deltas), place + 1, projection="3d") for place in range(len(deltas))]
    for axes, delta in zip(panels, deltas, strict=True):
        for sheet in hyperboloid(delta, extent=reach):
            axes.plot_surface(*sheet, color="#BBBBBB", alpha=0.25, linewidth=0, antialiased=True)  # pyright: ignore[reportAttributeAccessIssue]
        own = [run for run in found if run.cell.parameters["delta"] == delta]
        for run, colour in zip(own, PALETTE * len(own), strict=False):
            points = [np.column_stack([run.of("w", source), run.of("a", source)]) for source in ("predicted", "observed")]
            axes.plot(*points[0].T, color=colour, linewidth=1.6, zorder=5)
            axes.plot(*points[1].T, "o", color=colour, markersize=2.6, markeredgewidth=0, zorder=6)
            axes.plot(*points[1][:1].T, "o", markersize=5, markerfacecolor="white", markeredgecolor=colour, zorder=7)
        axes.set(title=f"δ = {delta:g}".replace("-", "−"), xlabel="$w_1$", ylabel="$w_2$", zlabel="$a$")
        axes.set_box_aspect(None, zoom=1.02)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        axes.view_init(elev=18, azim=-60)  # pyright: ignore[reportAttributeAccessIssue]
    explain(panels[0])
    panels[0].plot([], [], "o", markerfacecolor="white", markeredgecolor="black", label="start")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"{protocol.name}: paths on $a^2 - ‖w‖^2 = \\delta$")
    return figure
