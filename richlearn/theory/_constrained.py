"""The solutions of Xβ = y, and the one among them at which a radial potential less a linear form is least.

Let Ψ depend on ‖β‖ alone. On Xβ = y the minimiser of Ψ(β) − gᵀβ is X⁺y + t(I − Π)g with some t ≥ 0, where Π projects on the row space of X:
at a given ‖β‖ this is the point with the largest gᵀβ. So there is one unknown, whatever the dimension of the null space.
"""

from typing import Any, NamedTuple

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import finite

_OFF = 1e-10  # largest relative residual of data that can be interpolated
_STEPS = 200  # Newton needs about one step a kink of the logarithm, and five at the root


class Solutions(NamedTuple):
    """`particular` X⁺y, (d,), and X = U diag(`spread`) `axes` with spread > 0, (r,), and orthonormal axes, (r, d)."""

    particular: np.ndarray
    spread: np.ndarray
    axes: np.ndarray

    def unseen(self, vector: np.ndarray) -> np.ndarray:
        """(I − Π)vector, (d,)."""
        return np.zeros_like(vector) if len(self.axes) == len(vector) else vector - (self.axes @ vector) @ self.axes


def _data(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = finite("x", x, "n d"), finite("y", y, "n")
    if inputs.ndim != 2 or not inputs.shape[1] or targets.shape != (len(inputs),):
        raise ParameterError(f"`x` and `y` must have shapes (n, d) with d ≥ 1 and (n,), got {inputs.shape} and {targets.shape}")
    return inputs, targets


def solutions(x: Any, y: Any) -> Solutions:
    """All β with xβ = y, for `x` (n, d) and `y` (n,).

    Raises:
        ParameterError: shapes do not fit, a value is not finite, or there is no such β.
    """
    inputs, targets = _data(x, y)
    left, spread, axes = np.linalg.svd(inputs, full_matrices=False)
    largest = spread.max(initial=0.0)
    seen = spread > max(inputs.shape) * np.finfo(np.float64).eps * largest
    left, spread, axes = left[:, seen], spread[seen], axes[seen]
    particular = (targets @ left / spread) @ axes
    residual = float(np.linalg.norm(inputs @ particular - targets))
    scale = float(np.linalg.norm(targets) + largest * np.linalg.norm(particular))
    if residual > _OFF * scale:
        raise ParameterError(f"`y` must be in the range of `x`, got one {residual:.3g} away; give its projection, which has the same flow")
    return Solutions(particular, spread, axes)


def vector(name: str, value: Any, size: int) -> np.ndarray:
    """`value` as a float64 array (size,)."""
    array = finite(name, value, "d")
    if array.shape != (size,):
        raise ParameterError(f"`{name}` must have shape ({size},), as many entries as `x` has columns, got {array.shape}")
    return array


def positive_root(offsets: np.ndarray, log_value: np.ndarray | np.floating) -> np.ndarray:
    """The root v ≥ 0 of v·Π_i (v + c_i) = e^log_value, for `offsets` c_i ≥ 0 (…, k) and `log_value` (…) that may be −∞.

    The logarithm of the left side is convex in log v, with slopes from 1 to k + 1: Newton's method from above falls to the root.
    """
    position = log_value / (offsets.shape[-1] + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_STEPS):
            factors = np.exp(position)[..., None] + offsets
            excess = position + np.log(factors).sum(-1) - log_value
            step = excess / (1 + (np.exp(position)[..., None] / factors).sum(-1))
            step = np.where(np.isfinite(step), step, 0.0)
            position = position - step
            if (step <= 1e-15 * (1 + np.abs(position))).all():  # the last ones, of rounding alone, may be negative
                break
    return np.asarray(np.exp(position))
