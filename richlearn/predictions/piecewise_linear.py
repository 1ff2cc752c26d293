"""Two-layer piecewise linear networks: every unit by its own closed equation."""

from typing import final

import numpy as np

from richlearn.predictions.base import Prediction, Setting, Weights, named, two_layers
from richlearn.theory import reduced_flow


@final
class PiecewiseLinearRun(Prediction):
    """β_k = a_k·w_k of every unit by β̇_k = −M_kξ_k, closed in β_k and the conserved δ_k (Kunin et al. 2024, section 4).

    The readout a and the incoming weights w are observed as well, for the picture of the partition; nothing is said of them.

    Args:
        slope: γ of σ(z) = max(z, γz).
    """

    def __init__(self, slope: float = 0.0) -> None:
        self.slope = slope

    def function(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """See `Prediction.function`."""
        w, a = two_layers(weights)
        z = x @ w.T
        return np.maximum(z, self.slope * z) @ a

    def observe(self, weights: Weights, start: Weights, setting: Setting) -> dict[str, float]:
        """See `Prediction.observe`."""
        w, a = two_layers(weights, outputs=1)
        units = np.concatenate([a, w], axis=1)
        found = {f"beta[{k},{i}]": float(a[k, 0] * w[k, i]) for k, i in np.ndindex(w.shape)}
        return found | {f"unit[{k},{i}]": float(units[k, i]) for k, i in np.ndindex(units.shape)}

    def predict(self, start: Weights, setting: Setting, times: np.ndarray) -> dict[str, np.ndarray]:
        """See `Prediction.predict`."""
        w, a = two_layers(start, outputs=1)
        lr_w, lr_a = setting.rates
        return named("beta", reduced_flow(w, a[:, 0], setting.x, setting.y[:, 0], times, slope=self.slope, lr_w=lr_w, lr_a=lr_a))
