"""The statistics against hand-computed examples, SciPy, and the coverage they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from richlearn.bench.statistics import Estimate, can_decide, geometric_mean, holm, median, share_reached, sign_flip_test


def test_geometric_mean_by_hand():
    found = geometric_mean([1.0, 10.0, 100.0])
    half = 4.302652729911275 * math.log(10) / math.sqrt(3)
    assert found.value == pytest.approx(10.0)
    assert found.low == pytest.approx(10 * math.exp(-half))
    assert found.high == pytest.approx(10 * math.exp(half))


def test_geometric_mean_interval_is_scipys():
    values = np.random.default_rng(0).lognormal(size=10)
    found = geometric_mean(values)
    interval = stats.ttest_1samp(np.log(values), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))


def test_geometric_mean_of_equal_values_has_no_width():
    found = geometric_mean([0.5] * 4)
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_geometric_mean_of_one_value_has_no_interval():
    found = geometric_mean([0.3])
    assert found.value == 0.3
    assert math.isnan(found.low)
    assert math.isnan(found.level)


def test_geometric_mean_with_a_zero_is_zero():
    found = geometric_mean([0.0, 1.0])
    assert (found.value, found.low) == (0.0, 0.0)
    assert math.isnan(found.high)


@pytest.mark.parametrize("values", [[1.0, -1.0], [1.0, math.inf]])
def test_geometric_mean_refuses(values):
    with pytest.raises(ValueError, match="finite values that are not negative"):
        geometric_mean(values)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [[1.0]]])
def test_a_sample_is_one_number_a_seed(values):
    with pytest.raises(ValueError, match="one number a seed"):
        median(values)


def test_an_estimate_checks_itself():
    with pytest.raises(ValueError, match="an interval holds its value"):
        Estimate(1.0, 2.0, 3.0, 0.95)


@pytest.mark.parametrize(
    ("n", "k", "level"), [(2, 1, 0.5), (5, 1, 0.9375), (6, 1, 0.96875), (9, 2, 0.9609375), (10, 2, 0.978515625), (16, 4, 0.978729248046875)]
)
def test_median_interval_has_the_tabulated_order_statistics(n, k, level):
    found = median(np.arange(1.0, n + 1))
    assert (found.low, found.high) == (k, n + 1 - k)
    assert found.level == pytest.approx(level)
    assert found.value == np.median(np.arange(1.0, n + 1))


def test_median_interval_is_scipys_quantile_test():
    values = np.random.default_rng(1).normal(size=12)
    found = median(values)
    interval = stats.quantile_test(values, q=0.0, p=0.5).confidence_interval(0.95)
    assert (found.low, found.high) == (interval.low, interval.high)


def test_median_under_censoring():
    assert median([4.0, 1.0, math.inf, 2.0, 3.0]).high == math.inf
    assert median([1.0, math.inf, math.inf]).value == math.inf
    assert median([1.0, 2.0, math.inf, math.inf]).value == math.inf
    assert median([math.inf] * 4).low == math.inf


def test_median_of_one_value_has_no_interval():
    assert math.isnan(median([3.0]).low)


def test_share_reached_under_censoring():
    assert share_reached([10.0, 30.0, math.inf, 50.0]) == 0.75


def test_sign_flip_by_hand():
    assert sign_flip_test([1.0, 2.0, 3.0]) == 2 / 8
    # |±1 ±1 −1| ≥ 1 always: every sign vector ties or exceeds.
    assert sign_flip_test([1.0, 1.0, -1.0]) == 1.0
    # 16 sign vectors of (3, 2, 2, −1), |Σ| ≥ 6: ±(3,2,2,·) with either sign of the last.
    assert sign_flip_test([3.0, 2.0, 2.0, -1.0]) == 4 / 16


def test_sign_flip_of_no_difference_is_one():
    assert sign_flip_test([0.0] * 5) == 1.0


def test_sign_flip_counts_ties_that_rounding_hides():
    # 0.1 + 0.2 − 0.3 is not 0 in floating point; every flip that ties must count.
    exact = sign_flip_test([1.0, 2.0, -3.0, 6.0])
    assert sign_flip_test([0.1, 0.2, -0.3, 0.6]) == exact


@pytest.mark.parametrize("seed", range(5))
def test_sign_flip_is_scipys_permutation_test(seed):
    differences = np.random.default_rng(seed).normal(0.4, 1.0, size=3 + 2 * seed)
    reference = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert sign_flip_test(differences) == pytest.approx(reference.pvalue)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_sign_flip_is_symmetric_and_scale_free(integers):
    p = sign_flip_test(np.array(integers, dtype=float))
    assert 2 / 2 ** len(integers) <= p <= 1
    assert sign_flip_test(-0.1 * np.array(integers)) == p


def test_sign_flip_refuses_what_it_cannot_enumerate():
    with pytest.raises(ValueError, match="at most 24 finite differences; got 25"):
        sign_flip_test(np.ones(25))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_holm_counts_comparisons_not_made():
    found = holm([math.nan, 0.01, 0.02])
    assert found[1:] == pytest.approx([0.03, 0.04])
    assert math.isnan(found[0])


def test_seeds_that_can_decide():
    assert can_decide(10, 16)
    assert can_decide(10, 25)
    assert not can_decide(10, 26)
    assert not can_decide(5, 1)
    assert can_decide(6, 1)


@pytest.mark.slow
def test_coverage_of_the_t_interval():
    values = np.random.default_rng(0).lognormal(1.0, 0.7, size=(4000, 5))
    found = [geometric_mean(row) for row in values]
    covered = np.mean([estimate.low <= math.e <= estimate.high for estimate in found])
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
def test_coverage_of_the_median_interval_under_censoring(n):
    times = np.random.default_rng(n).exponential(size=(4000, n))
    times[times > 1.0] = np.inf  # 37% are censored; the true median is ln 2
    found = [median(row) for row in times]
    covered = np.mean([estimate.low <= math.log(2) <= estimate.high for estimate in found])
    assert covered == pytest.approx(found[0].level, abs=0.015)


@pytest.mark.slow
def test_size_of_the_sign_flip_test():
    differences = np.random.default_rng(3).normal(size=(4000, 8))
    p = np.array([sign_flip_test(row) for row in differences])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.015)
