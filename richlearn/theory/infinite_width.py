"""Kernels of bias-free ReLU networks of infinite width."""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import spherical_jn

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite


class Kernels(NamedTuple):
    """Covariance of the outputs and tangent kernel, each (n, n')."""

    nngp: Array
    ntk: Array


def _inputs(name: str, value: ArrayLike) -> np.ndarray:
    array = finite(name, value)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ParameterError(f"`{name}` must have shape (n, d), d ≥ 1, got {array.shape}")
    return array


def _of_layers(name: str, value: Any, depth: int, least: str) -> np.ndarray:
    array = finite(name, value)
    if array.shape != (depth,):
        raise ParameterError(f"`{name}` must hold one number for each of the {depth} layers, got shape {array.shape}")
    if (array < 0).any() or (least == "positive" and (array == 0).any()):
        raise ParameterError(f"`{name}` must be {least}, got {array.min():g}")
    return array


def _unit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (n, d), 0 for the zero vector, and lengths (n,)."""
    largest = np.abs(x).max(1)
    scaled = x / np.where(largest > 0, largest, 1)[:, None]
    length = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(length > 0, length, 1)[:, None], largest * length


def _angles(u: np.ndarray, u2: np.ndarray) -> np.ndarray:
    """Angles (n, n') between directions, to full relative accuracy near 0 and π, where the arc cosine has half the digits."""
    return 2 * np.arctan2(cdist(u, u2), cdist(u, -u2))


def _next_angle(theta: np.ndarray) -> np.ndarray:
    """arccos((sin θ + (π − θ) cos θ)/π), the angle one layer on, from 1 − cos: sin θ − θ cos θ = θ² j₁(θ) does not cancel."""
    deficit = 2 * np.sin(theta / 2) ** 2 - theta**2 * spherical_jn(1, theta) / np.pi
    return 2 * np.arcsin(np.sqrt(deficit / 2))


@array_function
def relu_kernels(
    x: ArrayLike, x2: ArrayLike | None = None, *, depth: int, variances: ArrayLike | None = None, rates: ArrayLike | None = None
) -> Kernels:
    """Kernels of f(x) = W_D σ(W_{D−1} … σ(W_1 x)), σ the ReLU, no bias, all widths n_1, …, n_{D−1} → ∞, W_l ~ N(0, σ_l²/n_{l−1}).

    Σ¹ = σ_1² xᵀx'/n_0, Θ¹ = λ_1Σ¹ and, with q = sqrt(Σˡ(x, x)Σˡ(x', x')), cos θ = Σˡ(x, x')/q,

        Σ^{l+1} = σ_{l+1}² q (sin θ + (π − θ) cos θ)/(2π),   Θ^{l+1} = λ_{l+1}Σ^{l+1} + σ_{l+1}² (π − θ)/(2π)·Θˡ.

    Σ^D is the covariance of an output over networks, Θ^D the tangent kernel of an output (different outputs: 0). The mean
    tangent kernel at initialisation is Θ^D at any width for D ≤ 2, and up to O(1/width) beyond.

    Args:
        x: n inputs, (n, d).
        x2: n' inputs, (n', d); `x` if absent.
        depth: D ≥ 1, layers of weights, the readout included.
        variances: σ_l², (D,); by default 2 in every layer but the readout, 1 there: at any depth hidden units have
            Σˡ(x, x) = 2‖x‖²/n_0 and the outputs Σ^D(x, x) = ‖x‖²/n_0.
        rates: λ_l = η_l n_{l−1}/σ_l², (D,): learning rates of the raw N(0, 1) weights in NTK parametrisation, by default 1.
            A layer that is not trained has 0. `richlearn.schemes.NTK` has variances and rates of 1.

    Returns:
        `nngp` Σ^D and `ntk` Θ^D, (n, n').

    Raises:
        ParameterError: an argument out of range or of unlike shape.

    Source: Jacot, Gabriel & Hongler 2018, theorem 1 (the recursion); Cho & Saul 2009 (its two Gaussian expectations).

    >>> relu_kernels([[1.0, 0.0], [0.0, 1.0]], depth=2).ntk.round(4)
    array([[1.    , 0.1592],
           [0.1592, 1.    ]])
    """
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise ParameterError(f"`depth` must be a whole number of at least 1, got {depth!r}")
    left = _inputs("x", x)
    right = left if x2 is None else _inputs("x2", x2)
    if left.shape[1] != right.shape[1]:
        raise ParameterError(f"`x2` must have as many columns as `x`, {left.shape[1]}, got {right.shape[1]}")
    scale = _of_layers("variances", [2.0] * (depth - 1) + [1.0] if variances is None else variances, depth, "positive")
    rate = _of_layers("rates", np.ones(depth) if rates is None else rates, depth, "at least 0")
    (u, length), (u2, length2) = _unit(left), _unit(right)
    q, theta = scale[0] / left.shape[1] * np.outer(length, length2), _angles(u, u2)
    nngp = q * np.cos(theta)
    ntk = rate[0] * nngp
    for variance, speed in zip(scale[1:], rate[1:], strict=True):
        active, theta, q = (np.pi - theta) / (2 * np.pi), _next_angle(theta), variance / 2 * q
        nngp = q * np.cos(theta)
        ntk = speed * nngp + variance * active * ntk
    return Kernels(nngp, ntk)
