"""Pictures of grokking's times: maps over τ and α, shares of runs; and what holds for every picture of classification."""

import inspect

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from synthetic_grokking import BUDGET, classification, grid, grokking, legend, line, rows
from synthetic_results import cell_of

from richlearn import figures
from richlearn.errors import UsageError

ALPHAS = (0.1, 1.0, 10.0)


# ---- maps of times ---------------------------------------------------------------------------------------------------


def mapped(seeds=3, cells=None, **options):
    protocol = classification("modular", grid() if cells is None else cells, seeds)
    trials, _ = grokking(protocol, **options)
    return trials, figures.grokking_map(trials, protocol)


def panels(figure):
    return [axes for axes in figure.axes if axes.get_xlabel() == "embedding scale α"]


def texts(axes):
    """(column, row) -> text."""
    return {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}


def hatched(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]


def test_the_maps_print_median_times():
    trials, figure = mapped()
    own = trials[trials["parameters"] == '{"alpha":10.0,"tau":1.5}']
    fit, grok = panels(figure)
    assert fit.get_title() == "time-to-train (train accuracy ≥ 0.99)"
    assert grok.get_title() == "time-to-grok (test accuracy ≥ 0.99)"
    assert texts(fit)[4, 4] == f"{own['fit_first_reached'].median():.0f}"
    assert texts(grok)[4, 4] == f"{own['first_reached'].median():.0f}"


def test_the_maps_axes_are_alpha_and_tau():
    _, figure = mapped()
    axes = panels(figure)[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.3", "1", "3", "10", "100"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.5", "0.75", "1", "1.25", "1.5"]


def test_a_combination_that_nobody_asked_for_is_blank():
    _, figure = mapped()
    beyond = [place for place in texts(panels(figure)[0]) if place[0] == 5]
    assert beyond == [(5, 2)]
    assert not hatched(panels(figure)[0])


def test_a_median_beyond_the_budget_is_hatched():
    trials, figure = mapped()
    times = trials.assign(time=trials["first_reached"].astype(float).fillna(np.inf)).groupby("parameters")["time"].median()
    grok = panels(figure)[1]
    assert np.isinf(times).sum() > 0
    assert len(hatched(grok)) == np.isinf(times).sum()
    assert list(texts(grok).values()).count(f"> {BUDGET}") == np.isinf(times).sum()


def test_maps_of_runs_that_never_reach_it_have_no_colours():
    _, figure = mapped(slowdown=1e4)
    assert len(figure.axes) == 2
    assert [len(hatched(axes)) for axes in panels(figure)] == [26, 26]


def test_maps_of_runs_that_all_diverged():
    _, figure = mapped(seeds=1, diverged=[(cell, 0) for cell in range(26)])
    assert set(texts(panels(figure)[0]).values()) == {"> 10000"}
    assert figure.get_suptitle() == "modular: median over 1 seed\n26 diverged runs beyond the budget"


def test_maps_of_runs_that_all_reach_it_have_one_scale():
    _, figure = mapped(slowdown=0.1)
    assert len(figure.axes) == 3
    assert not any(hatched(axes) for axes in panels(figure))
    assert figure.axes[2].get_ylabel() == "updates (median)"


def test_a_map_of_one_cell():
    _, figure = mapped(seeds=1, cells=grid(taus=(1.0,), alphas=(1.0,), extra=()))
    assert [len(texts(axes)) for axes in panels(figure)] == [1, 1]


def test_a_map_says_what_was_not_run():
    protocol = classification("modular", grid(), 1)
    trials, _ = grokking(protocol)
    figure = figures.grokking_map(trials[trials["parameters"] != '{"alpha":3.0,"tau":0.5}'], protocol)
    assert texts(panels(figure)[0])[3, 0] == "not run"


def test_each_variant_has_maps_of_its_own():
    cells = [cell_of("relative_scale", tau=1.0, alpha=alpha) for alpha in ALPHAS]
    for cell in (named := [*cells, *[cell_of("relative_scale", tau=1.0, alpha=alpha) for alpha in ALPHAS]]):
        cell.parameters["variant"] = "plain" if any(cell is each for each in cells) else "post_norm"
        cell.label += cell.parameters["variant"]
    _, figure = mapped(cells=named)
    labels = [axes.get_ylabel() for axes in figure.axes[:4:2]]
    assert labels == ["variant = plain\nlogit scale τ", "variant = post_norm\nlogit scale τ"]


def test_maps_need_tau_and_alpha():
    protocol = classification("modular", rows(*ALPHAS), 1)
    with pytest.raises(UsageError, match="`modular` has 0 such rows and a goal for `test_accuracy`"):
        figures.grokking_map(grokking(protocol)[0], protocol)


def test_maps_need_a_goal_for_the_accuracy():
    protocol = classification("modular", grid(), 1)
    protocol.goal.quantity = "test_loss"
    with pytest.raises(UsageError, match="and a goal for `test_accuracy`; `modular` has 26 such rows and a goal for `test_loss`"):
        figures.grokking_map(grokking(protocol)[0], protocol)


# ---- share that reached ----------------------------------------------------------------------------------------------


def shares(seeds=4, cells=None, goal="test_accuracy", **options):
    protocol = classification("modular", rows(*ALPHAS) if cells is None else cells, seeds)
    protocol.goal.quantity = goal
    trials, _ = grokking(protocol, **options)
    return trials, figures.share_reached(trials, protocol)


def test_shares_are_steps_at_the_runs_times():
    trials, figure = shares()
    times = trials.loc[trials["parameters"] == '{"alpha":10.0}', "first_reached"].sort_values()
    found = line(figure.axes[0], "α = 10")
    assert found.get_drawstyle() == "steps-post"
    assert found.get_xdata()[1:-1].tolist() == times.tolist()
    assert found.get_ydata().tolist() == [0, 0.25, 0.5, 0.75, 1, 1]


def test_shares_end_at_the_budget_on_a_logarithmic_axis():
    _, figure = shares()
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_xlim()[1] == BUDGET
    assert all(line.get_xdata()[-1] == BUDGET for line in figure.axes[0].lines)


def test_the_training_sets_share_is_dashed_and_thin():
    trials, figure = shares()
    dashed, solid = figure.axes[0].lines[:2]
    own = trials.loc[trials["parameters"] == '{"alpha":0.1}', "fit_first_reached"]
    assert dashed.get_xdata()[1:-1].tolist() == own.sort_values().tolist()
    assert dashed.get_linestyle() == "--"
    assert dashed.get_linewidth() < solid.get_linewidth()
    assert legend(figure)[-2:] == ["train accuracy ≥ 0.99", "test accuracy ≥ 0.99"]


def test_a_goal_for_a_loss_has_no_training_set():
    _, figure = shares(goal="test_loss")
    assert len(figure.axes[0].lines) == 3
    assert legend(figure)[-1] == "goal for test loss"


def test_shares_of_runs_that_never_reach_it():
    _, figure = shares(slowdown=1e4)
    assert all(set(line.get_ydata()) == {0.0} for line in figure.axes[0].lines)
    assert legend(figure)[:3] == ["α = 0.1:  0/4", "α = 1:  0/4", "α = 10:  0/4"]


def test_diverged_runs_stay_in_the_denominator():
    _, figure = shares(diverged=[(1, 0)])
    assert max(line(figure.axes[0], "α = 1:").get_ydata()) == 0.75
    assert figure.get_suptitle() == "modular: 4 seeds, budget 10,000 updates\n1 diverged run counted as not reaching it"


def test_shares_of_runs_that_all_diverged():
    _, figure = shares(seeds=1, diverged=[(cell, 0) for cell in range(3)])
    assert legend(figure)[:3] == ["α = 0.1:  0/1", "α = 1:  0/1", "α = 10:  0/1"]


def test_shares_over_a_grid_have_a_panel_an_alpha():
    _, figure = shares(cells=grid(taus=(0.5, 1.0), alphas=ALPHAS, extra=()))
    assert [axes.get_title() for axes in figure.axes] == ["α = 0.1", "α = 1", "α = 10"]
    assert legend(figure)[:2] == ["τ = 0.5", "τ = 1"]


def test_a_share_of_one_run():
    _, figure = shares(seeds=1, cells=rows(1.0))
    assert line(figure.axes[0], "α = 1").get_ydata().tolist() == [0, 1, 1]


def test_a_time_of_zero_updates_is_within_the_axis():
    protocol = classification("modular", rows(1.0), 1)
    trials, _ = grokking(protocol)
    axes = figures.share_reached(trials.assign(first_reached=0, fit_first_reached=0), protocol).axes[0]
    assert axes.get_xlim()[0] > 0
    assert axes.lines[1].get_ydata().tolist() == [0, 1, 1]


# ---- all -------------------------------------------------------------------------------------------------------------

NAMES = ("sample_complexity", "accuracy_curves", "grokking_map", "share_reached")


@pytest.mark.parametrize("name", NAMES)
def test_each_name_draws_and_equal_figures_are_equal_files(name, tmp_path):
    protocol = classification("modular", grid(), 2)
    trials, curves = grokking(protocol)
    trials["train_size"] = pd.array([4656] * len(trials), dtype="Int64")
    for file in ("a.png", "b.png"):
        figures.save(figures.draw(name, trials, curves, pd.DataFrame(), protocol), tmp_path / file, dpi=40)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_cannot_serve_are_not_drawn(name):
    protocol = classification("modular", grid(), 1)
    trials, curves = grokking(protocol)
    with pytest.raises(UsageError, match="no scheme of `modular` is applicable to its network"):
        figures.draw(name, trials.assign(status="not_applicable"), curves, pd.DataFrame(), protocol)


@pytest.mark.parametrize("name", NAMES)
def test_there_must_be_trials(name):
    protocol = classification("modular", grid(), 1)
    trials, curves = grokking(protocol)
    with pytest.raises(UsageError, match="`modular` has no scored trials yet"):
        figures.draw(name, trials.iloc[:0], curves.iloc[:0], pd.DataFrame(), protocol)


def test_the_figures_document_what_they_read():
    for name in NAMES:
        assert "Raises:" in (inspect.getdoc(figures.FIGURES[name]) or "")
