"""What the intervals and the test of a leaderboard promise, in simulations of P* and of censored times; small cases by hand."""

import math

import numpy as np
import pytest

from richlearn.bench.sample_complexity import sample_complexity
from richlearn.bench.statistics import geometric_mean, median, share_reached, sign_flip_test

DATASETS = 40_000
BUDGET = 10_000.0


def monte_carlo(level):
    """Three standard deviations of a share of `DATASETS` trials whose probability is `level`."""
    return 3 * math.sqrt(level * (1 - level) / DATASETS)


def share_covered(estimates, truth):
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]))


def censored(times):
    return np.where(times <= BUDGET, times, np.inf)


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 10])
def test_the_geometric_means_interval_covers_as_often_as_it_says(n):
    # Six and ten seeds whose P* differ by a factor of 1.6: the interval is exact for log-normal values.
    values = np.random.default_rng(n).lognormal(math.log(8000), math.log(1.6), size=(DATASETS, n))
    covered = share_covered([geometric_mean(row) for row in values], 8000)
    assert covered == pytest.approx(0.95, abs=monte_carlo(0.95))


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 10])
def test_the_geometric_means_interval_of_interpolated_sample_complexities(n):
    """P* as it is measured, errors at 20 sizes with noise, around that of the curve without noise."""
    rng, sizes, target = np.random.default_rng([n, 1]), 131_072 * np.geomspace(1e-3, 10**-0.1, 20), 0.0875
    curve = 0.875 / (1 + (sizes / (4000 * np.exp(0.4 * rng.normal(size=(4000, n, 1))))) ** 2)
    errors = np.clip(curve * np.exp(0.1 * rng.normal(size=curve.shape)), 0, 1)
    found = np.array([[sample_complexity(sizes, seed, target) for seed in dataset] for dataset in errors])
    centre = np.exp(np.log(found).mean())
    # 4,000 datasets; their own centre stands for the truth, which moves it by a hundredth of a standard deviation.
    assert share_covered([geometric_mean(row) for row in found], centre) == pytest.approx(0.95, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("true_median", [3000.0, 9000.0, 12_000.0])
def test_the_medians_interval_covers_as_often_as_it_says_under_censoring(n, true_median):
    # At 12,000 most runs are censored and the truth lies beyond the budget: the interval covers it if its upper end is open.
    times = censored(np.random.default_rng([n, int(true_median)]).lognormal(math.log(true_median), 0.8, size=(DATASETS, n)))
    found = [median(row) for row in times]
    covered = share_covered(found, true_median if true_median <= BUDGET else np.inf)
    assert covered >= found[0].level - monte_carlo(found[0].level)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
def test_the_medians_interval_is_not_wider_than_its_level(n):
    times = censored(np.random.default_rng(n).lognormal(math.log(6000), 0.8, size=(DATASETS, n)))
    found = [median(row) for row in times]
    assert share_covered(found, 6000) == pytest.approx(found[0].level, abs=monte_carlo(found[0].level))


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 10])
@pytest.mark.parametrize("true_median", [3000.0, 12_000.0])
def test_the_sign_flip_test_seldom_finds_what_is_not_there(n, true_median):
    """Both rows of a pair have one law and share a seed's difficulty; log min(T, budget) as the leaderboard compares it."""
    rng = np.random.default_rng([n, int(true_median)])
    shared = rng.normal(size=(DATASETS, n, 1))
    times = true_median * np.exp(0.5 * shared + 0.8 * rng.normal(size=(DATASETS, n, 2)))
    logs = np.log(np.minimum(times, BUDGET))
    p = np.array([sign_flip_test(row) for row in logs[..., 0] - logs[..., 1]])
    assert (p <= 0.05).mean() <= 0.05 + monte_carlo(0.05)


@pytest.mark.slow
def test_the_sign_flip_test_finds_a_threefold_time_under_censoring():
    rng = np.random.default_rng(7)
    logs = np.log(np.minimum(np.exp(0.5 * rng.normal(size=(1000, 10, 2))) * [2000.0, 6000.0], BUDGET))
    p = np.array([sign_flip_test(row) for row in logs[..., 0] - logs[..., 1]])
    assert (p <= 0.05).mean() > 0.9


def test_order_statistics_by_hand_without_censoring():
    # n = 6: [min, max] at 1 − 2/2⁶ = 0.96875; the median is the midpoint of 300 and 400.
    found = median([600.0, 100.0, 500.0, 300.0, 400.0, 200.0])
    assert (found.value, found.low, found.high, found.level) == (350.0, 100.0, 600.0, 0.96875)


def test_order_statistics_by_hand_of_ten_with_three_censored():
    # n = 10: the second and the ninth at 1 − 2(1 + 10)/2¹⁰; the ninth of seven known times is censored.
    found = median([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, math.inf, math.inf, math.inf])
    assert (found.value, found.low, found.high) == (55.0, 20.0, math.inf)
    assert found.level == 1 - 22 / 1024


def test_order_statistics_by_hand_of_all_censored():
    found = median([math.inf] * 5)
    assert (found.value, found.low, found.high, found.level) == (math.inf, math.inf, math.inf, 0.9375)


def test_one_censored_seed():
    found = median([math.inf])
    assert found.value == math.inf
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(("times", "share"), [([math.inf] * 3, 0.0), ([1.0, 2.0], 1.0), ([math.inf], 0.0)])
def test_the_share_that_reached_by_hand(times, share):
    assert share_reached(times) == share


def test_pairs_that_are_all_censored_do_not_differ():
    times = np.minimum(np.full((2, 6), np.inf), BUDGET)
    assert sign_flip_test(np.log(times[0]) - np.log(times[1])) == 1.0
