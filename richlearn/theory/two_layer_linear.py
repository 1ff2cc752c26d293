"""Two-layer linear networks, f(x) = AᵀWx: conserved matrix, tangent matrix, and the regime that the shape implies."""

from typing import Literal

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, positive
from richlearn.theory._linear import branches, rates, ratio, sizes, square, tangent, transposed, weights

Shape = Literal["funnel", "inverted_funnel", "wide", "bottleneck"]
Regime = Literal["lazy", "rich", "delayed_rich"]


@array_function
def conserved_matrix(w: ArrayLike, a: ArrayLike, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0) -> Array:
    """Δ = η_w AAᵀ − η_a WWᵀ, shape (…, h, h), constant under gradient flow of f = AᵀWx for any loss.

    Kunin et al. 2024, section 4; its diagonal holds the δ_k of the hidden units.

    Args:
        w: W, (…, h, d).
        a: A, (…, h, c).
        lr_w, lr_a: η_w, η_a > 0, numbers or (…).

    Raises:
        ParameterError: an argument is not finite, a rate is not positive, or W and A differ in h.

    >>> conserved_matrix([[1.0, 0.0], [0.0, 1.0]], [[2.0], [0.0]]).tolist()
    [[3.0, 0.0], [0.0, -1.0]]
    """
    w, a = weights(w, a)
    rate_w, rate_a = rates(lr_w, lr_a)
    return rate_w * (a @ transposed(a)) - rate_a * (w @ transposed(w))


@array_function
def tangent_matrix(w: ArrayLike, a: ArrayLike, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0) -> Array:
    """M = (η_w AᵀA) ⊗ I_d + I_c ⊗ (η_a WᵀW), shape (…, cd, cd): vec(β̇) = −M vec(XᵀP), β = WᵀA, P = Xβ − Y.

    vec stacks columns: entry j·d + i is that of output j, input i. The tangent kernel is K = (I_c ⊗ X) M (I_c ⊗ X)ᵀ, its rows
    output·n + sample; those of `richlearn.kernels.empirical_ntk` are sample·c + output. Kunin et al. 2024, section 4.

    Args and Raises: as in `conserved_matrix`.

    >>> tangent_matrix([[1.0, 0.0]], [[2.0]]).tolist()
    [[5.0, 0.0], [0.0, 4.0]]
    """
    w, a = weights(w, a)
    rate_w, rate_a = rates(lr_w, lr_a)
    return tangent(rate_w * square(a), rate_a * square(w))


@array_function
def tangent_matrix_of_units(beta_k: ArrayLike, delta_k: ArrayLike, lr_w: ArrayLike = 1.0, lr_a: ArrayLike = 1.0) -> Array:
    """The same M, shape (…, cd, cd), from what the units compute and conserve.

    M = Σ_k (κ_k + δ_k)/2·(β_kᵀβ_k/‖β_k‖² ⊗ I_d) + (κ_k − δ_k)/2·(I_c ⊗ β_kβ_kᵀ/‖β_k‖²), κ_k = √(δ_k² + 4η_aη_w‖β_k‖²).
    Kunin et al. 2024, section 4.

    Args:
        beta_k: β_k = w_k a_kᵀ, (…, h, d, c).
        delta_k: δ_k, (…, h).
        lr_w, lr_a: η_w, η_a > 0, numbers or (…).

    Raises:
        ParameterError: a β_k is no outer product of two vectors, or it is 0 and leaves a direction open that M needs (that of a_k
            if δ_k > 0 and c > 1, that of w_k if δ_k < 0 and d > 1); an argument not finite, a rate not positive.

    >>> tangent_matrix_of_units([[[2.0], [0.0]]], [3.0]).tolist()
    [[5.0, 0.0], [0.0, 4.0]]
    """
    beta, delta = finite("beta_k", beta_k, "h d c"), finite("delta_k", delta_k, "h")
    if beta.shape[-3] != delta.shape[-1]:
        raise ParameterError(f"`beta_k` (…, h, d, c) and `delta_k` (…, h) must share h, got {beta.shape} and {delta.shape}")
    d, c = beta.shape[-2:]
    norm = np.linalg.norm(beta, axis=(-2, -1))
    unit = ratio(beta, norm[..., None, None])
    outer, inner = square(unit), square(transposed(unit))
    # ‖β̂ᵀβ̂‖ = 1 holds for one singular value only.
    if (np.abs(np.linalg.norm(outer, axis=(-2, -1)) - 1) > 1e-8)[norm > 0].any():
        raise ParameterError("`beta_k` must be w_k a_kᵀ, of rank 1, for every unit: got one of higher rank")
    if ((norm == 0) & (((delta > 0) & (c > 1)) | ((delta < 0) & (d > 1)))).any():
        raise ParameterError("`beta_k` must not be 0 where `delta_k` is not: the direction of the other weights is lost")
    # With one output or one input the direction is known at 0 too.
    outer, inner = (np.ones_like(outer) if c == 1 else outer), (np.ones_like(inner) if d == 1 else inner)
    rate_w, rate_a = rates(lr_w, lr_a, 1)
    on_outer, on_inner = branches(delta, np.sqrt(rate_w * rate_a) * norm)
    total = np.einsum("...k,...kij->...ij", on_outer, outer), np.einsum("...k,...kij->...ij", on_inner, inner)
    return tangent(*total)


def shape_of(dimension: int, width: int, outputs: int) -> Shape:
    """Which of the four shapes d → h → c has (Kunin et al. 2024, section 4).

    "wide": h ≥ max(d, c); "bottleneck": h < min(d, c); between these, "funnel": d > c, and "inverted_funnel": d < c.
    With d = c there are the first two only.

    Raises:
        ParameterError: a size is below 1.

    >>> shape_of(10, 5, 2), shape_of(2, 5, 10), shape_of(3, 5, 5), shape_of(4, 3, 4)
    ('funnel', 'inverted_funnel', 'wide', 'bottleneck')
    """
    sizes(dimension=dimension, width=width, outputs=outputs)
    if width >= max(dimension, outputs):
        return "wide"
    if width < min(dimension, outputs):
        return "bottleneck"
    return "funnel" if dimension > outputs else "inverted_funnel"


def _spectrum(delta: ArrayLike, width: int) -> np.ndarray:
    """The eigenvalues of Δ: as given, or of the matrix."""
    found = finite("delta", delta)
    if found.shape not in ((), (width,), (width, width)):
        raise ParameterError(f"`delta` must be a number, ({width},) or ({width}, {width}), got shape {found.shape}")
    if found.ndim < 2:
        return np.broadcast_to(found, (width,))
    if not np.allclose(found, found.T, rtol=0, atol=1e-8 * np.abs(found).max()):
        raise ParameterError("`delta` as a matrix must be symmetric")
    return np.linalg.eigvalsh(found)


def regime_by_shape(
    dimension: int,
    width: int,
    outputs: int,
    delta: ArrayLike,
    beta_norm: float = 1.0,
    lr_w: float = 1.0,
    lr_a: float = 1.0,
    *,
    threshold: float = 2.0,
) -> Regime:
    """The regime of a two-layer linear network of shape d → h → c (Kunin et al. 2024, section 4).

    With n₊ and n₋ the numbers of δ's above and below ± `threshold`·√(η_aη_w)·‖β‖:

        "rich"          n₊ = n₋ = 0
        "lazy"          n₊ ≥ c or n₋ ≥ d: these units alone make M regular, and they hardly move
        "delayed_rich"  otherwise: a fast lazy fit within the range of the large part of M, then slow alignment for the rest.

    The paper's cases follow, where all δ have one sign: a funnel is lazy for δ ≫ 0, delayed rich for δ ≪ 0; an inverted funnel the
    other way round; wide networks are lazy, bottlenecks delayed rich, for both. Mixed signs and small δ beside large ones are
    this library's extension: small units that learn the rest beside large ones hardly show in the kernel distance. The borders are
    gradual: the answer says which limit is nearer. "delayed_rich" supposes a target outside the range that is fitted first.

    Args:
        dimension, width, outputs: d, h, c.
        delta: one δ for all units, δ_k by unit (h,), or the matrix Δ (h, h), whose eigenvalues then count: all of Δ matters, and
            large symmetrised units with all δ_k = 0 are lazy. The first two suppose a Δ without large entries off the diagonal.
        beta_norm: ‖β‖ that is to be learned, or that of β₀ where larger.
        lr_w, lr_a: η_w, η_a > 0.
        threshold: at 2 both terms of κ = √(δ² + 4η_aη_w‖β‖²) are equal.

    Raises:
        ParameterError: a size below 1, a number not positive, `delta` of another shape or a matrix that is not symmetric.

    >>> [regime_by_shape(10, 5, 2, delta) for delta in (9.0, 0.0, -9.0)]
    ['lazy', 'rich', 'delayed_rich']
    """
    sizes(dimension=dimension, width=width, outputs=outputs)
    border = positive("threshold", threshold) * positive("beta_norm", beta_norm)
    border = border * np.sqrt(positive("lr_w", lr_w) * positive("lr_a", lr_a))
    spectrum = _spectrum(delta, width)
    above, below = int((spectrum > border).sum()), int((spectrum < -border).sum())
    if not above + below:
        return "rich"
    return "lazy" if above >= outputs or below >= dimension else "delayed_rich"
