"""The matrix Riccati flow behind two-layer linear networks, at any time, without overflow or loss of slow modes."""

from collections.abc import Callable

import numpy as np
from scipy.special import exprel

_NOISE = 1e-14  # parts of the start below this share of its size are zero
_CHUNK = 2**22  # numbers in one array at once


def _modes(coupling: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of F = [[−δ/2, C], [Cᵀ, δ/2]]: its eigenvectors (columns), eigenvalues λ, and max(λ, 0) − |δ|/2.

    Each singular triple (v, s, u) of C gives ±√(δ²/4 + s²), a singular vector without partner −δ/2 or δ/2.
    """
    (d, c), half = coupling.shape, abs(delta) / 2
    left, strength, right = np.linalg.svd(coupling)
    pairs = len(strength)
    value = np.hypot(half, strength)
    excess = np.divide(strength**2, value + half, out=np.zeros(pairs), where=value > 0)
    steep = np.sqrt(np.divide(value + half, 2 * value, out=np.full(pairs, 0.5), where=value > 0))
    flat = np.sqrt(np.divide(excess, 2 * value, out=np.full(pairs, 0.5), where=value > 0))
    on_w, on_a = (flat, steep) if delta >= 0 else (steep, flat)
    vectors = np.zeros((d + c, d + c))
    vectors[:d, :pairs], vectors[d:, :pairs] = left[:, :pairs] * on_w, right[:pairs].T * on_a
    vectors[:d, pairs : 2 * pairs], vectors[d:, pairs : 2 * pairs] = left[:, :pairs] * on_a, -right[:pairs].T * on_w
    vectors[:d, 2 * pairs : pairs + d], vectors[d:, pairs + d :] = left[:, pairs:], right[pairs:].T
    rest = np.repeat([-delta / 2, delta / 2], [d - pairs, c - pairs])
    growth = np.concatenate([excess, np.full(pairs, -half), np.where(rest > 0, 0.0, -half)])
    return vectors, np.concatenate([value, -value, rest]), growth


def _unit_rows(columns: np.ndarray, log_weights: np.ndarray, noise: float) -> np.ndarray:
    """R of columns·diag(weights) = O·diag(r)·R, O orthogonal, the entries of R at most 1 and one of each row equal to 1, (T, h, m).

    The weights of the columns (h, m), given by their logarithms (T, m), may be far outside the range of floats: they decide the
    order of the pivots and the ratios within a row, nothing else. Residuals up to `noise` are zero.
    """
    (h, m), steps = columns.shape, np.arange(len(log_weights))
    left = np.broadcast_to(columns, (len(steps), h, m)).copy()
    basis, rows = np.zeros((len(steps), h, h)), np.zeros((len(steps), h, m))
    with np.errstate(divide="ignore"):
        for row in range(h):
            size = np.linalg.norm(left, axis=1)
            pivot = np.argmax(np.log(np.where(size > noise, size, 0.0)) + log_weights, axis=1)
            axis = left[steps, :, pivot] / size[steps, pivot, None]
            # A small residual is orthogonal to the earlier axes only after a second pass.
            axis = axis - np.einsum("trh,trg,tg->th", basis, basis, axis)
            basis[:, row] = axis / np.linalg.norm(axis, axis=1, keepdims=True)
            along = np.where(size > noise, np.einsum("th,thm->tm", basis[:, row], left), 0.0)
            left -= basis[:, row, :, None] * along[:, None]
            left[steps, :, pivot] = 0.0
            log_size = np.log(np.abs(along)) + log_weights
            rows[:, row] = np.sign(along) * np.exp(log_size - log_size[steps, pivot, None])
    return rows


def riccati_root(start: np.ndarray, coupling: np.ndarray, delta: float) -> Callable[[np.ndarray], np.ndarray]:
    """Q(t), up to an orthogonal factor from the left, of Q̇ = QF − ½QQᵀQ, F = [[−δ/2, C], [Cᵀ, δ/2]].

    QᵀQ = e^{Ft} Q₀ᵀ K⁻¹ Q₀ e^{Ft}, K = I + Q₀ B Q₀ᵀ, B = ∫₀ᵗ e^{2Fs} ds. In the eigenvectors of F, [Q₀√B, I] = O·diag(r)·R gives
    K = O diag(r) RRᵀ diag(r) Oᵀ and Q₀e^{Ft} = O diag(r) R e^{Ft}/√B: r, which over- and underflows, drops out; RRᵀ is well-conditioned.

    Args:
        start: Q₀, (h, d + c).
        coupling: C, (d, c).
        delta: δ.

    Returns:
        a function of times (T,), ≥ 0, to (T, h, d + c).
    """
    vectors, values, growth = _modes(coupling, delta)
    (h, n), noise = start.shape, _NOISE * float(np.linalg.norm(start))
    inside = start @ vectors
    inside[:, np.linalg.norm(inside, axis=0) <= noise] = 0.0
    columns = np.hstack([inside, np.eye(h)])

    def later(times: np.ndarray) -> np.ndarray:
        """The same at times > 0. Logarithms are of quantities over e^{|δ|t/2}."""
        elapsed = times[:, None] * exprel(-2 * np.abs(values) * times[:, None])
        one = np.broadcast_to(-abs(delta) / 2 * times[:, None], (len(times), h))
        rows = _unit_rows(columns, np.hstack([np.log(elapsed) / 2 + growth * times[:, None], one]), noise)
        grown = rows[..., :n] * (np.exp(np.minimum(values * times[:, None], 0.0)) / np.sqrt(elapsed))[:, None]
        triangle = np.linalg.qr(np.swapaxes(rows, 1, 2), mode="r")
        return np.linalg.solve(np.swapaxes(triangle, 1, 2), grown) @ vectors.T

    def root(times: np.ndarray) -> np.ndarray:
        found = np.broadcast_to(start, (len(times), h, n)).copy()
        moved = np.flatnonzero(times > 1e-300)  # earlier ones have too few digits
        for part in np.array_split(moved, 1 + len(moved) * h * (n + h) // _CHUNK) if len(moved) else []:
            found[part] = later(times[part])
        return found

    return root
