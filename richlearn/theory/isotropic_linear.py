"""Two-layer linear networks whose conserved matrix is isotropic, Δ = δI: their gradient flow in closed form."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.special import exprel

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, has_tensor, positive, to_torch
from richlearn.theory._linear import branches, rates, ratio, sizes, square, tangent, transposed, weights
from richlearn.theory._linear import times as checked
from richlearn.theory._riccati import riccati_root
from richlearn.theory.two_layer_linear import conserved_matrix

_ISOTROPIC = 1e-8  # largest relative error of Δ = δI
_RANK = 1e-12  # singular values below this part of the largest are zero


def _check_closure(singular: np.ndarray, delta: np.ndarray, width: int, d: int, c: int) -> None:
    rank = (singular > _RANK * singular.max(-1, keepdims=True, initial=0.0)).sum(-1)
    if (rank > width).any():
        raise ParameterError(f"`beta` must have rank ≤ `width` = {width}, got rank {rank.max()}")
    open_up, open_down = (delta > 0) & (width != c) & (rank < width), (delta < 0) & (width != d) & (rank < width)
    for is_open, sign, name, size in ((open_up, ">", "c", c), (open_down, "<", "d", d)):
        if is_open.any():
            raise ParameterError(
                f"`delta` {sign} 0 closes in β only if `width` = {name} or rank β = `width`: "
                f"got width {width}, {name} = {size}, rank {int(np.broadcast_to(rank, is_open.shape)[is_open][0])}"
            )


class Blocks(NamedTuple):
    """The two parts of M = (η_w AᵀA) ⊗ I_d + I_c ⊗ (η_a WᵀW): `outer`, (…, c, c), and `inner`, (…, d, d)."""

    outer: Array
    inner: Array


@array_function
def isotropic_blocks(beta: ArrayLike, delta: ArrayLike, width: int, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0) -> Blocks:
    """η_w AᵀA and η_a WᵀW in terms of β = WᵀA alone, under Δ = δI_h.

    η_w AᵀA = δ/2 + √(δ²/4 + η_aη_w βᵀβ), for δ > 0 on the row space of A and 0 off it;
    η_a WᵀW = −δ/2 + √(δ²/4 + η_aη_w ββᵀ), for δ < 0 on the row space of W and 0 off it.
    β tells these spaces if δ = 0, if δ > 0 and h = c, if δ < 0 and h = d, or if rank β = h. Kunin et al. 2024, section 4.

    Args:
        beta: β, (…, d, c).
        delta: δ, a number or (…).
        width: h.
        lr_w, lr_a: η_w, η_a > 0, numbers or (…).

    Raises:
        ParameterError: none of the conditions holds, or rank β > h.

    >>> [block.tolist() for block in isotropic_blocks([[2.0], [0.0]], 3.0, 1)]
    [[[4.0]], [[1.0, 0.0], [0.0, 0.0]]]
    """
    beta, delta = finite("beta", beta, "d c"), finite("delta", delta)[..., None]
    (d, c), (rate_w, rate_a) = beta.shape[-2:], rates(lr_w, lr_a, 1)
    sizes(width=width)
    left, singular, right = np.linalg.svd(beta, full_matrices=False)
    _check_closure(singular, delta[..., 0], width, d, c)
    outer, inner = branches(delta, np.sqrt(rate_w * rate_a) * singular)
    known = np.arange(min(d, c)) < width
    off = np.where((delta > 0) & (width == c), delta, 0.0), np.where((delta < 0) & (width == d), -delta, 0.0)

    def block(vectors: np.ndarray, values: np.ndarray, off: np.ndarray) -> np.ndarray:
        return np.einsum("...ir,...r,...jr->...ij", vectors, values * known - off, vectors) + off[..., None] * np.eye(vectors.shape[-2])

    return Blocks(block(transposed(right), outer, off[0]), block(left, inner, off[1]))


@array_function
def isotropic_velocity(
    beta: ArrayLike, delta: ArrayLike, residual: ArrayLike, width: int, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0
) -> Array:
    """β̇ = −(XᵀP·η_w AᵀA + η_a WᵀW·XᵀP), shape (…, d, c), where Δ = δI_h closes it in β.

    Args:
        residual: XᵀP, (…, d, c), P = Xβ − Y.
        beta, delta, width, lr_w, lr_a: as in `isotropic_blocks`, with its errors.

    >>> isotropic_velocity([[2.0], [0.0]], 3.0, [[1.0], [1.0]], 1).tolist()
    [[-5.0], [-4.0]]
    """
    beta, residual = finite("beta", beta, "d c"), finite("residual", residual, "d c")
    if beta.shape[-2:] != residual.shape[-2:]:
        raise ParameterError(f"`residual` must have the shape (…, d, c) of `beta`, got {residual.shape} and {beta.shape}")
    outer, inner = isotropic_blocks(beta, delta, width, lr_w, lr_a)
    return -(residual @ outer + inner @ residual)


@array_function
def singular_values_at(
    sigma0: ArrayLike, strengths: ArrayLike, delta: ArrayLike, times: ArrayLike, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0
) -> Array:
    """σ(t) of σ̇ = √(δ² + 4η²σ²)(s − σ), η² = η_aη_w, shape (…, T).

    The singular values of β follow it if Δ = δI, XᵀX = I and β₀ shares its singular vectors with XᵀY = Σ s_i u_i v_iᵀ; those that
    start at 0 with δ ≠ 0 need the width to leave it (`isotropic_blocks` names when). Kunin et al. 2024, section 4; the solution
    is this library's own: with κ₀ = κ(σ₀), p₀² = (κ₀ − |δ|)/2, g₀² = (κ₀ + |δ|)/2, (p, g)ᵀ = exp(t·[[−|δ|/2, ηs], [ηs, |δ|/2]])(p₀, g₀)ᵀ,

        σ = (1/η)·p g / (1 + ∫₀ᵗ(p² + g²)),

    all of whose terms are positive: nothing cancels, at δ = 0 or at late times.

    Args:
        sigma0, strengths: σ₀ ≥ 0 and s ≥ 0, (…); at δ = 0 a σ₀ of 0 stays.
        delta: δ, (…); only |δ| matters.
        times: (T,), ≥ 0.
        lr_w, lr_a: η_w, η_a > 0, (…).

    Raises:
        ParameterError: a negative or non-finite argument, a rate that is not positive, or `times` without an axis.

    >>> singular_values_at(0.0, 1.0, 2.0, [0.0, 1.0, 1e6]).round(4).tolist()
    [0.0, 0.9066, 1.0]
    """
    start, strength = (finite(name, value)[..., None] for name, value in (("sigma0", sigma0), ("strengths", strengths)))
    for name, value in (("sigma0", start), ("strengths", strength)):
        if (value < 0).any():
            raise ParameterError(f"`{name}` must be ≥ 0, got {value.min():g}")
    delta, times = np.abs(finite("delta", delta))[..., None], finite("times", checked(times), "T")
    eta = np.sqrt(np.multiply(*rates(lr_w, lr_a, 1)))
    large, small = (np.sqrt(each) for each in branches(delta, eta * start))
    # Halves of R ± |δ| over R, R = √(δ² + 4η²s²): squared entries of the eigenvector that grows.
    root = np.hypot(delta, 2 * eta * strength)
    plus, minus = (ratio(each, root, 0.5) for each in branches(delta, eta * strength))
    decay, elapsed = np.exp(-root * times), times * exprel(-root * times)
    p = small * (minus + plus * decay) + eta * strength * large * elapsed
    g = large * (plus + minus * decay) + eta * strength * small * elapsed
    growing, falling = np.sqrt(minus) * small + np.sqrt(plus) * large, np.sqrt(plus) * small - np.sqrt(minus) * large
    return p * g / (eta * (decay + (growing**2 + falling**2 * decay) * elapsed))


@dataclass(frozen=True, eq=False)
class BalancedLinear:
    """The exact gradient flow of f(x) = AᵀWx on ½‖XWᵀA − Y‖² for whitened inputs, XᵀX = I, and Δ = δI_h.

    With Q = [√η_a W, √η_w A] (h, d + c), η = √(η_aη_w), β* = XᵀY and F = [[−δ/2, ηβ*], [ηβ*ᵀ, δ/2]] the flow is Q̇ = QF − ½QQᵀQ, and

        QᵀQ = e^{Ft} Q₀ᵀ (I + Q₀ B Q₀ᵀ)⁻¹ Q₀ e^{Ft},   B = ∫₀ᵗ e^{2Fs} ds.

    Its blocks are ηβ, η_a WᵀW and η_w AᵀA: all that is observable. Needed are Δ = δI_h and XᵀX = I alone: any shape, δ, rates, rank
    and alignment of the start with β*, any t ≥ 0. Braun et al. 2022, after Fukumizu 1998, treat δ = 0 and Dominé et al.
    2024 (arXiv:2409.14623) Δ = λI; the form here is this library's own.
    Parts of the start below 1e-14 of its size count as 0, so what starts on the way to a saddle ends there: for δ = 0 and
    h = d = c the sign of det β is conserved, and where it is not that of det β* the smallest singular value of β* is never learned.
    Methods take `times` of any shape (T,) and return tensors if they or the constructor were given any.

    Args:
        w0: W at t = 0, (h, d).
        a0: A at t = 0, (h, c).
        target: β* = XᵀY, (d, c).
        lr_w, lr_a: η_w, η_a > 0.

    Raises:
        ParameterError: Δ differs from δI_h by more than 1e-8 of its terms, shapes do not fit, an argument is not finite, or a rate
            is not positive.

    >>> flow = BalancedLinear([[0.0, 0.0]], [[2.0]], [[1.0], [0.0]])
    >>> flow.beta([0.0, 1.0, 1e6]).round(3).tolist()
    [[[0.0], [0.0]], [[0.987], [0.0]], [[1.0], [0.0]]]
    """

    w0: ArrayLike
    a0: ArrayLike
    target: ArrayLike
    lr_w: float = 1.0
    lr_a: float = 1.0
    delta: float = field(init=False)
    _target: np.ndarray = field(init=False, repr=False)
    _root: Callable[[np.ndarray], np.ndarray] = field(init=False, repr=False)
    _tensors: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        w, a = weights(self.w0, self.a0, ("w0", "a0"))
        target = finite("target", self.target).copy()
        (h, d), c = w.shape[-2:], a.shape[-1]
        if (w.shape, a.shape, target.shape) != ((h, d), (h, c), (d, c)) or 0 in (h, d, c):
            got = f"{w.shape}, {a.shape}, {target.shape}"
            raise ParameterError(f"`w0`, `a0`, `target` must have shapes (h, d), (h, c), (d, c), all ≥ 1, got {got}")
        rate_w, rate_a = float(positive("lr_w", self.lr_w)), float(positive("lr_a", self.lr_a))
        matrix = conserved_matrix(w, a, rate_w, rate_a)
        delta = float(np.trace(matrix)) / h
        off = np.linalg.norm(matrix - delta * np.eye(h))
        if off > _ISOTROPIC * (rate_w * np.linalg.norm(a @ a.T) + rate_a * np.linalg.norm(w @ w.T)):
            raise ParameterError(f"`w0` and `a0` must have Δ = η_w AAᵀ − η_a WWᵀ = δI_h, got ‖Δ − δI‖ = {off:.3g} at δ = {delta:.3g}")
        start = np.hstack([np.sqrt(rate_a) * w, np.sqrt(rate_w) * a])
        values = {"lr_w": rate_w, "lr_a": rate_a, "delta": delta, "_target": target}
        values["_root"] = riccati_root(start, np.sqrt(rate_w * rate_a) * target, delta)
        values["_tensors"] = has_tensor((self.w0, self.a0, self.target))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _parts(self, times: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """β, η_w AᵀA and η_a WᵀW at `times`."""
        found, d = checked(times), self._target.shape[0]
        root = self._root(found.reshape(-1))
        root = root.reshape(*found.shape, *root.shape[1:])
        w, a = root[..., :d], root[..., d:]
        return transposed(w) @ a / np.sqrt(self.lr_w * self.lr_a), square(a), square(w)

    def _given(self, value: Any, times: ArrayLike) -> Any:
        return to_torch(value) if self._tensors or has_tensor(times) else value

    def beta(self, times: ArrayLike) -> Array:
        """β(t) = WᵀA, shape (T, d, c)."""
        return self._given(self._parts(times)[0], times)

    def blocks(self, times: ArrayLike) -> Blocks:
        """η_w AᵀA, (T, c, c), and η_a WᵀW, (T, d, d)."""
        return self._given(Blocks(*self._parts(times)[1:]), times)

    def tangent_matrix(self, times: ArrayLike) -> Array:
        """M(t), shape (T, cd, cd), as `tangent_matrix`: the kernel is (I_c ⊗ X) M (I_c ⊗ X)ᵀ, also for inputs that were not trained on."""
        return self._given(tangent(*self._parts(times)[1:]), times)

    def loss(self, times: ArrayLike) -> Array:
        """½‖β(t) − β*‖², shape (T,): the training loss less its minimum."""
        gap = self._parts(times)[0] - self._target
        return self._given(np.asarray((gap**2).sum((-2, -1)) / 2), times)

    def kernel_distance(self, times: ArrayLike) -> Array:
        """S(0, t) = ½‖M₀/‖M₀‖ − M/‖M‖‖², shape (T,): that of the full kernels on the training inputs; nan where W₀ = A₀ = 0.

        Kunin et al. 2024, eq. 2.
        """
        (d, c), (outer, inner) = self._target.shape, self._parts(np.append(0.0, checked(times)))[1:]

        def squared(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
            traces = np.trace(outer, axis1=-2, axis2=-1) * np.trace(inner, axis1=-2, axis2=-1)
            return d * (outer**2).sum((-2, -1)) + 2 * traces + c * (inner**2).sum((-2, -1))

        norm = np.sqrt(squared(outer, inner))[:, None, None]
        outer, inner = ratio(outer, norm, np.nan), ratio(inner, norm, np.nan)
        found = np.maximum(squared(outer[1:] - outer[0], inner[1:] - inner[0]), 0.0) / 2
        return self._given(found.reshape(np.shape(checked(times))), times)
