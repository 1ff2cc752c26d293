"""Two-layer linear networks with Δ = δI on whitened input, exact."""

from typing import final

import numpy as np

from richlearn.predictions.base import Prediction, Setting, Weights, named, turned, two_layers
from richlearn.theory import BalancedLinear


@final
class BalancedLinearRun(Prediction):
    """The map β (d, c), its singular values σ, and the distance S(0, t) of the full kernel.

    Dominé et al. 2024, arXiv:2409.14623; Kunin et al. 2024, section 4. Needs XᵀX = I.
    """

    def observe(self, weights: Weights, start: Weights, setting: Setting) -> dict[str, float]:
        """See `Prediction.observe`."""
        w, a = two_layers(weights)
        beta = w.T @ a
        found = {f"sigma[{i}]": each for i, each in enumerate(np.linalg.svd(beta, compute_uv=False))}
        found |= {f"beta[{i},{j}]": beta[i, j] for i, j in np.ndindex(beta.shape)} | {"S": turned(weights, start, setting)}
        return {name: float(value) for name, value in found.items()}

    def predict(self, start: Weights, setting: Setting, times: np.ndarray) -> dict[str, np.ndarray]:
        """See `Prediction.predict`."""
        w, a = two_layers(start)
        lr_w, lr_a = setting.rates
        exact = BalancedLinear(w, a, setting.x.T @ setting.y, lr_w=lr_w, lr_a=lr_a)
        beta = np.asarray(exact.beta(times))
        sigma = np.linalg.svd(beta, compute_uv=False)
        return named("sigma", sigma) | named("beta", beta) | {"S": np.asarray(exact.kernel_distance(times))}
