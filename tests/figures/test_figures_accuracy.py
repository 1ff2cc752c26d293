"""Pictures of sample complexity and of accuracies: what axes and legends show, under censoring and divergence too."""

import numpy as np
import pandas as pd
import pytest
from synthetic_grokking import SIZES, classification, grid, grokking, legend, line, rows, sampling
from synthetic_results import cell_of, protocol_of, results_of

from richlearn import figures
from richlearn.bench.sample_complexity import sample_complexity
from richlearn.errors import UsageError
from richlearn.figures._accuracy import history
from richlearn.figures._classification import by_alpha

ALPHAS = (0.1, 1.0, 10.0)


def sampled(seeds=4, alphas=ALPHAS, **options):
    protocol = classification("rhm", rows(*alphas), seeds, train_sizes=SIZES)
    needed = options.pop("needed", lambda cell: 6000 * cell.parameters["alpha"] ** -0.5)
    return sampling(protocol, needed, **options), protocol


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in ("D", ">")]


# ---- sample complexity -----------------------------------------------------------------------------------------------


def test_errors_are_drawn_over_sizes_as_geometric_means():
    trials, protocol = sampled()
    axes = figures.sample_complexity(trials, protocol).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    own = trials[(trials["parameters"] == '{"alpha":1.0}') & (trials["train_size"] == 2080)]
    expected = np.exp(np.log(1 - own["test_accuracy"]).mean())
    sizes, means = line(axes, "α = 1:").get_data()
    assert means[list(sizes).index(2080)] == pytest.approx(expected)


def test_the_target_is_a_tenth_of_the_chance_error():
    trials, protocol = sampled()
    figure = figures.sample_complexity(trials, protocol)
    assert line(figure.axes[0], "target").get_ydata()[0] == pytest.approx(0.0875)
    assert legend(figure)[-1] == "target: 0.0875"


def test_a_diamond_marks_the_geometric_mean_of_the_seeds_sample_complexities():
    trials, protocol = sampled()
    own = trials[trials["parameters"] == '{"alpha":1.0}']
    each = [sample_complexity(runs["train_size"], 1 - runs["test_accuracy"], 0.0875) for _, runs in own.groupby("seed")]
    mark = marks(figures.sample_complexity(trials, protocol).axes[0])[1]
    assert mark.get_marker() == "D"
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((np.exp(np.log(each).mean()), 0.0875))


def test_errors_of_zero_are_drawn_at_half_of_the_smallest_positive_one():
    trials, protocol = sampled()
    smallest = (1 - trials["test_accuracy"])[trials["test_accuracy"] < 1].min()
    figure = figures.sample_complexity(trials, protocol)
    assert min(line(figure.axes[0], "α = 10").get_ydata()) == pytest.approx(smallest / 2)
    assert figure.get_suptitle().endswith(f"errors of 0 drawn at {smallest / 2:.2g}")


def test_rows_that_never_reach_the_target_say_so_beside_each_other():
    trials, protocol = sampled(needed=lambda _: 1e7)
    figure = figures.sample_complexity(trials, protocol)
    assert legend(figure)[:3] == [f"{name}:  P* > 104113" for name in ("α = 0.1", "α = 1", "α = 10")]
    found = marks(figure.axes[0])
    assert [mark.get_marker() for mark in found] == [">"] * 3
    assert [mark.get_markerfacecolor() for mark in found] == ["white"] * 3
    places = [mark.get_transform().transform(mark.get_xydata())[0, 0] for mark in found]
    assert places == sorted(set(places))


def test_a_lower_bound_is_the_size_itself_and_not_one_less():
    # exp(ln 128) is 127.99999999999999.
    trials, protocol = sampled(needed=lambda _: 1e7, sizes=(32, 128))
    protocol.train_sizes = (32, 128)
    figure = figures.sample_complexity(trials, protocol)
    assert legend(figure)[0] == "α = 0.1:  P* > 128"


def test_a_short_axis_of_sizes_has_plain_numbers():
    trials, protocol = sampled(needed=lambda _: 1e7, sizes=(32, 128))
    axes = figures.sample_complexity(trials, protocol).axes[0]
    assert axes.xaxis.get_major_formatter()(50, None) == "50"
    assert figures.sample_complexity(*sampled()).axes[0].xaxis.get_major_formatter()(50, None) != "50"


def test_a_row_of_which_some_seeds_reach_the_target_has_a_lower_bound():
    trials, protocol = sampled(seeds=2, alphas=(1.0,))
    trials.loc[trials["seed"] == 1, "test_accuracy"] = 0.2
    first = trials[trials["seed"] == 0]
    bound = np.sqrt(sample_complexity(first["train_size"], 1 - first["test_accuracy"], 0.0875) * SIZES[-1])
    assert legend(figures.sample_complexity(trials, protocol))[0] == f"α = 1:  P* > {int(bound)}"


def test_rows_that_the_smallest_size_serves_have_an_upper_bound():
    trials, protocol = sampled(needed=lambda _: 30)
    assert legend(figures.sample_complexity(trials, protocol))[0] == "α = 0.1:  P* ≤ 131"


def test_diverged_runs_err_as_often_as_chance():
    trials, protocol = sampled(diverged=SIZES)
    figure = figures.sample_complexity(trials, protocol)
    assert line(figure.axes[0], "α = 1:").get_ydata() == pytest.approx(7 / 8)
    assert "P* > 104113" in legend(figure)[0]
    assert figure.get_suptitle().endswith("72 diverged runs at chance")


def test_one_seed_at_one_size_is_a_point():
    trials, protocol = sampled(seeds=1, sizes=(8281,))
    protocol.train_sizes = (8281,)
    figure = figures.sample_complexity(trials, protocol)
    assert line(figure.axes[0], "α = 1:").get_xdata().tolist() == [8281]
    assert "over 1 seed" in figure.get_suptitle()


def test_each_of_many_rows_has_a_panel_beside_the_baseline():
    trials, protocol = sampled(seeds=1, alphas=tuple(range(1, 10)))
    protocol.baseline_row = lambda: protocol.cells()[2]
    figure = figures.sample_complexity(trials.iloc[1:], protocol)
    single = figures.sample_complexity(trials[trials["parameters"] == '{"alpha":3}'], protocol)
    of_the_baseline = single.axes[0].get_title().splitlines()[1]
    titles = [axes.get_title().splitlines() for axes in figure.axes]
    assert [first for first, _ in titles] == [f"α = {alpha}" for alpha in range(1, 10)]
    assert titles[0][1] == "sizes missing"
    assert (titles[2][1], titles[2][1].startswith("P* ≈ ")) == (of_the_baseline, True)
    assert [len(marks(axes)) for axes in figure.axes] == [1, 2, 1, *[2] * 6]
    assert line(figure.axes[5], "baseline").get_ydata() == pytest.approx(line(figure.axes[2], "the row itself").get_ydata())
    assert legend(figure) == ["baseline: α = 3", "the row itself", "target: 0.0875"]
    assert "rows" not in figure.get_suptitle()


def test_at_most_24_rows_have_panels():
    trials, protocol = sampled(seeds=1, alphas=tuple(range(1, 27)))
    figure = figures.sample_complexity(trials, protocol)
    assert len(figure.axes) == 24
    assert "24 of 26 rows" in figure.get_suptitle()


def test_a_row_without_all_sizes_has_no_sample_complexity_yet():
    trials, protocol = sampled(seeds=1, alphas=(0.1, 1.0))
    figure = figures.sample_complexity(trials.iloc[1:], protocol)
    assert legend(figure)[0] == "α = 0.1:  sizes missing"
    assert len(marks(figure.axes[0])) == 1


def test_seeds_without_all_sizes_do_not_count_in_a_sample_complexity():
    trials, protocol = sampled(seeds=2, alphas=(1.0,))
    whole, _ = sampled(seeds=1, alphas=(1.0,))
    assert legend(figures.sample_complexity(trials.iloc[:-1], protocol)) == legend(figures.sample_complexity(whole, protocol))


@pytest.mark.parametrize("without", ["train_size", "test_accuracy"])
def test_sample_complexity_needs_sizes_and_accuracies(without):
    trials, protocol = sampled()
    with pytest.raises(UsageError, match="`sample_complexity` needs accuracies at several training sizes; `rhm` has none"):
        figures.sample_complexity(trials.drop(columns=without), protocol)


def test_a_regression_has_no_sample_complexity():
    protocol = protocol_of("quick", [cell_of("standard")], 1)
    with pytest.raises(UsageError, match="`quick` has none"):
        figures.sample_complexity(results_of(protocol)[0], protocol)


# ---- accuracy --------------------------------------------------------------------------------------------------------


def test_accuracies_have_a_panel_an_alpha_and_a_colour_a_tau():
    protocol = classification("modular", grid(taus=(0.5, 1.0), alphas=ALPHAS, extra=[(1.0, 100.0)]), 2)
    figure = figures.accuracy_curves(*grokking(protocol), protocol)
    assert [axes.get_title() for axes in figure.axes] == ["α = 0.1", "α = 1", "α = 10", "α = 100"]
    assert legend(figure) == ["τ = 0.5", "τ = 1", "train accuracy", "test accuracy", "goal: 0.99"]
    lines = [line.get_label() for line in figure.axes[3].lines]
    assert lines == ["τ = 1, train", "τ = 1, test", "goal"]
    assert line(figure.axes[3], "τ = 1, test").get_color() == line(figure.axes[0], "τ = 1, test").get_color()


def test_the_training_sets_accuracy_is_dashed():
    protocol = classification("modular", rows(*ALPHAS), 2)
    axes = figures.accuracy_curves(*grokking(protocol), protocol).axes[0]
    assert axes.get_xscale() == "symlog"
    assert line(axes, "relative_scale, train").get_linestyle() == "--"
    assert line(axes, "relative_scale, test").get_linestyle() == "-"


def test_a_run_that_ended_early_keeps_its_last_accuracy():
    protocol = classification("modular", rows(1.0), 2)
    trials, _ = grokking(protocol)
    first, second = trials["trial"]
    curves = pd.DataFrame({"trial": [first] * 2 + [second] * 3, "step": [0, 10, 0, 10, 100], "test_accuracy": [0, 1, 0, 0.2, 0.6]})
    found = history(trials, curves, "test_accuracy")
    assert found.index.tolist() == [0, 10, 100]
    assert found[first].tolist() == [0, 1, 1]
    assert figures.accuracy_curves(trials, curves, protocol).axes[0].lines[0].get_ydata().tolist() == pytest.approx([0, 0.6, 0.8])


def test_a_run_is_right_by_chance_from_where_it_diverged():
    protocol = classification("modular", rows(1.0), 2)
    trials, curves = grokking(protocol, diverged=[(0, 1)])
    found = history(trials, curves, "train_accuracy")
    lost = trials.loc[trials["seed"] == 1, "trial"].item()
    assert found.loc[:29, lost].to_numpy() == pytest.approx(1 / 8, abs=0.001)
    assert found.loc[30:, lost].to_numpy() == pytest.approx(1 / 8)
    assert figures.accuracy_curves(trials, curves, protocol).get_suptitle().endswith("\n1 diverged run at chance")


def test_a_run_that_diverged_it_is_not_known_when_counts_from_after_its_last_measurement():
    protocol = classification("modular", rows(1.0), 1)
    trials, curves = grokking(protocol, diverged=[(0, 0)])
    found = history(trials.drop(columns="diverged_at"), curves, "train_accuracy")
    last = curves["step"].max()
    assert found.index[-1] == last + 1
    assert found.iloc[-2:, 0].tolist() == pytest.approx([curves["train_accuracy"].iloc[-1], 1 / 8])


def test_accuracies_of_runs_that_all_diverged_before_any_measurement():
    protocol = classification("modular", rows(*ALPHAS), 2)
    trials, curves = grokking(protocol, diverged=[(cell, seed) for cell in range(3) for seed in range(2)])
    figure = figures.accuracy_curves(trials, curves.iloc[:0], protocol)
    assert all(axes.lines[1].get_ydata() == pytest.approx(1 / 8) for axes in figure.axes)


def test_accuracies_of_several_sizes_are_those_of_the_largest():
    protocol = classification("rhm", rows(1.0), 1, train_sizes=(100, 1000))
    trials, curves = grokking(protocol)
    trials = pd.concat([trials.assign(train_size=1000), trials.assign(train_size=100, trial="small")], ignore_index=True)
    curves = pd.concat([curves, curves.assign(trial="small", test_accuracy=0.0)], ignore_index=True)
    figure = figures.accuracy_curves(trials.astype({"train_size": "Int64"}), curves, protocol)
    assert figure.get_suptitle().endswith("\ntraining size 1000")
    assert max(line(figure.axes[0], "α = 1, test").get_ydata()) > 0.9


def test_of_many_schemes_each_that_was_run_has_a_panel():
    cells = [*(cell_of(f"scheme_{number}") for number in range(9)), *rows(0.1, 10.0)]
    protocol = classification("modular", cells, 1, baseline=cells[1])
    trials, curves = grokking(protocol)
    trials.loc[trials["scheme"].isin(["scheme_0", "scheme_3"]), "status"] = "not_applicable"
    names = [f"scheme_{number}" for number in (1, 2, 4, 5, 6, 7, 8)] + ["relative_scale α = 0.1", "relative_scale α = 10"]
    for figure in (figures.accuracy_curves(trials, curves, protocol), figures.share_reached(trials, protocol)):
        assert [axes.get_title() for axes in figure.axes] == names
        assert legend(figure)[:2] == ["the row itself", "baseline: scheme_1"]
        drawn = [[line for line in axes.lines if len(line.get_xdata()) > 2] for axes in figure.axes]
        assert [len(lines) for lines in drawn] == [2, *[4] * 8]
        assert drawn[5][0].get_ydata() == pytest.approx(drawn[0][0].get_ydata())
        assert figure.get_suptitle().endswith("\n9 of 11 rows")


def test_the_first_of_many_rows_has_the_only_panel():
    cells = [cell_of(f"scheme_{number}") for number in range(9)]
    protocol = classification("modular", cells, 1, baseline=cells[1])
    trials, curves = grokking(protocol)
    for figure in (figures.accuracy_curves(trials[:1], curves, protocol), figures.share_reached(trials[:1], protocol)):
        assert [axes.get_title() for axes in figure.axes] == ["scheme_0"]
        assert figure.get_suptitle().endswith("\n1 of 9 rows")


def test_panels_with_nothing_below_have_labels_there():
    cells = [cell_of(f"scheme_{number}") for number in range(10)]
    protocol = classification("modular", cells, 1)
    figure = figures.share_reached(grokking(protocol)[0], protocol)
    figure.draw_without_rendering()
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [False] * 6 + [True] * 4
    assert [axes.xaxis.get_major_ticks()[0].label1.get_visible() for axes in figure.axes] == [False] * 6 + [True] * 4


def test_rows_without_an_alpha_share_the_last_panel():
    cells = [*rows(0.1, 1.0), cell_of("standard"), cell_of("mup")]
    panels = by_alpha(cells)
    assert {title: [line.text for line in lines] for title, lines in panels.items()} == {
        "α = 0.1": ["relative_scale"],
        "α = 1": ["relative_scale"],
        "other rows": ["standard", "mup"],
    }


def test_at_most_eight_panels_of_seven_lines():
    protocol = classification("modular", grid(taus=range(1, 10), alphas=range(1, 12), extra=()), 1)
    figure = figures.accuracy_curves(*grokking(protocol), protocol)
    assert [axes.get_title() for axes in figure.axes][::7] == ["α = 1", "α = 11"]
    assert len(figure.axes) == 8
    assert figure.get_suptitle().endswith("\n56 of 99 rows")


def test_schemes_without_an_alpha_share_a_panel():
    protocol = classification("modular", [cell_of(name) for name in ("standard", "mup")], 1)
    figure = figures.accuracy_curves(*grokking(protocol), protocol)
    assert len(figure.axes) == 1
    assert legend(figure)[:2] == ["standard", "mup"]


def test_accuracies_of_a_regression_are_refused(grid):
    with pytest.raises(UsageError, match="`accuracy_curves` needs measured accuracies; `quick` has none"):
        figures.accuracy_curves(*results_of(grid), grid)
