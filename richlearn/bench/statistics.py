"""The statistics of a leaderboard: pure functions of a row's values, one value a seed; ``inf`` stands for a censored time."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

LEVEL = 0.95
LARGEST_EXACT = 24  # 2²³ sums are 64 MB


@dataclass(frozen=True)
class Estimate:
    """A value and its interval: ``inf`` where it is censored, ``nan`` where it is not defined; `level` is the true one."""

    value: float
    low: float
    high: float
    level: float

    def __post_init__(self) -> None:
        if self.low > self.value or self.high < self.value:
            raise ValueError(f"an interval holds its value: low `{self.low}`, value `{self.value}`, high `{self.high}`")


def _sample(values: ArrayLike) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size or np.isnan(sample).any():
        raise ValueError(f"expected one number a seed, without nan; got `{values}`")
    return sample


def geometric_mean(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Geometric mean with Student's t interval on logarithms.

    With xᵢ = ln vᵢ, mean m and standard deviation s (n − 1): exp(m), exp(m ± t_{(1+level)/2, n−1} s/√n). One value has no
    interval (``nan``); a zero among the values makes the mean 0 and leaves the upper end undefined.

    Args:
        values: shape (n,), finite, not negative.
        level: of the interval.

    Raises:
        ValueError: a value is negative, infinite or ``nan``, or there is none.

    >>> round(geometric_mean([1.0, 100.0]).value, 6)
    10.0
    """
    sample = _sample(values)
    if (sample < 0).any() or np.isinf(sample).any():
        raise ValueError(f"a geometric mean needs finite values that are not negative; got `{values}`")
    if (sample == 0).any():
        return Estimate(0.0, 0.0, math.nan, level)
    logs = np.log(sample)
    mean = logs.mean()
    if sample.size == 1:
        return Estimate(float(sample[0]), math.nan, math.nan, math.nan)
    half = special.stdtrit(sample.size - 1, (1 + level) / 2) * logs.std(ddof=1) / math.sqrt(sample.size)
    return Estimate(float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half)), level)


def largest(values: ArrayLike) -> Estimate:
    """The largest value, without an interval: a bound that held for every seed.

    >>> largest([0.1, 0.3]).value
    0.3
    """
    return Estimate(float(_sample(values).max()), math.nan, math.nan, math.nan)


def median(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Median with its distribution-free order-statistics interval [v₍ₖ₎, v₍ₙ₊₁₋ₖ₎], valid under censoring.

    Its level is 1 − 2·P(B ≤ k − 1), B ~ Binomial(n, ½); k is the largest with a level of at least `level`, else 1: 5 values
    give [min, max] at 93.75%. Censored values are ``inf``; so is the median, or an end, that falls on one of them (of an even
    number the median is the midpoint of the middle two, ``inf`` if the upper one is).

    >>> median([3.0, 1.0, 2.0, 5.0, float("inf")])
    Estimate(value=3.0, low=1.0, high=inf, level=0.9375)
    """
    ordered = np.sort(_sample(values))
    n = ordered.size
    levels = 1 - 2 * special.bdtr(np.arange(n // 2), n, 0.5)
    if not levels.size:
        return Estimate(float(ordered[0]), math.nan, math.nan, math.nan)
    k = max(int((levels >= level).sum()), 1)
    # np.median would answer nan where both middle values are infinite.
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Estimate(float(middle), float(ordered[k - 1]), float(ordered[n - k]), float(levels[k - 1]))


def share_reached(times: ArrayLike) -> float:
    """Share of the runs that reached their goal: those whose time is finite."""
    return float(np.isfinite(_sample(times)).mean())


def sign_flip_test(differences: ArrayLike) -> float:
    """Exact paired sign-flip permutation test of the mean difference, two-sided.

    p = #{s ∈ {−1, 1}ⁿ : |Σ sᵢdᵢ| ≥ |Σ dᵢ|} / 2ⁿ: all sign vectors, those tied with the observed one included (to 1e-12 of
    Σ|dᵢ|, since equal sums differ in rounding). The least possible p is 2/2ⁿ (Fisher 1935, "The design of experiments", §21).

    Args:
        differences: shape (n,), n ≤ 24, one for each pair.

    Raises:
        ValueError: more than 24 pairs, none, or one that is not finite.

    >>> sign_flip_test([1.0, 2.0, 3.0])
    0.25
    """
    sample = _sample(differences)
    if sample.size > LARGEST_EXACT or np.isinf(sample).any():
        raise ValueError(f"expected at most {LARGEST_EXACT} finite differences; got {sample.size}: `{differences}`")
    # A sign vector and its negative tie: the first sign stays +, which halves the sums.
    sums = sample[:1]
    for difference in sample[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    tolerance = 1e-12 * np.abs(sample).sum()
    return float((np.abs(sums) >= abs(sums[0]) - tolerance).mean())


def can_decide(pairs: int, rows: int, level: float = 0.05) -> bool:
    """Whether `pairs` seeds can decide among `rows` comparisons: the least corrected p, rows·2/2^pairs, is at most `level`."""
    return rows * 2 / 2**pairs <= level


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction (1979): p̃₍ᵢ₎ = max_{j ≤ i} min(1, (k − j + 1)·p₍ⱼ₎) over all k entries.

    A ``nan`` is a comparison that is not made yet: it counts in k and stays ``nan``.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")  # nan last
    steps = np.minimum(1.0, p[order] * np.arange(p.size, 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(steps)
    return corrected
