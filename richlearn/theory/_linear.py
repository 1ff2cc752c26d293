"""Formulas and checks that the modules on linear and piecewise linear networks share."""

from typing import TypeAlias

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import ArrayLike, finite, positive

Values: TypeAlias = np.ndarray | np.floating  # NumPy makes numbers of arrays without axes


def weights(w: ArrayLike, a: ArrayLike, names: tuple[str, str] = ("w", "a")) -> tuple[np.ndarray, np.ndarray]:
    w, a = finite(names[0], w, "h d"), finite(names[1], a, "h c")
    if w.shape[-2] != a.shape[-2]:
        raise ParameterError(f"`{names[0]}` (…, h, d) and `{names[1]}` (…, h, c) must share h, got {w.shape} and {a.shape}")
    return w, a


def rates(lr_w: ArrayLike, lr_a: ArrayLike, axes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both learning rates with `axes` axes of length 1 behind those of the batch."""
    last = (..., *[None] * axes)
    return positive("lr_w", lr_w)[last], positive("lr_a", lr_a)[last]


def transposed(matrix: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrix, -1, -2)


def square(matrix: np.ndarray) -> np.ndarray:
    return transposed(matrix) @ matrix


def ratio(top: Values, bottom: Values, otherwise: float = 0.0) -> np.ndarray:
    """`top`/`bottom`, and `otherwise` where `bottom` is 0."""
    return np.where(bottom == 0, otherwise, top / np.where(bottom == 0, 1.0, bottom))


def tangent(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """outer ⊗ I + I ⊗ inner of matrices (…, c, c) and (…, d, d). Indices: output j, k; input i, l."""
    c, d = outer.shape[-1], inner.shape[-1]
    matrix = np.einsum("...jk,il->...jikl", outer, np.eye(d)) + np.einsum("jk,...il->...jikl", np.eye(c), inner)
    return matrix.reshape(*matrix.shape[:-4], c * d, c * d)


def branches(delta: Values, strength: Values) -> tuple[np.ndarray, np.ndarray]:
    """(κ + δ)/2 and (κ − δ)/2, κ = √(δ² + 4·strength²), without cancellation."""
    larger = (np.abs(delta) + np.hypot(delta, 2 * strength)) / 2
    smaller = strength * ratio(strength, larger)
    return np.where(delta >= 0, larger, smaller), np.where(delta >= 0, smaller, larger)


def sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ParameterError(f"`{name}` must be at least 1, got {size}")


def times(times: ArrayLike) -> np.ndarray:
    found = finite("times", times)
    if (found < 0).any():
        raise ParameterError(f"`times` must be ≥ 0, got {found.min():g}")
    return found
