"""Deep linear networks from isotropic weights: a closed equation for β, and the minimiser that it ends in."""

from typing import final

import numpy as np
from scipy.integrate import solve_ivp

from richlearn.errors import NotApplicable, ParameterError
from richlearn.predictions.base import Prediction, Setting, Weights, distance, named, turned
from richlearn.theory import deep_bias_minimiser, deep_conserved, isotropic_tangent_matrix, readout_norm

_TOLERANCE = 1e-6  # of a conserved matrix, against its largest entry: float32 weights keep about as much


def _map(weights: Weights) -> np.ndarray:
    """β (d,) of a network with one output."""
    if len(weights[-1]) != 1:
        raise NotApplicable(f"this theory is of 1 output, the network has {len(weights[-1])}")
    beta = weights[-1]
    for weight in reversed(weights[:-1]):
        beta = beta @ weight
    return beta[0]


def _offset(start: Weights) -> float:
    """ε of aaᵀ − W_LW_Lᵀ = −εI, the other layers balanced."""
    *inner, last = deep_conserved(start)
    epsilon = -float(np.trace(last)) / len(last)
    wanted = [np.zeros_like(each) for each in inner] + [-epsilon * np.eye(len(last))]
    scale = max(float(np.square(weight).sum()) for weight in start)
    if max(float(np.abs(there - here).max()) for there, here in zip([*inner, last], wanted, strict=True)) > _TOLERANCE * scale:
        raise ParameterError("the weights are not isotropic: all layers balanced but the last, which has aaᵀ − W_LW_Lᵀ = −εI")
    return max(epsilon, 0.0)


@final
class DeepLinearRun(Prediction):
    """β, ‖β‖ and S(0, t) by the closed equation β̇ = −M(β)Xᵀρ, and as the last time the minimiser (Kunin et al. 2024, appendix on depth)."""

    def observe(self, weights: Weights, start: Weights, setting: Setting) -> dict[str, float]:
        """See `Prediction.observe`."""
        beta = _map(weights)
        found = {f"beta[{i}]": float(each) for i, each in enumerate(beta)}
        return found | {"norm": float(np.linalg.norm(beta)), "S": turned(weights, start, setting)}

    def predict(self, start: Weights, setting: Setting, times: np.ndarray) -> dict[str, np.ndarray]:
        """See `Prediction.predict`."""
        if len(set(setting.rates)) > 1:
            raise NotApplicable("this theory needs one learning rate for all layers")
        rate, depth, epsilon, x, y = setting.rates[0], len(start) - 1, _offset(start), setting.x, setting.y[:, 0]

        def matrix(beta: np.ndarray) -> np.ndarray:
            return np.asarray(isotropic_tangent_matrix(readout_norm(np.linalg.norm(beta), depth, epsilon), beta, epsilon, depth))

        beta0 = _map(start)
        flow = solve_ivp(
            lambda _, beta: -rate * matrix(beta) @ (x.T @ (x @ beta - y)),
            (0, times[-1]), beta0, "DOP853", t_eval=times, rtol=1e-10, atol=1e-12,
        )  # fmt: skip
        if not flow.success:
            raise ParameterError(f"the equation of β could not be integrated: {flow.message}")
        beta = flow.y.T
        kernels = np.stack([x @ matrix(each) @ x.T for each in beta])
        beta = np.concatenate([beta[:-1], deep_bias_minimiser(x, y, beta0, depth, epsilon)[None]])
        return named("beta", beta) | {"norm": np.linalg.norm(beta, axis=1), "S": distance(kernels, kernels[:1])}
