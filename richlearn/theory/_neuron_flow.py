"""The gradient flow of f(x) = a·wᵀx in closed form, for flat batches of NumPy arrays; `single_neuron` is the public face."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from richlearn.theory._linear import ratio

_CANCELS = 1e-5  # u is evaluated in rationals where it is smaller than this part of what its rounding scales with
_STILL = 1e-24  # kernel distances up to here are rounding
_GRID = 1.05  # ratio of the times between which a first crossing is looked for


class Flow(NamedTuple):
    """The constants of a solution, shapes (n,), and (n, r) for the last three.

    With x = e^{−Rt}: a = (u + v·x)/D, w = (slope_u·u + slope_v·v·x)/D·direction + e^{−R₊t/2}/D·across.
    """

    delta: np.ndarray
    plus: np.ndarray  # R₊ = R + δ
    minus: np.ndarray  # R₋ = R − δ
    u: np.ndarray
    v: np.ndarray
    slope_u: np.ndarray
    slope_v: np.ndarray
    lr_a: np.ndarray
    lr_w: np.ndarray
    strength: np.ndarray
    a0: np.ndarray
    w0: np.ndarray
    direction: np.ndarray
    across: np.ndarray


def dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", x, y)


def norm(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=-1)


@functools.partial(np.vectorize, signature="(),(d),(d),(),()->(),(),(d)")
def _in_rationals(a0: float, w0: np.ndarray, beta: np.ndarray, lr_a: float, lr_w: float) -> tuple[float, float, np.ndarray]:
    """P₀ = w₀ᵀβ*, q = −uvR²/η_a and the part of w₀ across β*, without any rounding before the last step."""
    a, rate_a, rate_w = Fraction(a0), Fraction(lr_a), Fraction(lr_w)
    w, b = [Fraction(x) for x in w0.tolist()], [Fraction(x) for x in beta.tolist()]
    overlap, ww, ss = sum(x * y for x, y in zip(w, b, strict=True)), sum(x * x for x in w), sum(y * y for y in b)
    q = rate_a * overlap * (overlap - a * ww) + rate_w * a * a * (a * overlap - ss)
    return float(overlap), float(q), np.array([float(x - overlap * y / ss) for x, y in zip(w, b, strict=True)])


def solve(a0: np.ndarray, w0: np.ndarray, beta: np.ndarray, lr_a: np.ndarray, lr_w: np.ndarray) -> Flow:
    """The constants of the solution through a0, shape (n,), and w0, shape (n, r), at t = 0."""
    strength, delta = norm(beta), lr_w * a0**2 - lr_a * dot(w0, w0)
    direction = ratio(beta, strength[:, None])
    pull = 2 * np.sqrt(lr_a * lr_w) * strength
    root = np.hypot(delta, pull)
    larger = root + np.abs(delta)
    steep, flat = ratio(larger, pull), ratio(pull, larger)
    up, smaller = delta >= 0, pull * flat
    plus, minus = np.where(up, larger, smaller), np.where(up, smaller, larger)
    part_u, part_v, tilt = ratio(plus, 2 * root, 0.5), ratio(minus, 2 * root, 0.5), lr_a * ratio(strength, root)
    along = dot(w0, direction)
    across = w0 - along[:, None] * direction
    u = part_u * a0 + tilt * along
    # Near the separatrix all of u is what a difference leaves, and it alone decides where the flow goes and when.
    doubt = (part_u * np.abs(a0) + tilt * dot(np.abs(w0), np.abs(direction))) * (1 + ratio(lr_w * a0**2 + lr_a * dot(w0, w0), root))
    near = (np.abs(u) < _CANCELS * doubt) & (strength > 0)
    q = np.zeros_like(u)
    if near.any():
        overlap, q[near], across[near] = _in_rationals(a0[near], w0[near], beta[near], lr_a[near], lr_w[near])
        along[near] = overlap / strength[near]
    v = part_v * a0 - tilt * along
    u = np.where(near & (a0 * along < 0), -lr_a * ratio(q, root**2 * v), part_u * a0 + tilt * along)
    scale = np.sqrt(lr_w / lr_a)
    slope_u, slope_v = scale * np.where(up, flat, steep), -scale * np.where(up, steep, flat)
    across = across if w0.shape[1] > 1 else np.where(strength[:, None] == 0, w0, 0.0)
    return Flow(delta, plus, minus, u, v, slope_u, slope_v, lr_a, lr_w, strength, a0, w0, direction, across)


def evolve(flow: Flow, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a, shape (n, T), and w, shape (n, T, r), at `times`, shape (n, T) or (1, T)."""
    delta, plus, minus, u, v, slope_u, slope_v, _, lr_w = (each[:, None] for each in flow[:9])
    fast, slow = np.exp(-plus * times / 2), np.exp(-minus * times / 2)

    def elapsed(rate: np.ndarray) -> np.ndarray:
        safe = np.where(rate < 1e-300, 1.0, rate)
        return np.where(rate < 1e-300, times, -np.expm1(-safe * times) / safe)  # (1 − e^{−rate·t})/rate

    # Only ratios of u, v·x and e^{−R₊t/2} matter: divided by the largest, none of them is lost to underflow.
    largest = np.where(u == 0, 1.0, np.maximum(np.abs(u), fast))
    u, start = u / largest, np.where(u == 0, 1.0, fast / largest)
    both = u * elapsed(plus) + 2 * v * start * np.maximum(fast, slow) * elapsed(np.abs(delta))
    size = np.sqrt(start**2 * (1 + 2 * lr_w * v**2 * elapsed(minus)) + 2 * lr_w * u * both)
    v = v * start * slow
    parts = np.stack([(slope_u * u + slope_v * v) / size, start / size], -1)
    a, w = (u + v) / size, parts @ np.stack([flow.direction, flow.across], 1)
    at_start = times == 0  # exact there, so that a zero stays one
    if at_start.any():
        np.copyto(a, flow.a0[:, None], where=at_start)
        np.copyto(w, flow.w0[:, None], where=at_start[..., None])
    return a, w


def basin(flow: Flow) -> np.ndarray:
    """sgn a(∞), shape (n,)."""
    return np.sign(flow.u) * (flow.plus > 0)


def limit(flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """a, shape (n,), and w, shape (n, r), at t → ∞."""
    sign = basin(flow)
    left = np.sqrt(ratio(flow.minus, flow.minus + 2 * flow.lr_w * flow.v**2)) * (sign == 0)
    w = (sign * np.sqrt(flow.minus / (2 * flow.lr_a)))[:, None] * flow.direction + left[:, None] * flow.across
    return sign * np.sqrt(flow.plus / (2 * flow.lr_w)), w


def excess(flow: Flow, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """½‖β − β*‖², shape (n, T), of states (n, T), (n, T, r)."""
    gap = a[..., None] * w - (flow.strength[:, None] * flow.direction)[:, None]
    return dot(gap, gap) / 2


def _parts(flow: Flow, a: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The shares of η_w a² and η_a‖w‖² in κ, √κ, and the direction of w."""
    length = norm(w)
    of_a, of_w = np.sqrt(flow.lr_w)[:, None] * a, np.sqrt(flow.lr_a)[:, None] * length
    size = np.hypot(of_a, of_w)
    return ratio(of_a, size) ** 2, ratio(of_w, size) ** 2, size, ratio(w, length[..., None])


def kernel_distance(flow: Flow, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """S(0, t), shape (n, T), of states (n, T), (n, T, r): half the squared distance of the two normalised matrices M."""
    share0, other0, size0, unit0 = _parts(flow, *evolve(flow, np.zeros((1, 1))))
    share, other, size, unit = _parts(flow, a, w)
    rank = w.shape[-1]
    if rank == 1:
        return np.where(size0 == 0, np.nan, np.zeros_like(a))
    gap, cosine = unit - unit0, dot(unit0, unit)
    sine = norm(gap - dot(unit0, gap)[..., None] * unit0)
    inverse0, inverse = (1 / np.sqrt(1 + (rank - 1) * each**2) for each in (share0, share))
    moved = np.where(share > other, other - other0, share0 - share)  # equal: the smaller shares round less
    norms = -((inverse0 * inverse) ** 2) * (rank - 1) * (share0 + share) * moved / (inverse0 + inverse)
    scalar, weight = moved * inverse0 + share * norms, other * inverse
    # Entries of the difference in the basis of w₀ and of what w has across it; every other direction adds `scalar`.
    entries = norms + weight * sine**2, scalar - weight * sine**2, weight * cosine * sine
    found = ((rank - 2) * scalar**2 + entries[0] ** 2 + entries[1] ** 2 + 2 * entries[2] ** 2) / 2
    return np.where(size0 == 0, np.nan, np.where(size == 0, 0.0, found))


def final_kernel_distance(flow: Flow) -> np.ndarray:
    """The limit of S(0, t), shape (n,)."""
    return kernel_distance(flow, *(each[:, None] for each in limit(flow)))[:, 0]


def _first_time(reached: Callable[[np.ndarray], np.ndarray], early: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The first time, shape (n,), at which `reached`, a function of (n, T) times, holds, to a relative 1e-12; nan where not wanted.

    It does not hold at `early`. Excursions shorter than the ratio of the search grid go unseen.
    """
    low, ahead, block = early, wanted, _GRID ** np.arange(1, 17)
    while ahead.any():
        there = reached(low[:, None] * block)
        found = there.any(1)
        low = np.where(ahead, low * _GRID ** np.where(found, there.argmax(1), block.size), low)
        ahead = ahead & ~found & (low < 1e300)
    high = low * _GRID
    for _ in range(36):
        middle = (low + high) / 2
        there = reached(middle[:, None])[:, 0]
        low, high = np.where(there, low, middle), np.where(there, middle, high)
    return np.where(wanted, high, np.nan)


def stages(flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """The first times, shape (n,), at which the loss has made half of its decrease and S(0, t) half of its limit."""
    a, w = evolve(flow, np.zeros((1, 1)))
    first, last = excess(flow, a, w), excess(flow, *(each[:, None] for each in limit(flow)))
    moved = final_kernel_distance(flow)[:, None]
    # κ ≤ `rate` throughout, so the loss falls by at most e^{−2·rate·t} and K/‖K‖ moves by at most 4·rank^¼·rate·t.
    reach = np.abs(a[:, 0]) * norm(w[:, 0]) + 2 * flow.strength
    rate = np.hypot(flow.delta, 2 * np.sqrt(flow.lr_a * flow.lr_w) * reach)
    falls, turns = (first - last > 1e-12 * first)[:, 0], moved[:, 0] > _STILL
    early_fit = np.where(falls, ratio(1 - ratio(last, first)[:, 0], 4 * rate), 1.0)
    early_turn = np.where(turns, ratio(np.sqrt(moved[:, 0]), 4 * w.shape[-1] ** 0.25 * rate), 1.0)
    fit = _first_time(lambda times: excess(flow, *evolve(flow, times)) <= (first + last) / 2, early_fit, falls)
    return fit, _first_time(lambda times: kernel_distance(flow, *evolve(flow, times)) >= moved / 2, early_turn, turns)
