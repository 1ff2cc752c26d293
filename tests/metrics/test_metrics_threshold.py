"""Steps to a threshold against a search through the whole list."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.errors import ParameterError
from richlearn.metrics import StepsToThreshold


def _run(values, **options):
    metric = StepsToThreshold(1.0, **options)
    for index, value in enumerate(values):
        metric.update(10 * index, value)
    return {name: int(step) for name, step in metric.compute().items()}


def _slow(values, sustained, direction):
    hits = [value <= 1.0 if direction == "below" else value >= 1.0 for value in values]
    first = next((10 * i for i, hit in enumerate(hits) if hit), -1)
    held = next((10 * i for i in range(len(hits) - sustained + 1) if all(hits[i : i + sustained])), -1)
    return {"first": first, "sustained": held}


@given(
    values=st.lists(st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf]), min_size=1, max_size=25),
    sustained=st.integers(1, 4),
    direction=st.sampled_from(["below", "above"]),
)
@settings(max_examples=60, deadline=None)
def test_it_finds_what_a_search_finds(values, sustained, direction):
    assert _run(values, sustained=sustained, direction=direction) == _slow(values, sustained, direction)


def test_the_first_crossing_is_kept_when_the_curve_spikes():
    assert _run([3, 0.5, 3, 0.5, 0.5, 3], sustained=2) == {"first": 10, "sustained": 30}


def test_a_goal_never_reached_is_censored():
    assert _run([3.0, 2.0, 1.01]) == {"first": -1, "sustained": -1}


def test_a_goal_not_held_to_the_end_of_the_run_is_not_sustained():
    assert _run([3.0, 3.0, 0.5], sustained=2) == {"first": 20, "sustained": -1}


def test_a_goal_at_the_start_is_reached_at_step_0():
    assert _run([1.0, 5.0]) == {"first": 0, "sustained": 0}


def test_nan_is_beyond_no_threshold():
    assert _run([math.nan, 0.5, math.nan, 0.5, 0.5], sustained=2) == {"first": 10, "sustained": 30}


def test_reset_forgets():
    metric = StepsToThreshold(1.0)
    metric.update(5, 0.5)
    metric.reset()
    metric.update(7, 2.0)
    assert int(metric.compute()["first"]) == -1
    metric.update(8, 0.5)
    assert int(metric.compute()["first"]) == 8


def test_a_result_does_not_change_when_the_metric_goes_on():
    metric = StepsToThreshold(1.0)
    metric.update(0, 2.0)
    before = metric.compute()
    metric.update(1, 0.5)
    assert int(before["first"]) == int(before["sustained"]) == -1
    assert int(metric.compute()["first"]) == 1


def test_options_are_checked():
    with pytest.raises(ParameterError, match='`direction` must be "below" or "above", got \'sideways\''):
        StepsToThreshold(1.0, direction="sideways")
    with pytest.raises(ParameterError, match="`sustained` must be at least 1 check, got 0"):
        StepsToThreshold(1.0, sustained=0)
