"""The whole run of a single neuron, drawn from its exact solution."""

import numpy as np
from matplotlib.figure import Figure

from richlearn.figures._style import GREY, PALETTE, styled
from richlearn.theory import SingleNeuron

_POINTS = 800


def _end(exact: SingleNeuron) -> float:
    """A time by which both stages are long over."""
    stages = [float(time) for time in exact.stages() if np.isfinite(time)]
    return 20 * max(stages, default=1.0) or 1.0


@styled
def neuron(exact: SingleNeuron) -> Figure:
    """Loss, μ, φ and S(0, t) of one neuron against time, the half-way times of fit and alignment marked (paper's figure 3)."""
    end = _end(exact)
    times = np.geomspace(end * 1e-4, end, _POINTS)
    mu, phi, distance, loss = (np.asarray(each(times)) for each in (exact.mu, exact.phi, exact.kernel_distance, exact.loss))
    panels = (
        ("loss $\\frac{1}{2}‖\\beta - \\beta_*‖^2$", loss),
        ("$\\mu = a\\,‖w‖$", mu),
        ("$\\phi = \\cos(w, \\beta_*)$", phi),
        ("kernel distance $S(0, t)$", distance),
    )
    figure = Figure(figsize=(11.5, 2.9))
    for axes, (text, values) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.plot(times, values, color=PALETTE[0])
        for time, name, colour in zip(exact.stages(), ("fit", "kernel"), (PALETTE[1], PALETTE[2]), strict=True):
            if np.isfinite(time):
                axes.axvline(float(time), color=colour, linestyle=(0, (4, 2)), linewidth=1, label=f"{name} half way, t = {float(time):.3g}")
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.set(xlabel="time $t$", ylabel=text, xscale="log", xlim=(times[0], end))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"single neuron, δ = {float(exact.delta):.4g}".replace("-", "−"))
    return figure
