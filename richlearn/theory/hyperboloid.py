"""The surface of constant δ on which a linear neuron moves, and the flow on it."""

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, positive


def _number(name: str, value: ArrayLike) -> float:
    array = finite(name, value)
    if array.ndim:
        raise ParameterError(f"`{name}` must be one number, got shape {array.shape}")
    return float(array)


def _count(name: str, value: ArrayLike) -> int:
    count = _number(name, value)
    if count < 2 or count % 1:
        raise ParameterError(f"`{name}` must be a whole number ≥ 2, got {count:g}")
    return int(count)


@array_function
def hyperboloid(
    delta: ArrayLike, *, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0, extent: ArrayLike = 2.0, resolution: ArrayLike = 60
) -> tuple[tuple[Array, Array, Array], ...]:
    """Grids (w₁, w₂, a) for drawing the surface η_w a² − η_a(w₁² + w₂²) = δ of a neuron with two inputs.

    Two sheets (a > 0, then a < 0) for δ > 0, one for δ < 0, and the cone, as one sheet, for δ = 0. Rows have one height a, columns one
    angle of (w₁, w₂), both ends included. Kunin et al. 2024, section 3.

    Args:
        delta: δ, one number.
        lr_a, lr_w: η_a, η_w > 0, one number each.
        extent: the largest ‖w‖ for δ > 0; the largest |a| for δ ≤ 0.
        resolution: rows and columns of a grid.

    Returns:
        The sheets, each (w₁, w₂, a) of shapes (resolution, resolution).

    Raises:
        ParameterError: an argument is not one finite number, a rate or `extent` is not positive, `resolution` < 2.

    >>> [float(a.min()) for _, _, a in hyperboloid(4.0)]
    [2.0, -2.8284271247461903]
    """
    delta = _number("delta", delta)
    rate_a, rate_w, largest = (_number(name, positive(name, value)) for name, value in (("lr_a", lr_a), ("lr_w", lr_w), ("extent", extent)))
    count = _count("resolution", resolution)
    angle = np.linspace(0.0, 2 * np.pi, count)
    if delta > 0:
        radius = np.linspace(0.0, largest, count)[:, None]
        height = np.sqrt(delta / rate_w + rate_a / rate_w * radius**2)
        heights = height, -height
    else:
        height = np.linspace(-largest, largest, count)[:, None]
        radius, heights = np.sqrt(-delta / rate_a + rate_w / rate_a * height**2), (height,)
    w1, w2 = radius * np.cos(angle), radius * np.sin(angle)
    return tuple((w1.copy(), w2.copy(), np.broadcast_to(each, w1.shape).copy()) for each in heights)


@array_function
def flow_field(
    mu: ArrayLike, phi: ArrayLike, delta: ArrayLike, strength: ArrayLike = 1.0, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0
) -> tuple[Array, Array]:
    """μ̇ = κ(φs − μ), φ̇ = 2η_aη_w μs(1 − φ²)/(κ − δ), with κ = √(δ² + 4η_aη_w μ²): a neuron's flow for whitened inputs.

    For δ > 0, φ̇ is evaluated as the equal (κ + δ)/(2μ)·s(1 − φ²), which does not cancel. At μ = 0, where δ < 0, a = 0 and φ̇ = 0; where
    δ ≥ 0, w = 0 has no direction (φ̇ → ±∞ for δ > 0, and its sign changes with that of μ for δ = 0): an error.
    Kunin et al. 2024, section 3 and figure 3.

    Args:
        mu: μ = a‖w‖.
        phi: φ, the cosine of the angle between w and β*, in [−1, 1].
        delta: δ.
        strength: s = ‖β*‖ ≥ 0.
        lr_a, lr_w: η_a, η_w > 0. All six are broadcast against one another.

    Returns:
        μ̇ and φ̇, of the common shape.

    Raises:
        ParameterError: `phi` or `strength` out of range, `mu` = 0 where `delta` ≥ 0, or shapes that do not fit.

    >>> [float(each) for each in flow_field(0.5, 0.0, 0.0)]
    [-0.5, 1.0]
    """
    rates = positive("lr_a", lr_a), positive("lr_w", lr_w)
    given = finite("mu", mu), finite("phi", phi), finite("delta", delta), finite("strength", strength), *rates
    try:
        mu, phi, delta, strength, lr_a, lr_w = np.broadcast_arrays(*given)
    except ValueError as error:
        raise ParameterError(f"the arguments of `flow_field` must broadcast, got shapes {[each.shape for each in given]}") from error
    if (np.abs(phi) > 1).any():
        raise ParameterError(f"`phi` must lie in [-1, 1], got {phi[np.abs(phi) > 1].flat[0]:g}")
    if (strength < 0).any():
        raise ParameterError(f"`strength` must not be negative, got {strength.min():g}")
    if ((mu == 0) & (delta >= 0)).any():
        raise ParameterError("`mu` must not be 0 where `delta` ≥ 0 (w = 0 has no direction there), got 0")
    pull = 2 * np.sqrt(lr_a * lr_w) * mu
    kappa = np.hypot(delta, pull)
    slope = np.where(delta > 0, (kappa + delta) / np.where(mu == 0, 1.0, 2 * mu), 2 * lr_a * lr_w * mu / (kappa + np.abs(delta)))
    return np.asarray(kappa * (phi * strength - mu)), np.asarray(slope * strength * (1 - phi) * (1 + phi))
