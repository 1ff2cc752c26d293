"""One linear neuron f(x) = a wᵀx: its whole run, and where it ends."""

from typing import final

import numpy as np

from richlearn.errors import NotApplicable
from richlearn.predictions.base import Prediction, Setting, Weights, named, turned, two_layers
from richlearn.theory import SingleNeuron, bias_minimiser


def _neuron(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """a () and w (d,)."""
    w, a = two_layers(weights, outputs=1)
    if len(w) != 1:
        raise NotApplicable(f"this theory is of one hidden unit, the network has {len(w)}")
    return a[0, 0], w[0]


def _exact(start: Weights, setting: Setting) -> SingleNeuron:
    a, w = _neuron(start)
    lr_w, lr_a = setting.rates
    return SingleNeuron.on_data(a, w, setting.x, setting.y[:, 0], lr_a=lr_a, lr_w=lr_w)


@final
class SingleNeuronRun(Prediction):
    """a, w, μ = a‖w‖, φ = cos(w, β*) and the kernel distance S(0, t), exact (Kunin et al. 2024, section 3)."""

    def observe(self, weights: Weights, start: Weights, setting: Setting) -> dict[str, float]:
        """See `Prediction.observe`."""
        a, w = _neuron(weights)
        size, target = np.linalg.norm(w), setting.x.T @ setting.y[:, 0]
        found = {"a": a, "mu": a * size, "phi": w @ target / (size * np.linalg.norm(target)), "S": turned(weights, start, setting)}
        return {name: float(value) for name, value in found.items()} | {f"w[{i}]": float(each) for i, each in enumerate(w)}

    def predict(self, start: Weights, setting: Setting, times: np.ndarray) -> dict[str, np.ndarray]:
        """See `Prediction.predict`."""
        exact = _exact(start, setting)
        a, w = exact.at(times)
        found = {"a": a, "mu": exact.mu(times), "phi": exact.phi(times), "S": exact.kernel_distance(times)}
        return {name: np.asarray(values) for name, values in found.items()} | named("w", np.asarray(w))


@final
class ImplicitBias(Prediction):
    """β = a·w on low-rank input: the exact way, and as the last time the minimiser of Ψ_δ(β) − g₀ᵀβ (Kunin et al. 2024, theorem 1)."""

    def observe(self, weights: Weights, start: Weights, setting: Setting) -> dict[str, float]:
        """See `Prediction.observe`."""
        a, w = _neuron(weights)
        return {f"beta[{i}]": float(each) for i, each in enumerate(a * w)}

    def predict(self, start: Weights, setting: Setting, times: np.ndarray) -> dict[str, np.ndarray]:
        """See `Prediction.predict`."""
        a, w = _neuron(start)
        lr_w, lr_a = setting.rates
        beta = np.array(_exact(start, setting).beta(times))
        beta[-1] = bias_minimiser(setting.x, setting.y[:, 0], a, w, lr_a=lr_a, lr_w=lr_w)
        return named("beta", beta)
