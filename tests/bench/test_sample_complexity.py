"""P* against arithmetic by hand, SciPy's isotonic regression and what must not change it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from richlearn.bench.sample_complexity import sample_complexity


def test_it_interpolates_in_log_size():
    # From 100 (0.5) to 10,000 (0.1), target 0.2: three quarters of the way, 100 · 100^(3/4) = 100 · 31.6228.
    assert sample_complexity([100, 10_000], [0.5, 0.1], 0.2) == pytest.approx(3162.2776601683795)


def test_the_protocols_target():
    # n_c = 8: a tenth of 7/8 is 0.0875. Between 1,000 (0.35) and 2,000 (0.0625): t = 0.2625 / 0.2875 = 21/23.
    found = sample_complexity([500, 1000, 2000, 4000], [0.875, 0.35, 0.0625, 0.01], 0.1 * (1 - 1 / 8))
    assert found == pytest.approx(1000 * 2 ** (21 / 23))


def test_a_crossing_at_a_size_is_that_size():
    assert sample_complexity([10, 100, 1000], [0.5, 0.1, 0.0], 0.1) == 100.0


def test_noise_is_pooled():
    # 0.2 and 0.3 are out of order: both become 0.25. Between 1,000 (0.25) and 10,000 (0.05), target 0.1: t = 0.15 / 0.2 = 3/4.
    assert sample_complexity([10, 100, 1000, 10_000], [0.5, 0.2, 0.3, 0.05], 0.1) == pytest.approx(1000 * 10**0.75)


def test_a_lucky_size_is_no_crossing():
    # 0.08 alone is below 0.1, but its pool with 0.2 is 0.14; between 1,000 (0.14) and 10,000 (0.04): t = 0.04 / 0.1.
    assert sample_complexity([10, 100, 1000, 10_000], [0.5, 0.08, 0.2, 0.04], 0.1) == pytest.approx(1000 * 10**0.4)


def test_of_a_plateau_below_the_target_the_first_crossing_counts():
    # 100 to 1,000, from 0.3 to 0.1: half way to 0.2, although the plateau at 0.1 goes on to 100,000.
    found = sample_complexity([100, 1000, 10_000, 100_000], [0.3, 0.1, 0.1, 0.1], 0.2)
    assert found == pytest.approx(100 * 10**0.5)


def test_of_a_plateau_at_the_target_the_first_size_counts():
    # The mean of three 0.1 is 0.1 + 1e-17 in floating point: still the target.
    assert sample_complexity([1, 10, 100, 1000], [0.5, 0.1, 0.1, 0.1], 0.1) == 10.0


def test_it_is_censored_where_no_size_reaches_the_target():
    assert sample_complexity([10, 100], [0.9, 0.8], 0.1) == math.inf


def test_it_is_the_smallest_size_where_that_reaches_the_target():
    assert sample_complexity([10, 100], [0.05, 0.01], 0.1) == 10.0


@pytest.mark.parametrize(("error", "expected"), [(0.05, 64.0), (0.1, 64.0), (0.5, math.inf)])
def test_one_size(error, expected):
    assert sample_complexity([64], [error], 0.1) == expected


def test_a_target_of_zero_is_reached_by_an_error_of_zero():
    assert sample_complexity([10, 100], [0.5, 0.0], 0.0) == 100.0


@pytest.mark.parametrize("seed", range(5))
def test_it_is_where_scipys_fit_crosses(seed):
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(100, 100_000, 20)
    errors = 0.9 / (1 + (sizes / 3000) ** 1.5) * np.exp(0.4 * rng.normal(size=20))
    fitted = isotonic_regression(errors, increasing=False).x
    # np.interp wants rising abscissae; ties at its plateaus are far from the target.
    expected = np.exp(np.interp(-0.09, -fitted, np.log(sizes)))
    assert sample_complexity(sizes, errors, 0.09) == pytest.approx(expected)


@st.composite
def measured(draw):
    sizes = draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=12, unique=True))
    errors = draw(st.lists(st.integers(0, 1000), min_size=len(sizes), max_size=len(sizes)))
    return np.array(sizes, dtype=float), np.array(errors) / 1000


@given(measured(), st.floats(0.001, 0.999))
@settings(max_examples=200, deadline=None)
def test_it_lies_between_the_sizes_that_bracket_the_target(data, target):
    sizes, errors = data
    found = sample_complexity(sizes, errors, target)
    order = np.argsort(sizes)
    p, fitted = sizes[order], isotonic_regression(errors[order], increasing=False).x
    above, below = p[fitted > target + 1e-9], p[fitted < target - 1e-9]
    assert found >= above.max(initial=p[0])
    assert found <= below.min(initial=math.inf)


@given(measured(), st.floats(0.001, 0.999), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_sizes_does_not_matter(data, target, random):
    sizes, errors = data
    places = list(range(len(sizes)))
    random.shuffle(places)
    assert sample_complexity(sizes[places], errors[places], target) == sample_complexity(sizes, errors, target)


@given(measured(), st.floats(0.001, 0.999), st.floats(0.01, 100))
@settings(max_examples=100, deadline=None)
def test_it_scales_with_the_sizes(data, target, factor):
    sizes, errors = data
    found = sample_complexity(sizes, errors, target)
    assert sample_complexity(factor * sizes, errors, target) == pytest.approx(factor * found)


@given(measured())
@settings(max_examples=100, deadline=None)
def test_a_lower_target_needs_no_less(data):
    found = [sample_complexity(*data, target) for target in (0.1, 0.3, 0.5, 0.9)]
    assert all(stricter >= looser for stricter, looser in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("sizes", "errors", "message"),
    [
        ([], [], "at least one training size"),
        ([10, 100], [0.5], "one error for each"),
        ([[10]], [[0.5]], "one error for each"),
        ([10, 10], [0.5, 0.4], "positive, finite and distinct; got `\\[10, 10\\]`"),
        ([0, 10], [0.5, 0.4], "positive, finite and distinct"),
        ([10, math.inf], [0.5, 0.4], "positive, finite and distinct"),
        ([10, 100], [0.5, math.nan], "expected finite errors; got `\\[0.5, nan\\]`"),
        ([10, 100], [math.inf, 0.5], "expected finite errors"),
    ],
)
def test_it_refuses(sizes, errors, message):
    with pytest.raises(ValueError, match=message):
        sample_complexity(sizes, errors, 0.1)


def test_it_refuses_a_target_that_is_no_number():
    with pytest.raises(ValueError, match="expected a finite target; got `nan`"):
        sample_complexity([10], [0.5], math.nan)
