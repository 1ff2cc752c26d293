"""Where gradient flow of a single linear neuron ends: potentials that it minimises on the solutions of Xβ = y."""

import math

import numpy as np
from scipy.integrate import solve_ivp

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, number, positive, together
from richlearn.theory._constrained import Solutions, solutions, vector
from richlearn.theory._linear import Values, branches
from richlearn.theory.single_neuron import SingleNeuron

_EQUAL = 1e-10  # largest relative spread of the eigenvalues of xᵀx = λΠ
_DECIDED = 1e-3  # part of the loss of β = 0 that must be gone before the sign of a is read
_PATIENCE = 1e15  # longest integration, in units of the fastest time constant


def _sums(size: Values, delta: Values, eta: Values) -> tuple[Values, Values]:
    """κ + δ and κ − δ for ‖β‖ = `size`."""
    plus, minus = branches(delta, eta * size)
    return 2 * plus, 2 * minus


def _checked(beta: ArrayLike, delta: ArrayLike, lr_a: ArrayLike, lr_w: ArrayLike) -> tuple[np.ndarray, ...]:
    """β, (…, d), and ‖β‖, δ, η, broadcast to (…)."""
    point, of_unit = finite("beta", beta, "d"), finite("delta", delta)
    eta = np.sqrt(positive("lr_a", lr_a)) * np.sqrt(positive("lr_w", lr_w))
    return point, *together("`beta` less its last axis, `delta` and the rates", np.linalg.norm(point, axis=-1), of_unit, eta)


@array_function
def bias_potential(beta: ArrayLike, delta: ArrayLike, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0) -> Array:
    """Ψ_δ(β) = (κ − 2δ)√(κ + δ)/(3η), κ = √(δ² + 4η²‖β‖²), η² = η_aη_w: its gradient is √(κ − δ)·β/‖β‖.

    Strictly convex, with a cone at β = 0 where δ < 0. Gradient flow is its time-warped mirror flow. Kunin et al. 2024, section 3.

    Args:
        beta: β = a·w, (…, d).
        delta: δ = η_w a² − η_a‖w‖², (…).
        lr_a, lr_w: η_a, η_w > 0, (…).

    Returns:
        Ψ, (…).

    Raises:
        ParameterError: an argument is not finite, a rate is not positive, or shapes do not fit.

    >>> float(bias_potential([3.0, 4.0], 0.0).round(6))  # 2/3·√2·‖β‖^(3/2)
    10.540926
    """
    _, size, of_unit, eta = _checked(beta, delta, lr_a, lr_w)
    plus, minus = _sums(size, of_unit, eta)
    return np.asarray((minus - of_unit) * np.sqrt(plus) / (3 * eta))


@array_function
def bias_magnitude(beta: ArrayLike, delta: ArrayLike, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0) -> Array:
    """ψ_δ(β) = √(κ − δ), (…), the norm of ∇Ψ_δ, equal to √(2η_a)·‖w‖; arguments as in `bias_potential`. Kunin et al. 2024, section 3."""
    _, size, of_unit, eta = _checked(beta, delta, lr_a, lr_w)
    return np.asarray(np.sqrt(_sums(size, of_unit, eta)[1]))


@array_function
def bias_potential_gradient(beta: ArrayLike, delta: ArrayLike, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0) -> Array:
    """∇Ψ_δ(β) = √(κ − δ)·β/‖β‖, (…, d); arguments as in `bias_potential`.

    At β = 0 it is 0. For δ ≥ 0 that is the limit; for δ < 0 Ψ_δ has a cone there, whose subdifferential is the ball of radius √(2|δ|),
    and 0 is its centre. Kunin et al. 2024, section 3.
    """
    point, size, of_unit, eta = _checked(beta, delta, lr_a, lr_w)
    length = np.sqrt(_sums(size, of_unit, eta)[1]) / np.where(size > 0, size, 1.0)
    return length[..., None] * point


def _integrated_sign(found: Solutions, a0: float, seen: np.ndarray, lr_a: float, lr_w: float) -> float:
    """sgn a(∞) of the flow of a and `seen` (r,), what the inputs see of w; 0 if it stays at the saddle a = 0.

    The loss falls, and where a = 0 it is that of β = 0: once below, a keeps its sign.
    """
    target, strength = found.axes @ found.particular, (found.spread / found.spread.max()) ** 2
    at_zero = 0.5 * float(strength @ target**2)

    def excess(_: float, state: np.ndarray) -> float:
        return state[0] * float(strength @ (state[1:] * (0.5 * state[0] * state[1:] - target)))

    def flow(_: float, state: np.ndarray) -> np.ndarray:
        slope = strength * (state[0] * state[1:] - target)
        return -np.concatenate([[lr_a * float(state[1:] @ slope)], lr_w * state[0] * slope])

    def decided(time: float, state: np.ndarray) -> float:
        return excess(time, state) + _DECIDED * at_zero

    decided.terminal = True  # type: ignore[attr-defined]
    start = np.concatenate([[a0], seen])
    if excess(0.0, start) < 0:
        return math.copysign(1.0, a0)
    kappa = lr_w * a0**2 + lr_a * float(seen @ seen) + math.sqrt(lr_a * lr_w) * float(np.linalg.norm(target))
    scale = math.sqrt(kappa / max(lr_a, lr_w))
    run = solve_ivp(flow, (0.0, _PATIENCE / kappa), start, "Radau", events=decided, rtol=1e-10, atol=1e-13 * scale)
    return math.copysign(1.0, run.y[0, -1]) if run.status == 1 else 0.0


def _final_sign(found: Solutions, a0: float, w0: np.ndarray, lr_a: float, lr_w: float) -> float:
    """sgn a(∞); where a(∞) = 0, any."""
    seen = found.axes @ w0
    if not found.particular.any():
        return -1.0 if a0 < 0 else 1.0
    if lr_w * a0**2 > lr_a * float(seen @ seen):
        return math.copysign(1.0, a0)
    if np.ptp(found.spread) <= _EQUAL * found.spread.max():
        sign = float(SingleNeuron(a0, seen, found.axes @ found.particular, lr_a, lr_w).basin)
    else:
        sign = _integrated_sign(found, a0, seen, lr_a, lr_w)
    if sign == 0:
        raise ParameterError("`a0` and `w0` must not lead into the saddle a = 0, short of xβ = y; change them, or give `sign`")
    return sign


@array_function
def bias_minimiser(
    x: ArrayLike, y: ArrayLike, a0: ArrayLike, w0: ArrayLike, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0, *, sign: int | None = None
) -> Array:
    """The limit of gradient flow of f = a·wᵀx: argmin Ψ_δ(β) − g₀ᵀβ subject to xβ = y, with g₀ = sgn a(∞)·√(2η_a)·w₀.

    Kunin et al. 2024, section 3, with g₀ corrected where a changes its sign. In closed form: what the inputs do not see of w stays, so that
    β = x⁺y + a(∞)(I − Π)w₀, and 2η_w a(∞)² = δ' + √(δ'² + 4η²‖x⁺y‖²) with δ' = η_w a₀² − η_a‖Πw₀‖², Π the projector on the row space of x.

    Args:
        x: inputs, (n, d).
        y: targets, (n,), in the range of x.
        a0, w0: weights at t = 0, () and (d,).
        lr_a, lr_w: η_a, η_w > 0.
        sign: sgn a(∞) if known. Otherwise sgn a₀ where δ' > 0, which it is if δ > 0; the basin formula where xᵀx = λΠ; else found by
            integrating the flow, which cannot tell where the start is within 1e-8 or so of the border between the two signs.

    Returns:
        β(∞), (d,).

    Raises:
        ParameterError: shapes do not fit, a value is not finite, a rate is not positive, no β has xβ = y, or the flow ends in the saddle.

    >>> bias_minimiser([[0.5, 1.0]], [1.1], 1.0, [-1.0, 0.0]).round(4).tolist()
    [-0.5273, 1.3637]
    """
    found = solutions(x, y)
    w, a = vector("w0", w0, len(found.particular)), number("a0", a0)
    eta_a, eta_w = number("lr_a", positive("lr_a", lr_a)), number("lr_w", positive("lr_w", lr_w))
    if sign not in (None, -1, 1):
        raise ParameterError(f"`sign` must be −1, 1 or None, got {sign!r}")
    seen = found.axes @ w
    delta = np.asarray(eta_w * a**2 - eta_a * float(seen @ seen))
    plus, _ = _sums(np.asarray(np.linalg.norm(found.particular)), delta, np.asarray(math.sqrt(eta_a * eta_w)))
    final = math.sqrt(float(plus) / (2 * eta_w)) * (sign or _final_sign(found, a, w, eta_a, eta_w))
    return found.particular + final * found.unseen(w)


def _entropy_arguments(x: ArrayLike, delta: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2|x|, |δ| and asinh(2|x|/|δ|), which does not overflow."""
    twice, scale = 2 * np.abs(finite("x", x)), np.abs(finite("delta", delta))
    if (scale == 0).any():
        raise ParameterError("`delta` must not be 0: the entropy grows without bound as δ → 0, like ½|x|·ln(1/|δ|)")
    twice, scale = together("`x` and `delta`", twice, scale)
    with np.errstate(over="ignore", divide="ignore"):
        ratio = twice / scale
        large = np.log(twice + np.hypot(twice, scale)) - np.log(scale)
    return twice, scale, np.where(ratio > 1e8, large, np.arcsinh(np.minimum(ratio, 1e8)))


@array_function
def hyperbolic_entropy(x: ArrayLike, delta: ArrayLike) -> Array:
    """q_δ(x) = ¼(2x·asinh(2x/|δ|) − √(4x² + δ²) + |δ|), the potential of the singular values of a two-layer linear network with Δ = δI.

    With q(x) = q_δ(ηx)/η², η² = η_aη_w: d q'(σ_i)/dt = −u_iᵀ(XᵀP)v_i. About ½|x|·ln(1/|δ|) as δ → 0 and x²/(2|δ|) as |δ| → ∞.
    Kunin et al. 2024, section 4.

    Args:
        x: (…).
        delta: δ ≠ 0, (…).

    Returns:
        q, (…), without cancellation or overflow.

    Raises:
        ParameterError: δ is 0, a value is not finite, or shapes do not fit.

    >>> float(hyperbolic_entropy(1.0, 2.0).round(6))
    0.23358
    """
    twice, scale, inverse = _entropy_arguments(x, delta)
    return np.asarray(twice / 4 * (inverse - twice / (scale + np.hypot(twice, scale))))


@array_function
def hyperbolic_entropy_gradient(x: ArrayLike, delta: ArrayLike) -> Array:
    """q_δ'(x) = ½asinh(2x/|δ|), (…); arguments as in `hyperbolic_entropy`."""
    return np.asarray(np.copysign(_entropy_arguments(x, delta)[2] / 2, finite("x", x)))
