"""Weights of linear networks whose conserved matrices are multiples of I, by construction."""

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, not_negative, number, positive, whole
from richlearn.theory._constrained import positive_root


def per_layer(rates: ArrayLike | None, layers: int) -> np.ndarray:
    """`rates` as one positive number a layer, (layers,); 1 if absent."""
    found = np.ones(layers) if rates is None else positive("rates", rates)
    if found.shape != (layers,):
        raise ParameterError(f"`rates` must be {layers} numbers, one a layer, got shape {found.shape}")
    return found


def _orthogonal(size: int, generator: np.random.Generator, first: np.ndarray | None = None) -> np.ndarray:
    """A uniformly random orthogonal matrix, (size, size), or one whose first columns are `first`."""
    kept = np.empty((size, 0)) if first is None else first
    q, r = np.linalg.qr(np.hstack([kept, generator.standard_normal((size, size - kept.shape[1]))]))
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


def _offsets(depth: int, epsilon: ArrayLike) -> np.ndarray:
    """Of each layer, Σ_{k ≥ l} ε_k: how much larger W_lW_lᵀ/η_l is than the last layer's; 0 for the last."""
    given = finite("epsilon", epsilon)
    if given.shape not in ((), (depth,)):
        raise ParameterError(f"`epsilon` must be a number, or {depth} of them, one a hidden layer, got shape {given.shape}")
    each = given if given.shape else np.r_[np.zeros(depth - 1), given]
    return np.r_[np.cumsum(each[::-1])[::-1], 0.0]


def _spectra(values: np.ndarray, covered: int, offsets: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Singular values of every layer, (D, d): Π_l s_l = `values`, s_l²/η_l = u + offset_l, with u = 0 beyond the `covered` first."""
    lowest = float(offsets.min())
    if covered < len(values) and lowest < 0:
        raise ParameterError(
            f"`epsilon` must sum to at least 0 from every hidden layer to the last where outputs c < dimension, as W_lW_lᵀ/η_l has "
            f"that sum as an eigenvalue; got {lowest:g} with c = {covered} < {len(values)}"
        )
    above = offsets - lowest
    with np.errstate(divide="ignore"):
        logarithms = 2 * np.log(values[:covered]) - np.log(rates).sum()
    root = positive_root(np.delete(above, above.argmin()), logarithms)
    squares = np.hstack([above[:, None] + root, np.broadcast_to(offsets[:, None], (len(offsets), len(values) - covered))])
    return np.sqrt(rates[:, None] * squares)


@array_function
def isotropic_layers(
    depth: int,
    dimension: int,
    beta_norm: ArrayLike,
    epsilon: ArrayLike = 0.0,
    *,
    outputs: int | None = None,
    rates: ArrayLike | None = None,
    seed: int = 0,
) -> list:
    """Weights W_1 … W_L, A of square layers with given ‖β‖ and Δ_L = AᵀA/η_A − W_LW_Lᵀ/η_L = −εI, every other Δ_l = 0 (or −ε_l I).

    All layers share singular vectors: s_l²/η_l = u + Σ_{k ≥ l} ε_k, with u = s_A²/η_A the root of Π_l s_l² = σ² for each singular value σ
    of β, and u = 0 beyond the outputs. Bases, and so the direction of β, are uniformly random. Kunin et al. 2024, section 4.

    Args:
        depth: L ≥ 1 hidden layers.
        dimension: d of the inputs and of every hidden layer.
        beta_norm: ‖β‖, or for several outputs the largest singular values of β; the others are 0.
        epsilon: ε, or ε_1 … ε_L.
        outputs: c; as many as `beta_norm` has values if absent.
        rates: η_1 … η_L, η_A; 1 if absent.
        seed: of the bases.

    Returns:
        L arrays (d, d) and one (c, d).

    Raises:
        ParameterError: a value is out of range, more singular values than min(c, d), or some Σ_{k ≥ l} ε_k < 0 while c < d:
            W_lW_lᵀ would have it as an eigenvalue; AᵀA − W_LW_Lᵀ = −εI with ε < 0 needs d ≤ c.

    >>> w, a = isotropic_layers(1, 3, 2.0, epsilon=1.0)
    >>> (a.T @ a - w @ w.T).round(9).diagonal().tolist(), float(np.linalg.norm(a @ w).round(9))
    ([-1.0, -1.0, -1.0], 2.0)
    """
    depth, dimension = whole("depth", depth, 1), whole("dimension", dimension, 1)
    given = np.atleast_1d(not_negative("beta_norm", beta_norm))
    outputs = whole("outputs", len(given) if outputs is None else outputs, 1)
    covered = min(outputs, dimension)
    if given.ndim > 1 or len(given) > covered:
        raise ParameterError(f"`beta_norm` must be at most min(outputs, dimension) = {covered} singular values, got shape {given.shape}")
    values = np.r_[given, np.zeros(dimension - len(given))]
    spectra = _spectra(values, covered, _offsets(depth, epsilon), per_layer(rates, depth + 1))
    generator = np.random.default_rng(whole("seed", seed, 0))
    bases = [_orthogonal(dimension, generator) for _ in range(depth + 1)]
    hidden = [(bases[l + 1] * spectra[l]) @ bases[l].T for l in range(depth)]
    last = _orthogonal(outputs, generator)[:, :covered] * spectra[-1, :covered]
    return [*hidden, last @ bases[-1][:, :covered].T]


def _shaped(beta: ArrayLike | None, dimension: int, outputs: int, width: int, generator: np.random.Generator) -> np.ndarray:
    if beta is None:
        scale = 1 / np.sqrt(dimension * width)
        return generator.standard_normal((dimension, width)) @ generator.standard_normal((width, outputs)) * scale
    found = finite("beta", beta)
    if found.shape != (dimension, outputs):
        raise ParameterError(f"`beta` must have shape (dimension, outputs) = ({dimension}, {outputs}), got {found.shape}")
    return found


def _fits(width: int, dimension: int, outputs: int, level: float) -> None:
    name, bound = ("outputs c", outputs) if level > 0 else ("dimension d", dimension)
    if level and width > bound:
        sign = ">" if level > 0 else "<"
        raise ParameterError(f"`width` h must be at most the {name} where `delta` {sign} 0, since Δ = δI has rank h; got {width} > {bound}")


def _factors(target: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The singular vectors and values of `target`, as many as its rank."""
    left, values, right = np.linalg.svd(target, full_matrices=False)
    rank = int((values > max(target.shape) * np.finfo(np.float64).eps * values[0]).sum())
    if rank > width:
        raise ParameterError(f"`beta` must have at most rank `width` = {width}, since β = WᵀA; got rank {rank}")
    return left[:, :rank], values[:rank], right[:rank]


def _assembled(units: np.ndarray, values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Σ_i values_i units_i basis_iᵀ, over as many i as both have."""
    shared = min(len(units), len(basis))
    return (units[:, :shared] * values[:shared]) @ basis[:, :shared].T


@array_function
def isotropic_pair(
    width: int,
    dimension: int,
    outputs: int,
    delta: ArrayLike,
    beta: ArrayLike | None = None,
    *,
    lr_a: ArrayLike = 1.0,
    lr_w: ArrayLike = 1.0,
    seed: int = 0,
) -> tuple[Array, Array]:
    """W and A of f = AᵀWx with Δ = η_w AAᵀ − η_a WWᵀ = δI_h and WᵀA = β.

    With β = Σσ_i u_iv_iᵀ and random orthonormal r_i: A = Σt_i r_iv_iᵀ, W = Σs_i r_iu_iᵀ, t_is_i = σ_i, η_w t_i² − η_a s_i² = δ; the larger
    of η_w t_i², η_a s_i² is |δ|/2 + √(δ²/4 + η_aη_wσ_i²). Δ = δI takes h dimensions of A if δ > 0, of W if δ < 0.
    Kunin et al. 2024, section 4.

    Args:
        width, dimension, outputs: h, d, c; h ≤ c if δ > 0, h ≤ d if δ < 0.
        delta: δ.
        beta: (d, c), of rank at most h; if absent, a product of Gaussian matrices with entries of variance 1/d and 1/h.
        lr_a, lr_w: η_a, η_w > 0.
        seed: of the random directions.

    Returns:
        W (h, d) and A (h, c).

    Raises:
        ParameterError: a value is out of range, or one of the bounds is broken.
    """
    width, dimension, outputs = whole("width", width, 1), whole("dimension", dimension, 1), whole("outputs", outputs, 1)
    level, rate_a, rate_w = number("delta", delta), number("lr_a", positive("lr_a", lr_a)), number("lr_w", positive("lr_w", lr_w))
    _fits(width, dimension, outputs, level)
    generator = np.random.default_rng(whole("seed", seed, 0))
    left, values, right = _factors(_shaped(beta, dimension, outputs, width, generator), width)
    sigma = np.r_[values, np.zeros(width - len(values))]
    larger = np.abs(level) / 2 + np.hypot(level / 2, np.sqrt(rate_a * rate_w) * sigma)
    first = np.sqrt(larger / (rate_w if level >= 0 else rate_a))
    second = sigma / np.where(first > 0, first, 1.0)
    t, s = (first, second) if level >= 0 else (second, first)
    units = _orthogonal(width, generator)
    return _assembled(units, s, _orthogonal(dimension, generator, left)), _assembled(units, t, _orthogonal(outputs, generator, right.T))
