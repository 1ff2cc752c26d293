"""Two-layer piecewise linear networks, f(x) = aᵀσ(Wx) with σ(z) = max(z, γz): the flow of their units, their kernel, first alignment."""

from typing import NamedTuple

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, positive
from richlearn.theory._kinks import ReducedMotion, ascend, planes_of
from richlearn.theory._linear import times as checked


def _slope(slope: float) -> float:
    found = float(finite("slope", slope))
    if found > 1:
        raise ParameterError(f"`slope` must be ≤ 1 for σ(z) = max(z, γz), got {found:g}")
    return found


def _inputs(w: np.ndarray, x: ArrayLike) -> np.ndarray:
    found = finite("x", x)
    if found.ndim != 2 or found.shape[1] != w.shape[-1]:
        raise ParameterError(f"`x` must have shape (n, {w.shape[-1]}), got {found.shape}")
    return found


def _targets(x: np.ndarray, y: ArrayLike) -> np.ndarray:
    found = finite("y", y)
    if found.shape != (len(x),):
        raise ParameterError(f"`y` must have shape ({len(x)},), got {found.shape}")
    return found


def _units(w: ArrayLike, a: ArrayLike, names: tuple[str, str] = ("w", "a")) -> tuple[np.ndarray, np.ndarray]:
    w, a = finite(names[0], w, "h d"), finite(names[1], a, "h")
    if w.shape[-2] != a.shape[-1]:
        raise ParameterError(f"`{names[0]}` (…, h, d) and `{names[1]}` (…, h) must share h, got {w.shape} and {a.shape}")
    return w, a


def _lengths(name: str, w: np.ndarray) -> np.ndarray:
    found = np.linalg.norm(w, axis=-1)
    if (found == 0).any():
        raise ParameterError(f"`{name}` must have no row of zeros: such a unit has no direction")
    return found


def _rates(lr_w: ArrayLike, lr_a: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    return positive("lr_w", lr_w)[..., None], positive("lr_a", lr_a)[..., None]


@array_function
def activation_matrix(w: ArrayLike, x: ArrayLike, slope: float = 0.0) -> Array:
    """c_ki = σ'(w_kᵀx_i), shape (…, h, n): 1 where w_kᵀx_i > 0, else γ; at 0 it is γ, as in PyTorch.

    Args:
        w: W, (…, h, d).
        x: n inputs, (n, d).
        slope: γ ≤ 1.

    Raises:
        ParameterError: shapes do not fit, γ > 1, or something is not finite.

    >>> activation_matrix([[1.0, 0.0]], [[2.0, 1.0], [-1.0, 0.0], [0.0, 3.0]], 0.1).tolist()
    [[1.0, 0.1, 0.1]]
    """
    w = finite("w", w, "h d")
    return np.where(w @ _inputs(w, x).T > 0, 1.0, _slope(slope))


@array_function
def unit_tangent_matrices(w: ArrayLike, a: ArrayLike, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0) -> Array:
    """M_k = η_w a_k² I + η_a w_k w_kᵀ, shape (…, h, d, d): β̇_k = −M_k ξ_k, β_k = a_k w_k.

    Kunin et al. 2024, section 4: M_k = (κ_k + δ_k)/2·I + (κ_k − δ_k)/2·β_kβ_kᵀ/‖β_k‖².

    Args:
        w, a: W (…, h, d) and a (…, h).
        lr_w, lr_a: η_w, η_a > 0, numbers or (…).

    Raises:
        ParameterError: shapes do not fit, a rate is not positive, or something is not finite.

    >>> unit_tangent_matrices([[1.0, 0.0]], [2.0]).tolist()
    [[[5.0, 0.0], [0.0, 4.0]]]
    """
    (w, a), (rate_w, rate_a) = _units(w, a), _rates(lr_w, lr_a)
    return (rate_w * a**2)[..., None, None] * np.eye(w.shape[-1]) + rate_a[..., None, None] * w[..., None] * w[..., None, :]


@array_function
def unit_residuals(w: ArrayLike, a: ArrayLike, x: ArrayLike, y: ArrayLike, slope: float = 0.0) -> Array:
    """ξ_k = Σ_i c_ki x_i (f(x_i) − y_i), shape (…, h, d): the gradient of ½Σ_i(f(x_i) − y_i)² by w_k is a_k ξ_k.

    Kunin et al. 2024, section 4.

    Args:
        w, a: W (…, h, d) and a (…, h).
        x, y: data, (n, d) and (n,).
        slope: γ ≤ 1.

    Raises:
        ParameterError: shapes do not fit, γ > 1, or something is not finite.

    >>> unit_residuals([[1.0, 0.0]], [2.0], [[1.0, 1.0], [-1.0, 0.0]], [1.0, 5.0]).tolist()
    [[1.0, 1.0]]
    """
    w, a = _units(w, a)
    x = _inputs(w, x)
    slopes = activation_matrix(w, x, slope)
    gaps = np.einsum("...k,...ki->...i", a, slopes * (w @ x.T)) - _targets(x, y)
    return slopes * gaps[..., None, :] @ x


class UnitVelocities(NamedTuple):
    """How units move: `radial`, μ̇_k, (…, h), and `directional`, dβ̂_k/dt, (…, h, d)."""

    radial: Array
    directional: Array


@array_function
def unit_velocities(
    w: ArrayLike, a: ArrayLike, x: ArrayLike, y: ArrayLike, slope: float = 0.0, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0
) -> UnitVelocities:
    """Velocity of the radius μ_k = sgn(a_k)‖β_k‖ and of the direction β̂_k = w_k/‖w_k‖ of each unit.

    μ̇_k = −√(δ_k² + 4η_aη_wμ_k²)·β̂_kᵀξ_k,   dβ̂_k/dt = −η_w a_k/‖w_k‖·(I − β̂_kβ̂_kᵀ)ξ_k.
    Kunin et al. 2024, section 4, whose prefactor (√(δ_k² + 4η_aη_wμ_k²) + δ_k)/(2μ_k) is the same where a_k ≠ 0.

    Args:
        w, a, x, y, slope: as in `unit_residuals`.
        lr_w, lr_a: η_w, η_a > 0, numbers or (…).

    Raises:
        ParameterError: as there; a row of `w` is 0; a rate is not positive.

    >>> radial, directional = unit_velocities([[1.0, 0.0]], [2.0], [[1.0, 1.0]], [1.0])
    >>> radial.tolist(), directional.tolist()
    ([-5.0], [[-0.0, -2.0]])
    """
    (w, a), (rate_w, rate_a) = _units(w, a), _rates(lr_w, lr_a)
    lengths, residuals = _lengths("w", w), unit_residuals(w, a, x, y, slope)
    direction = w / lengths[..., None]
    along = (direction * residuals).sum(-1)
    turn = -(rate_w * a / lengths)[..., None] * (residuals - along[..., None] * direction)
    return UnitVelocities(-(rate_w * a**2 + rate_a * lengths**2) * along, turn)


@array_function
def piecewise_kernel(w: ArrayLike, a: ArrayLike, x: ArrayLike, slope: float = 0.0, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0) -> Array:
    """The tangent kernel K_ij = Σ_k c_ki x_iᵀM_k x_j c_kj, shape (…, n, n).

    Kunin et al. 2024, section 4.

    Args and Raises: as in `unit_velocities`; rows of 0 are allowed.

    >>> piecewise_kernel([[1.0, 0.0]], [2.0], [[1.0, 1.0], [-1.0, 0.0]]).tolist()
    [[9.0, 0.0], [0.0, 0.0]]
    """
    (w, a), (rate_w, rate_a) = _units(w, a), _rates(lr_w, lr_a)
    x = _inputs(w, x)
    slopes = activation_matrix(w, x, slope)
    hidden = slopes * (w @ x.T)
    weighted = np.swapaxes(slopes * (rate_w * a**2)[..., None], -1, -2) @ slopes
    return weighted * (x @ x.T) + rate_a[..., None] * (np.swapaxes(hidden, -1, -2) @ hidden)


@array_function
def reduced_flow(
    w0: ArrayLike,
    a0: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    times: ArrayLike,
    *,
    slope: float = 0.0,
    lr_w: float = 1.0,
    lr_a: float = 1.0,
) -> Array:
    """β_k(t), shape (T, h, d), by integration of β̇_k = −M_k ξ_k, which closes in β_k and what is conserved.

    Units with δ_k ≥ 0 are integrated as β_k: their a_k keeps its sign. Those with δ_k < 0 are as μ_k and β̂_k: a_k may pass 0, w_k may not.
    An activation pattern is left at the exact moment: a unit passes an input's hyperplane or, where both sides push it there, moves
    along it (Filippov 1988) until one lets it go. Relative accuracy about 1e-9; chaotic sensitivity to passings is the flow's own.

    Args:
        w0, a0: weights at t = 0, (h, d) and (h,); w_kᵀx_i = 0 counts as inactive.
        x, y: data, (n, d) and (n,); the loss is ½Σ_i(f(x_i) − y_i)².
        times: (T,), ≥ 0, in any order.
        slope: γ ≤ 1.
        lr_w, lr_a: η_w, η_a > 0.

    Raises:
        ParameterError: shapes do not fit, a row of `w0` is 0, γ > 1, a time is negative, a rate is not positive, something is not
            finite, or the flow changes its pattern more than 100,000 times.

    >>> reduced_flow([[1.0, 0.0]], [1.0], [[1.0, 1.0]], [2.0], [0.0, 20.0]).round(4).tolist()
    [[[1.0, 0.0]], [[1.6493, 0.3507]]]
    """
    w, a = _units(w0, a0, ("w0", "a0"))
    x = _inputs(w, x)
    if w.ndim != 2 or a.ndim != 1:
        raise ParameterError(f"`w0` and `a0` must have shapes (h, d) and (h,), got {w.shape} and {a.shape}")
    _lengths("w0", w)
    found = finite("times", checked(times), "T").reshape(-1)
    rates = float(positive("lr_w", lr_w)), float(positive("lr_a", lr_a))
    order = np.argsort(found, kind="stable")
    result = np.empty((len(found), *w.shape))
    result[order] = ReducedMotion(w, a, x, _targets(x, y), _slope(slope), *rates).at(found[order])
    return result


@array_function
def early_directions(w0: ArrayLike, x: ArrayLike, y: ArrayLike, sign: ArrayLike = 1.0, slope: float = 0.0) -> Array:
    """Where the units of a vanishing network turn before it fits anything: limits of w_k/‖w_k‖, shape (…, h, d).

    With f = 0 each direction u follows u̇ ∝ sgn(a_k)·(I − uuᵀ)Σ_i σ'(uᵀx_i) y_i x_i alone (Kunin et al. 2024, section 4; Maennel et al.
    2018, arXiv:1803.08367). It is traced exactly: arcs of great circles within an activation pattern; at an input's hyperplane it passes,
    or moves on along it where both sides push it there. A unit that no input activates stays where it lost the last one; one that
    rests against its pull shrinks through w_k = 0 and goes on the other way; led back, it vanishes and keeps its last one.

    The limits hold for a scale → 0 at which all units turn before one fits, and for δ_k > 0: a_k keeps its sign, and w_k may pass 0.

    Args:
        w0: weights at t = 0, (…, h, d); w_kᵀx_i = 0 counts as inactive.
        x, y: data, (n, d) and (n,).
        sign: sgn a_k, 1 or −1, (…, h).
        slope: γ ≤ 1.

    Raises:
        ParameterError: a row of `w0` is 0, a sign is neither, shapes do not fit, γ > 1, or something is not finite.

    >>> early_directions([[1.0, 0.5], [-1.0, -2.0]], [[0.0, 1.0], [3.0, 4.0]], [0.0, 1.0]).round(3).tolist()
    [[0.6, 0.8], [-0.447, -0.894]]
    """
    w, sign = finite("w0", w0, "h d"), finite("sign", sign)
    if not np.isin(sign, (-1, 1)).all():
        raise ParameterError(f"`sign` must be 1 or −1, got {sign[~np.isin(sign, (-1, 1))].flat[0]:g}")
    x = _inputs(w, x)
    normals, above, below = planes_of(x, _slope(slope))
    above, below = (_targets(x, y) @ each for each in (above, below))
    units = (w / _lengths("w0", w)[..., None]).reshape(-1, w.shape[-1])
    signs = np.broadcast_to(sign, w.shape[:-1]).reshape(-1)
    found = [ascend(unit, normals, each * above, each * below) for unit, each in zip(units, signs, strict=True)]
    return np.reshape(found, w.shape)
