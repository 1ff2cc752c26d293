"""Sample complexity P*: how much data a seed needs until its test error falls to a target."""

import math

import numpy as np
from numpy.typing import ArrayLike

_TIE = 1e-12  # the mean of equal errors may exceed them by rounding


def _measured(sizes: ArrayLike, errors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Sizes, rising, and their errors."""
    p, error = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if p.ndim != 1 or not p.size or p.shape != error.shape:
        raise ValueError(f"expected one error for each of at least one training size; got sizes `{sizes}` and errors `{errors}`")
    if not np.isfinite(p).all() or (p <= 0).any() or np.unique(p).size < p.size:
        raise ValueError(f"expected training sizes that are positive, finite and distinct; got `{sizes}`")
    if not np.isfinite(error).all():
        raise ValueError(f"expected finite errors; got `{errors}`")
    order = np.argsort(p)
    return p[order], error[order]


def sample_complexity(sizes: ArrayLike, errors: ArrayLike, target: float) -> float:
    """P* of one seed: the training size at which the test error falls to `target`.

    With sizes P₁ < … < Pₙ and ε̂ the errors made non-increasing in P (isotonic regression, equal weights), and i the first index
    with ε̂ᵢ ≤ target: P* = Pᵢ₋₁ (Pᵢ / Pᵢ₋₁)ᵗ, t = (ε̂ᵢ₋₁ − target) / (ε̂ᵢ₋₁ − ε̂ᵢ), linear in log P. It is ``inf`` where no size
    reaches the target (P* lies beyond the largest one), and P₁ where the smallest already does (P* lies at or below it).

    The protocol's target is a tenth of the chance error 1 − 1/n_c (Petrini, Cagnetta et al. 2023, "How deep neural networks learn
    compositional data"; there P* is the smallest size tried whose error is below it; the regression and interpolation are ours).

    Args:
        sizes: training sizes, shape (n,), positive and distinct, in any order.
        errors: their test errors, shape (n,), finite.
        target: error to reach.

    Raises:
        ValueError: there is no size, the shapes differ, or a size, an error or the target is not as said above.

    >>> round(sample_complexity([100, 10_000], [0.5, 0.1], target=0.3), 6)
    1000.0
    >>> sample_complexity([100, 10_000], [0.5, 0.4], target=0.3)
    inf
    """
    from sklearn.isotonic import isotonic_regression  # half a second, which no other score needs

    if not math.isfinite(target):
        raise ValueError(f"expected a finite target; got `{target}`")
    p, error = _measured(sizes, errors)
    fitted = np.asarray(isotonic_regression(error, increasing=False))
    reached = fitted <= target + _TIE * abs(target)
    if not reached.any():
        return math.inf
    i = int(reached.argmax())
    if i == 0 or fitted[i] >= target:
        return float(p[i])
    share = (fitted[i - 1] - target) / (fitted[i - 1] - fitted[i])
    return float(min(p[i - 1] * (p[i] / p[i - 1]) ** share, p[i]))
