"""The pictures: what their axes show, not their pixels."""

import matplotlib as mpl
import numpy as np
import pytest
from synthetic_results import STEPS, board_of, cell_of, protocol_of, results_of

from richlearn import figures
from richlearn.errors import UsageError


def meshes(figure):
    return [axes.collections[0].get_array() for axes in figure.axes if axes.get_xlabel() == "conserved quantity δ"]


def test_the_phase_portrait_maps_five_quantities_over_scale_and_delta(grid):
    trials, curves = results_of(grid)
    figure = figures.phase_portrait(trials, curves, grid)
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "conserved quantity δ"]
    assert len(panels) == 5
    assert panels[0].get_yscale() == "log"
    last = curves[curves["step"] == STEPS].merge(trials, on="trial", suffixes=("", "_t"))
    low_tau_high_delta = last[last["parameters"] == '{"delta":1.0,"tau":0.1}']
    assert meshes(figure)[0][0, 2] == pytest.approx(np.exp(np.log(low_tau_high_delta["test_loss"]).mean()))
    assert meshes(figure)[1][0, 2] == pytest.approx(low_tau_high_delta["kernel_distance"].mean())


def test_the_phase_portrait_hatches_cells_without_a_value(grid):
    trials, curves = results_of(grid)
    figure = figures.phase_portrait(trials[trials["parameters"] != '{"delta":0.0,"tau":0.5}'], curves, grid)
    mask = meshes(figure)[0].mask
    assert mask[1, 1]
    assert mask.sum() == 1
    assert figure.axes[0].patch.get_hatch() == "////"
    assert "hatched: no value" in figure.get_suptitle()


def test_the_phase_portrait_crosses_cells_with_diverged_seeds(grid):
    trials, curves = results_of(grid)
    trials.loc[0, "status"] = "diverged"
    figure = figures.phase_portrait(trials, curves, grid)
    (crosses,) = [line for line in figure.axes[0].lines if line.get_label() == "diverged"]
    assert crosses.get_xydata().tolist() == [[-1.0, 0.1]]
    assert "× with diverged seeds" in figure.get_suptitle()


def test_the_phase_portrait_names_benchmark_seeds_and_steps(grid):
    assert figures.phase_portrait(*results_of(grid), grid).get_suptitle().startswith("quick: after 20,000 updates, mean over 3 seeds")


def test_the_phase_portrait_of_one_row_of_the_grid():
    protocol = protocol_of("line", [cell_of("unbalanced", tau=tau, delta=0.0) for tau in (0.1, 1.0)], 1)
    assert meshes(figures.phase_portrait(*results_of(protocol), protocol))[0].shape == (2, 1)


def test_the_phase_portrait_of_runs_that_all_diverged(grid):
    trials, curves = results_of(grid)
    trials["status"] = "diverged"
    assert meshes(figures.phase_portrait(trials, curves, grid))[0].mask.all()


def test_the_phase_portrait_needs_a_grid(schemes):
    with pytest.raises(
        UsageError, match="`phase_portrait` needs schemes over a grid of `tau` and `delta`; `schemes_teacher_student` has 1 such"
    ):
        figures.phase_portrait(*results_of(schemes), schemes)


def test_curves_show_every_cell_and_the_goal(schemes):
    figure = figures.curves(*results_of(schemes), schemes)
    test_loss = figure.axes[0]
    assert [axes.get_ylabel() for axes in figure.axes] == ["test loss", "train loss", "kernel distance $S(0, t)$"]
    assert len(test_loss.lines) == 10 + 1
    assert test_loss.lines[-1].get_ydata()[0] == pytest.approx(0.035)
    assert (test_loss.get_xscale(), test_loss.get_yscale()) == ("symlog", "log")
    assert len(figure.axes[1].lines) == 10


def test_curves_of_a_large_grid_say_how_many_rows_they_show():
    cells = [cell_of("unbalanced", tau=float(tau), delta=float(delta)) for tau in range(1, 6) for delta in range(5)]
    protocol = protocol_of("large", cells, 1)
    figure = figures.curves(*results_of(protocol), protocol)
    assert figure.get_suptitle().endswith("over 1 seed; 5 of 25 rows")
    assert figure.legends[0].get_texts()[0].get_text() == "τ = 1, δ = 0"


def test_trajectories_draw_every_unit_from_start_to_end(plane):
    trials, curves = results_of(plane, directions=True)
    teacher = np.array([[0.2, 1.0], [-0.9, 0.3]]), np.array([1.0, -1.0])
    figure = figures.trajectories(trials, curves, plane, teacher=teacher)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["τ = 0.1, δ = 0", "τ = 2, δ = 0", "τ = 0.1, δ = 1", "τ = 0.1, δ = −1"]
    first = curves.loc[(curves["trial"] == trials["trial"][0]) & (curves["step"] == STEPS), "directions"].item()
    lines = {line.get_label(): line.get_xydata() for line in panels[0].lines}
    np.testing.assert_array_equal(lines["end"], np.asarray(first).reshape(-1, 2))
    assert len(panels[0].collections[0].get_segments()) == 50 * (curves["step"].nunique() - 1)
    assert {"teacher, readout +", "teacher, readout −"} <= set(lines)


def test_trajectories_need_two_dimensions(grid):
    with pytest.raises(UsageError, match="`trajectories` needs a task with `dimension: 2`; `quick` has `100`"):
        figures.trajectories(*results_of(grid), grid)


def test_trajectories_need_recorded_directions(plane):
    with pytest.raises(UsageError, match=r"needs recorded directions; set `measure.directions: true` in `teacher_student_2d`"):
        figures.trajectories(*results_of(plane), plane)


def test_trajectories_of_units_that_rest(plane):
    trials, curves = results_of(plane, directions=True)
    first = curves["directions"].iloc[0]
    figure = figures.trajectories(trials, curves.assign(directions=[first] * len(curves)), plane)
    assert len(figure.axes) == 5


def comparison(schemes, **changes):
    trials, _ = results_of(schemes)
    for scheme, change in changes.items():
        trials.loc[trials["scheme"] == scheme, list(change)] = list(change.values())
    board = board_of(schemes, trials)
    return board, figures.scheme_comparison(board, schemes)


def test_the_comparison_has_a_panel_a_score_and_a_point_a_row(schemes):
    board, figure = comparison(schemes)
    assert [axes.get_xlabel() for axes in figure.axes] == ["test loss (MSE), lower is better", "steps to goal (updates), lower is better"]
    best = board[board["rank"] == 1].iloc[0]
    assert figure.axes[0].get_yticklabels()[0].get_text().startswith(best["scheme"])
    assert any(
        list(line.get_xdata()) == [pytest.approx(best["value"], rel=1e-5)] and line.get_marker() == "o" for line in figure.axes[0].lines
    )


def test_the_comparison_draws_the_censored_open_with_an_arrow(schemes):
    _, figure = comparison(schemes, mup={"status": "diverged"})
    arrows = [text for text in figure.axes[1].texts if getattr(text, "arrow_patch", None) is not None]
    assert any(text.xy == (STEPS, text.xy[1]) for text in arrows)
    points = [line for line in figure.axes[1].lines if list(line.get_xdata()) == [STEPS]]
    assert points
    assert all(line.get_markerfacecolor() == "white" for line in points)


def test_the_comparison_lists_rows_without_a_number_at_the_bottom(schemes):
    _, figure = comparison(schemes, mup={"status": "not_applicable", "reason": "`mup` needs a width"})
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[-1] == "mup"
    assert "not applicable: `mup` needs a width" in [text.get_text() for text in figure.axes[0].texts]


def test_the_comparison_marks_the_baseline(schemes):
    board, figure = comparison(schemes)
    value = board.loc[(board["scheme"] == "standard") & (board["score"] == "test_loss"), "value"].item()
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "baseline"]
    assert list(line.get_xdata()) == pytest.approx([value, value], rel=1e-5)


def test_the_comparison_of_a_read_leaderboard_without_a_protocol(schemes, tmp_path):
    from richlearn.bench import leaderboard

    board, _ = comparison(schemes)
    path = tmp_path / "x.csv"
    leaderboard.write(board.assign(date="2026-01-01"), path)
    assert len(figures.scheme_comparison(leaderboard.read(path)).axes) == 2


def test_the_comparison_of_a_large_grid_is_cut():
    cells = [cell_of("unbalanced", tau=float(tau), delta=float(delta)) for tau in range(1, 8) for delta in range(7)]
    protocol = protocol_of("large", cells, 1)
    board = board_of(protocol, results_of(protocol)[0])
    assert figures.scheme_comparison(board).get_suptitle().endswith("the first 40 of 49 rows")


def test_the_comparison_needs_rows(schemes):
    board, _ = comparison(schemes)
    with pytest.raises(UsageError, match="`scheme_comparison` needs a leaderboard with rows; it is empty"):
        figures.scheme_comparison(board.iloc[:0])


@pytest.mark.parametrize("name", ["phase_portrait", "curves", "scheme_comparison"])
def test_each_name_of_a_protocol_draws(grid, name):
    trials, curves = results_of(grid)
    assert figures.draw(name, trials, curves, board_of(grid, trials), grid).axes


def test_an_unknown_figure_is_refused(grid):
    trials, curves = results_of(grid)
    with pytest.raises(UsageError, match="unknown figure `phase_potrait`; did you mean `phase_portrait`"):
        figures.draw("phase_potrait", trials, curves, board_of(grid, trials), grid)


def test_drawing_leaves_the_callers_settings_alone(grid):
    with mpl.rc_context({"font.size": 30.0}):
        figures.curves(*results_of(grid), grid)
        assert mpl.rcParams["font.size"] == 30.0


def test_equal_figures_are_equal_files(grid, tmp_path):
    for name in ("a.png", "b.png"):
        figures.save(figures.curves(*results_of(grid), grid), tmp_path / name, dpi=40)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_figure_stays_open_in_pyplot(grid):
    from matplotlib import pyplot

    figures.curves(*results_of(grid), grid)
    assert pyplot.get_fignums() == []
