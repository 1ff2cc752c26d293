"""Runs with a goal of accuracy: when each was reached, where a run ended, and what stands beyond the budget."""

import numpy as np
import pytest

import richlearn
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.protocol import load, override, parse
from richlearn.errors import UsageError

PROTOCOL = """
name: grok
task: {name: modular_arithmetic, parameters: {prime: 5, operation: addition, train_share: 0.8}}
network: {name: transformer, parameters: {width: 16, heads: 2, feed_forward: 16}}
schemes: [{name: embedding_scale, grid: {tau: [1.0], alpha: [1.0, 10.0]}}]
baseline: null
seeds: 0-1
training: {steps: 120, stack: 1, compile: false, precision: 64-true, stop_at_goal: true}
optimizer: {name: adamw, lr: 1e-2, lr_rule: inverse_tau_squared, betas: [0.9, 0.98], weight_decay: 0.3, schedule: {name: warmup, warmup: 3}}
measure: {probe: 8, points_per_decade: 1, check_every: 5}
goal: {quantity: test_accuracy, threshold: 0.2, sustained: 2}
scores: [time_to_grok, steps_to_goal, time_to_train]
figures: [accuracy_curves, share_reached, grokking_map]
"""


def protocol_of(*options):
    source = load_yaml(PROTOCOL, "grok.yaml")
    for option in options:
        source = override(source, option)
    return parse(source)


def run(folder, *options):
    return richlearn.run(protocol_of(*options), out=folder, accelerator="cpu", devices="1", quiet=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run(tmp_path_factory.mktemp("grok"))


def first_of(steps, holds, checks=1):
    """The first step from which `checks` checks in a row hold."""
    return next((int(steps[i]) for i in range(len(steps) - checks + 1) if all(holds[i : i + checks])), None)


def test_times_are_those_of_the_curves(results):
    seen = 0
    for trial in results.trials.to_dict("records"):
        curve = results.curves([trial["trial"]])
        steps, test, train = (curve[name].to_numpy() for name in ("step", "test_accuracy", "train_accuracy"))
        wanted = [
            first_of(steps, test >= 0.2),
            first_of(steps, test >= 0.2, 2),
            first_of(steps, train >= 0.2),
            first_of(steps, train >= 0.2, 2),
        ]
        names = ["first_reached", "sustained_reached", "fit_first_reached", "fit_sustained_reached"]
        assert [
            None if trial[name] is None or trial[name] != trial[name] or str(trial[name]) == "<NA>" else int(trial[name]) for name in names
        ] == wanted
        seen += wanted[1] is not None
    assert seen > 0


def test_a_run_ends_when_both_accuracies_have_been_sustained(results):
    ended = results.trials.dropna(subset=["stopped_at"])
    assert len(ended) > 0
    for trial in ended.to_dict("records"):
        last = results.curves([trial["trial"]]).tail(2)
        assert last["step"].iloc[-1] == trial["stopped_at"] < 120
        both = (last[["test_accuracy", "train_accuracy"]] >= 0.2).all(axis=1).tolist()
        assert both == [True, True]


def test_a_run_that_ended_is_measured_at_its_end(results):
    ended = results.trials.dropna(subset=["stopped_at"])
    last = results.curves(list(ended["trial"])).sort_values("step").groupby("trial")["kernel_distance"].last()
    assert last.notna().all()


def test_a_budget_too_short_says_beyond_it_and_ranks_last(tmp_path):
    board = run(tmp_path, "training.steps=4", "measure.check_every=2", "goal.threshold=1.0", "seeds=0-2").leaderboard()
    assert set(board["value"]) == {"> 4"}
    assert set(board["rank"]) == {1}
    assert set(board["reached"]) == {0.0}


def test_one_by_one_and_stacked_runs_reach_the_goal_at_the_same_updates(results, tmp_path):
    stacked = run(tmp_path, "training.stack=2")
    names = ["first_reached", "sustained_reached", "fit_first_reached", "fit_sustained_reached", "stopped_at", "test_accuracy"]
    left, right = (each.trials.sort_values(["parameters", "seed"])[names].astype(float).to_numpy() for each in (results, stacked))
    assert np.array_equal(left, right, equal_nan=True)


def test_data_parallel_runs_end_at_the_same_update(results, tmp_path):
    folder = tmp_path / "ddp"
    found = richlearn.run(protocol_of("seeds=1"), out=folder, accelerator="cpu", devices="2", strategy="ddp", quiet=True).trials
    alone = results.trials[results.trials["seed"] == 1]
    assert dict(zip(found["parameters"], found["stopped_at"], strict=True)) == dict(
        zip(alone["parameters"], alone["stopped_at"], strict=True)
    )


def test_the_pictures_are_drawn(results):
    assert all(results.folder.figure(name).is_file() for name in ("accuracy_curves", "share_reached", "grokking_map"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("schemes.0.grid.tau=[0.0]", "scheme `embedding_scale`: `tau` must be positive, got 0.0"),
        ("task.parameters.prime=9", "`prime` must be a prime number below 10,000, got 9"),
        ("task.parameters.prime=five", "`prime` must be a prime number below 10,000, got 'five'"),
        ("task.parameters.train_share=1", "`train_share` must lie strictly between 0 and 1, got 1"),
        ("task.parameters.train_share=0", "`train_share` must lie strictly between 0 and 1, got 0"),
        ("task.parameters.train_share=0.99", "leaves the training or the test set empty"),
        ("network.parameters.heads=3", "`heads` must divide `width`, got 3 heads and width 16"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, option, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "none", option)
    assert not (tmp_path / "none").exists()


def test_the_scheme_benchmarks_compare_every_scheme_and_can_decide():
    wanted = {
        "standard",
        "kaiming",
        "xavier",
        "orthogonal",
        "lsuv",
        "ntk",
        "mean_field",
        "mup",
        "lambda_balanced",
        "upstream",
        "balanced",
        "downstream",
        "layer_rates",
    }
    for name in ("schemes_grokking", "schemes_random_hierarchy"):
        protocol = load(name)
        assert wanted <= {row.name for row in protocol.cells()}
        assert (len(protocol.seeds), protocol.baseline) == (10, "standard")
        assert 2 * (len(protocol.cells()) - 1) / 2 ** len(protocol.seeds) < 0.05
