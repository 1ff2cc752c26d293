"""The verdict on a curve: regime, goal, divergence, and when the network was measured."""

import numpy as np
import pandas as pd
import pytest

from richlearn.bench.verdict import outcome, regime

THRESHOLDS = {"kernel": 0.1, "fit": 0.5, "delay": 2.0}
STEPS = np.arange(0, 101, 10)
SPEC = {"goal": {"quantity": "test_loss", "fraction_of_zero_predictor": 0.1, "sustained": 1}, "regime": THRESHOLDS}


def curve(loss, kernel=0.5, moved=0.1, **columns) -> pd.DataFrame:
    """A trial looked at every 10 updates; each quantity a number or one value a look."""
    return pd.DataFrame(
        {
            "step": STEPS,
            "train_loss": loss,
            "test_loss": loss,
            "kernel_distance": kernel,
            "parameter_distance": moved,
            "parameter_distance_relative": moved,
            "hamming_distance": 0.2,
            "delta_mean": np.linspace(1, 2, len(STEPS)),
            "delta_drift": 0.0,
            **columns,
        }
    )


def falling(half: float, end: float = 0.0) -> np.ndarray:
    """From 1 towards `end`, half way at step `half`."""
    return end + (1 - end) * 2.0 ** (-STEPS / half)


def rising(half: float, end: float = 0.5) -> np.ndarray:
    """From 0 to `end`, half way at step `half`."""
    return np.minimum(STEPS / (2 * half), 1) * end


@pytest.mark.parametrize(
    ("loss", "kernel", "expected"),
    [
        (falling(10), rising(10, end=0.05), "lazy"),
        (falling(10), rising(10), "rich"),
        (falling(10), rising(40), "delayed_rich"),
        (falling(10, end=0.6), rising(10), "aligned_not_fitted"),
        (falling(10, end=0.6), rising(10, end=0.05), "lazy"),
    ],
)
def test_each_regime_has_its_curve(loss, kernel, expected):
    assert regime(curve(loss, kernel), THRESHOLDS) == (expected, "")


@pytest.mark.parametrize(("half", "expected"), [(19.9, "rich"), (21, "delayed_rich")])
def test_delay_is_the_ratio_of_the_half_way_steps(half, expected):
    fit = np.minimum(STEPS / 20, 1)  # half way at step 10
    assert regime(curve(1 - fit, rising(half)), THRESHOLDS)[0] == expected


def test_thresholds_are_the_protocols():
    table = curve(falling(10), rising(40))
    assert regime(table, THRESHOLDS | {"kernel": 0.6})[0] == "lazy"
    assert regime(table, THRESHOLDS | {"delay": 9.0})[0] == "rich"


def test_much_parameter_motion_under_little_kernel_motion_is_flagged():
    verdict, note = regime(curve(falling(10), kernel=0.01, moved=0.8), THRESHOLDS)
    assert verdict == "lazy"
    assert note == "parameters moved by 0.8 of their norm, the kernel did not"


def test_without_two_measurements_there_is_no_verdict():
    assert regime(curve(falling(10), kernel=[0.0] + [np.nan] * 10), THRESHOLDS) == (None, "")


def test_a_network_that_starts_perfect_is_lazy():
    assert regime(curve(0.0, 0.0), THRESHOLDS)[0] == "lazy"


def test_the_goal_is_a_share_of_the_zero_predictors_loss():
    found = outcome(curve(np.linspace(1, 0, 11)), SPEC, zero_loss=5.0, diverged_at=None)
    assert (found["first_reached"], found["sustained_reached"]) == (50, 50)


def test_the_first_and_the_sustained_time_differ_where_the_loss_returns():
    loss = [1, 1, 0.05, 1, 1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05]
    found = outcome(curve(loss), SPEC | {"goal": SPEC["goal"] | {"sustained": 3}}, 1.0, None)
    assert (found["first_reached"], found["sustained_reached"]) == (20, 50)


def test_a_run_that_does_not_reach_has_no_time():
    found = outcome(curve(falling(10, end=0.5)), SPEC, 1.0, None)
    assert (found["first_reached"], found["sustained_reached"]) == (None, None)
    assert found["status"] == "finished"


def test_motion_is_measured_when_the_goal_is_reached_else_at_the_end():
    kernel = [0.0, np.nan, np.nan, 0.3, np.nan, 0.5, np.nan, np.nan, np.nan, np.nan, 0.9]
    table = curve(np.linspace(1, 0, 11), kernel, parameter_distance=[np.nan if np.isnan(k) else 1.0 for k in kernel])
    reached = outcome(table, SPEC, zero_loss=7.9, diverged_at=None)
    censored = outcome(table, SPEC, zero_loss=-1.0, diverged_at=None)
    assert (reached["sustained_reached"], reached["measured_at"], reached["kernel_distance"]) == (30, 30, 0.3)
    assert (censored["measured_at"], censored["kernel_distance"]) == (100, 0.9)
    assert censored["delta_init"] == 1.0


def test_a_diverged_run_says_when_and_has_no_final_loss_and_no_verdict():
    found = outcome(curve(falling(10)).iloc[:4], SPEC, 1.0, diverged_at=37)
    assert (found["status"], found["diverged_at"], found["reason"]) == ("diverged", 37, "not finite after update 37")
    assert not {"train_loss", "test_loss", "regime"} & set(found)
    assert found["measured_at"] == 30


def test_a_run_that_diverged_before_any_look_has_an_outcome():
    assert outcome(curve(0.0).iloc[:0], SPEC, 1.0, 1) == {
        "zero_loss": 1.0,
        "status": "diverged",
        "diverged_at": 1,
        "reason": "not finite after update 1",
    }
