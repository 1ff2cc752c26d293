"""What pictures draw: means, bands and last values over the seeds."""

import numpy as np
import pandas as pd
import pytest
from synthetic_results import cell_of, protocol_of, results_of

from richlearn.errors import UsageError
from richlearn.figures._tables import KERNEL, TEST_LOSS, bands, chosen, finals, mean, scored


def test_bands_are_geometric_for_losses(grid):
    trials, curves = results_of(grid)
    found = bands(scored(grid, trials), curves, TEST_LOSS)[0]
    names = trials.loc[trials["parameters"] == trials["parameters"].iloc[0], "trial"]
    logs = np.log(curves[curves["trial"].isin(names)].pivot(index="step", columns="trial", values="test_loss"))
    np.testing.assert_allclose(found["mean"], np.exp(logs.mean(axis=1)))
    np.testing.assert_allclose(found["high"], np.exp(logs.mean(axis=1) + logs.std(axis=1)))


def test_bands_leave_out_steps_that_few_seeds_have(grid):
    trials, curves = results_of(grid)
    extra = curves.iloc[[5]].assign(step=7)
    found = bands(scored(grid, trials), pd.concat([curves, extra]), KERNEL)[0]
    assert 7 not in found.index
    assert found.index.is_monotonic_increasing


def test_one_seed_has_a_band_of_no_width():
    protocol = protocol_of("one", [cell_of("standard")], 1)
    trials, curves = results_of(protocol)
    found = bands(scored(protocol, trials), curves, KERNEL)[0]
    assert (found["low"] == found["high"]).all()


def test_last_values_skip_what_was_not_measured_and_who_diverged(grid):
    trials, curves = results_of(grid)
    trials.loc[1, "status"] = "diverged"
    last = curves["step"] == curves["step"].max()
    curves.loc[last, "kernel_distance"] = np.nan
    found = finals(scored(grid, trials), curves, [KERNEL])["kernel_distance"]
    assert found[0] == curves.loc[(curves["trial"] == trials["trial"][0]) & ~last, "kernel_distance"].iloc[-1]
    assert np.isnan(found[1])


def test_mean_ignores_what_is_not_finite():
    assert mean(pd.Series([1.0, 100.0, np.inf]), logarithmic=True) == pytest.approx(10.0)
    assert np.isnan(mean(pd.Series([np.nan]), logarithmic=False))


def test_of_a_large_grid_the_corners_and_the_centre():
    cells = [cell_of("unbalanced", tau=float(tau), delta=float(delta)) for tau in range(1, 6) for delta in range(5)]
    assert [tuple(cells[index].parameters.values()) for index in chosen(cells, 21)] == [(1, 0), (1, 4), (3, 2), (5, 0), (5, 4)]


def test_of_many_other_rows_evenly_spread_ones():
    found = chosen([cell_of(f"scheme{index}") for index in range(100)], 21)
    assert (len(found), found[0], found[-1]) == (21, 0, 99)


def test_nothing_to_draw_says_so(grid):
    trials, _ = results_of(grid)
    with pytest.raises(UsageError, match="`quick` has no scored trials yet, so there is nothing to draw; run `richlearn run quick` first"):
        scored(grid, trials.iloc[:0])


def test_search_trials_and_other_seeds_are_not_drawn(grid):
    trials, _ = results_of(grid)
    trials.loc[0, "role"] = "search"
    trials.loc[1, "seed"] = 99
    assert len(scored(grid, trials)) == len(trials) - 2
