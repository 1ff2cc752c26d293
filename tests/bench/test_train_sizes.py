"""Protocols over several training sizes: trials, epochs, search, and the leaderboard of sample complexity."""

import json

import numpy as np
import pandas as pd
import pytest

import richlearn
from richlearn.bench import leaderboard
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.plan import Selection, make_plan
from richlearn.bench.protocol import load, override, parse
from richlearn.bench.runner import Runner, Settings
from richlearn.bench.search import Search, middle_size
from richlearn.bench.trials import TrialMaker
from richlearn.errors import UsageError
from richlearn.report import Results, carry_out

PROTOCOL = """
name: sizes
task: {name: random_hierarchy, parameters: {num_features: 4, num_classes: 4, num_synonyms: 2, depth: 2, test_size: 8}}
network: {name: mlp, parameters: {width: 8, depth: 1, bias: false}}
train_sizes: [20, 6, 12]
schemes: [{name: relative_scale, parameters: {base: mean_field}, grid: {alpha: [0.5, 2.0]}}]
seeds: 0-1
training: {epochs: 30, batch_size: 5, stack: 2, compile: false, precision: 64-true, stop_below: 0.2}
optimizer: {lr: 2.0, momentum: 0.9, schedule: {name: cosine, period: 0.8, per_epoch: true}}
measure: {probe: 4, points_per_decade: 1, check_every: 10}
goal: {quantity: test_accuracy, threshold: 0.9}
scores: [sample_complexity]
figures: [sample_complexity]
"""


ONE_SIZE = PROTOCOL.replace("train_sizes: [20, 6, 12]\n", "").replace("test_size: 8", "test_size: 8, train_size: 11")


def protocol_of(*options, text=PROTOCOL):
    source = load_yaml(text, "sizes.yaml")
    for option in options:
        source = override(source, option)
    return parse(source)


def specs(protocol):
    return [json.loads(trial.spec) for trial in TrialMaker(protocol).scored(protocol.cells())]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    folder = tmp_path_factory.mktemp("sizes")
    return richlearn.run(protocol_of(), out=folder, accelerator="cpu", devices="1", quiet=True)


def test_sizes_are_whole_rising_numbers():
    assert protocol_of("train_sizes={logspace: [2.6, 20.4, 3]}").train_sizes == (3, 7, 20)


def test_every_row_runs_on_every_size_and_a_batch_holds_one():
    maker = TrialMaker(protocol := protocol_of())
    batches = maker.batches(maker.scored(protocol.cells()))
    assert [(b.seed, {t.train_size for t in b.trials}, len(b.trials)) for b in batches] == [
        (seed, {size}, 2) for seed in (0, 1) for size in (6, 12, 20)
    ]


def test_epochs_become_updates_of_each_size():
    found = specs(protocol_of())[:6:2]
    assert [spec["training"]["steps"] for spec in found] == [30 * 2, 30 * 3, 30 * 4]
    assert [spec["measure"]["check_every"] for spec in found] == [10 * 2, 10 * 3, 10 * 4]
    assert [spec["optimizer"]["schedule"]["every"] for spec in found] == [2, 3, 4]
    assert [spec["task"]["parameters"]["train_size"] for spec in found] == [6, 12, 20]


def test_epochs_of_one_size_are_the_updates_they_come_to():
    protocol = protocol_of("scores=[test_loss]", "figures=[]", text=ONE_SIZE)
    assert protocol.budget() == 30 * 3
    assert specs(protocol)[0]["training"]["steps"] == 90


def test_the_budget_is_that_of_the_largest_size():
    assert protocol_of().budget() == 30 * 4
    assert protocol_of().budget(6) == 30 * 2


def test_a_search_looks_at_the_middle_size_and_its_rate_serves_all():
    protocol = protocol_of("search={seeds: 1000-1000, values: 1, max_extensions: 0}", "train_sizes=[4, 6, 12, 20]")
    assert middle_size(protocol) == 6
    maker, row = TrialMaker(protocol), protocol.cells()[0]
    plan = make_plan(maker, [[row]], pd.DataFrame(columns=["trial"]), centres=lambda _: (0.25, None))
    assert [(trial.train_size, trial.lr, trial.role) for trial in plan.trials] == [(6, 0.25, "search")]
    assert plan.after_search == 2 * 4
    assert {trial.lr for trial in maker.scored([row], {row.identity: 0.25})} == {0.25}


def test_a_search_may_be_shorter_than_the_runs():
    training = "training={steps: 40, batch_size: 5, stack: 2, compile: false}"
    search = "search={steps: 30, objective: steps_to_goal}"
    protocol = protocol_of(training, "optimizer={lr: 1.0}", "scores=[steps_to_goal]", "figures=[]", search, text=ONE_SIZE)
    maker, row = TrialMaker(protocol), protocol.cells()[0]
    (searched, _), *_ = Search(maker, [row], lambda _: (1.0, None)).rounds({})
    assert {json.loads(trial.spec)["training"]["steps"] for trial in searched} == {30}
    assert {trial.steps for trial in maker.scored([row])} == {40}


def test_only_selects_a_size():
    maker = TrialMaker(protocol := protocol_of())
    chosen = Selection(("train_size=12", "seed=1"))(maker.batches(maker.scored(protocol.cells())))
    assert [(batch.seed, batch.trials[0].train_size) for batch in chosen] == [(1, 12)]


def test_a_size_that_no_trial_has_is_refused(tmp_path):
    runner = Runner(protocol_of(), richlearn.bench.folder.RunFolder(tmp_path), Settings(selection=Selection(("train_size=7",))))
    with pytest.raises(UsageError, match="`--only train_size=7`: no trial has this value"):
        runner.plan()


def test_keys_that_came_later_leave_older_hashes_alone():
    assert not {"train_sizes"} & load("quick").content().keys()
    assert {"epochs", "stop_below", "stop_at_goal"}.isdisjoint(load("quick").content()["training"])
    assert "threshold" not in load("quick").content()["goal"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_sizes=[0, 5]", r"expected numbers of samples from 1 to 2⁵³, got \[0, 5\]"),
        ("train_sizes=[5, 5.2]", r"expected sizes that differ as whole numbers, got \[5, 5\]"),
        ("train_sizes=[]", "expected the task's `train_size` or `train_sizes`"),
        ("training.epochs=null", "expected either `steps` or `epochs`, got neither"),
        ("training.steps=5", "expected either `steps` or `epochs`, got both"),
        ("scores=[test_loss]", "`train_sizes` have one score: write `scores: "),
        ("scores=[sample_complexity, test_loss]", "`train_sizes` have one score: write `scores: "),
        ("figures=[curves]", "`curves` is of one training set: `train_sizes` have sample_complexity, scheme_comparison"),
        ("figures=[grokking_map]", "`grokking_map` needs rows with the parameters `tau` and `alpha`"),
        ("task.parameters.train_size=7", "`train_size` stands in the task or in a variant too; give it once"),
        ("variants=[{name: a, task: {train_size: 7}}]", "`train_size` stands in the task or in a variant too; give it once"),
        ("optimizer.schedule={name: cosine, warmup: 31}", "expected at most `training.epochs` = 30, got 31"),
        ("goal.fraction_of_zero_predictor=0.2", "an accuracy has a `threshold` instead"),
        ("measure.check_every=31", "expected at most `training.epochs` = 30, got 31"),
        ("goal={quantity: test_accuracy}", "`threshold` belongs to an accuracy, and an accuracy needs one; got test_accuracy and None"),
        ("goal={quantity: test_loss, threshold: 0.5}", "`threshold` belongs to an accuracy, and an accuracy needs one"),
        ("optimizer.schedule={name: constant, period: 0.5}", "`period` and `per_epoch` belong to the schedule cosine, got constant"),
        ("search={steps: 10}", "expected null under `training.epochs`: a shorter search needs a budget in `steps`"),
        ("search={objective: steps_to_goal}", "`training.stop_below` ends runs that may still have reached their goal"),
    ],
)
def test_what_cannot_be_is_refused(option, message):
    with pytest.raises(UsageError, match=message):
        protocol_of(option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("training={steps: 30}", "expected false under `training.steps`: only a budget in `epochs` has some"),
        ("task.parameters.train_size=0", "expected the task's `train_size` or `train_sizes`"),
        ("task.parameters.train_size=many", "expected the task's `train_size` or `train_sizes`"),
        ("variants=[{name: a, task: {train_size: 7}}]", "expected `steps` where variants have a `train_size`"),
        ("scores=[test_loss, time_to_grok]", "`training.stop_below` ends runs that may still have reached their goal"),
        ("scores=[sample_complexity]", "`sample_complexity` needs `train_sizes`"),
    ],
)
def test_what_cannot_be_with_one_size_is_refused(option, message):
    with pytest.raises(UsageError, match=message):
        protocol_of("scores=[test_loss]", "figures=[]", option, text=ONE_SIZE)


def test_a_network_that_does_not_fit_the_task_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="`tokens` must be whole numbers"):
        richlearn.run(protocol_of("network={name: transformer, parameters: {width: 8, heads: 2}}"), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_selected_size_still_takes_the_search():
    protocol = protocol_of("search={seeds: 1000-1000, values: 1, max_extensions: 0}")
    plan = make_plan(TrialMaker(protocol), [protocol.cells()], pd.DataFrame(columns=["trial"]), centres=lambda _: (0.25, None))
    assert [batch.role for batch in Selection(("train_size=20",))(plan.batches)] == ["search"]


def test_pictures_and_scores_of_accuracy_need_such_a_goal():
    text = PROTOCOL.replace("goal: {quantity: test_accuracy, threshold: 0.9}\n", "")
    with pytest.raises(UsageError, match=r"`sample_complexity` needs `goal\.quantity: test_accuracy`"):
        protocol_of(text=text)
    with pytest.raises(UsageError, match=r"`training\.stop_at_goal` needs a `goal` of accuracy"):
        protocol_of("training.stop_at_goal=true", "scores=[test_loss]", "goal={}", "figures=[]", text=ONE_SIZE)


def test_a_goal_of_accuracy_needs_a_classification(tmp_path):
    text = PROTOCOL.replace(
        "random_hierarchy, parameters: {num_features: 4, num_classes: 4, num_synonyms: 2, depth: 2, ", "teacher_student, parameters: {"
    )
    with pytest.raises(UsageError, match="`quantity` test_accuracy needs a classification; the loss of task `teacher_student` is MSE"):
        richlearn.run(protocol_of(text=text), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_size_above_the_tasks_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="must be at most P_max = 32, got 30 and 8"):
        richlearn.run(protocol_of("train_sizes=[6, 30]"), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


# ---- a run ---------------------------------------------------------------------------------------------------------------


def test_a_record_says_size_accuracy_and_where_a_run_ended(results):
    trials = results.trials
    assert sorted(set(trials["train_size"])) == [6, 12, 20]
    assert trials["test_accuracy"].between(0, 1).all()
    assert (trials["best_test_accuracy"] >= trials["test_accuracy"]).all()
    ended = trials.dropna(subset=["stopped_at"])
    assert len(ended) > 0
    assert (ended["train_loss"] < 0.2).all()
    assert (ended["stopped_at"] < ended["steps"]).all()


def test_a_run_that_ended_is_measured_where_it_did(results):
    ended = results.trials.dropna(subset=["stopped_at", "kernel_distance"])
    assert len(ended) > 0
    curves = results.curves(list(ended["trial"])).groupby("trial")["step"].max()
    assert curves.loc[ended["trial"]].tolist() == ended["stopped_at"].tolist()
    last = results.curves(list(ended["trial"])).groupby("trial").last()
    assert last["kernel_distance"].notna().all()


def test_the_leaderboard_interpolates_each_seed_and_averages_logarithms(results):
    board = results.leaderboard().set_index("parameters")
    trials = results.trials.assign(error=1 - results.trials["test_accuracy"]).sort_values("train_size")
    for parameters, own in trials.groupby("parameters"):
        found = [by_hand(group["train_size"], group["error"], 0.1 * 0.75) for _, group in own.groupby("seed")]
        mean = float(np.exp(np.mean(np.log(np.minimum(found, 20)))))
        value = board.loc[parameters, "value"]
        assert float(str(value).removeprefix("> ")) == pytest.approx(mean, rel=1e-5)
        assert str(value).startswith("> ") == bool(np.isinf(found).any())
        assert board.loc[parameters, "reached"] == np.isfinite(found).mean()


def by_hand(sizes, errors, target):
    """Pool adjacent violators one by one, then the first crossing."""
    sizes, blocks = list(map(float, sizes)), []
    for error in errors:
        blocks.append([error, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    fitted = [value for value, count in blocks for _ in range(count)]
    for place, value in enumerate(fitted):
        if value <= target + 1e-12:
            if place == 0:
                return sizes[0]
            share = (fitted[place - 1] - target) / (fitted[place - 1] - value)
            return float(np.exp(np.log(sizes[place - 1]) + share * np.log(sizes[place] / sizes[place - 1])))
    return float("inf")


def test_the_same_command_again_does_no_work_and_a_size_alone_publishes(results, tmp_path):
    assert not Runner(results.protocol, results.folder, Settings(quiet=True)).run().worked
    part = Settings(accelerator="cpu", devices="1", quiet=True, selection=Selection(("train_size=6",)))
    published = carry_out(Runner(protocol_of(), richlearn.bench.folder.RunFolder(tmp_path / "part"), part))
    assert set(published.leaderboard()["value"]) == {"not run"}
    assert published.folder.figure("sample_complexity").is_file()


# ---- the leaderboard, by hand --------------------------------------------------------------------------------------------


def trials_of(errors, *, alpha=0.5, seeds=3, status="finished"):
    """Trials of one row whose test error at (size 6, 12, 20) is `errors`, the same for each seed unless given by seed."""
    rows = []
    for seed in range(seeds):
        for size, error in zip((6, 12, 20), errors[seed] if isinstance(errors[0], tuple) else errors, strict=True):
            rows.append(
                {
                    "trial": f"{alpha}-{seed}-{size}", "batch": f"b{seed}", "role": "score", "seed": seed, "scheme": "relative_scale",
                    "parameters": json.dumps({"alpha": alpha, "base": "mean_field"}, separators=(",", ":")), "lr": 2.0, "steps": 30,
                    "status": status, "reason": "", "zero_loss": np.log(4), "train_size": size,
                    "test_accuracy": 1 - error if status == "finished" else None, "kernel_distance": size / 100, "hamming_distance": None,
                    "parameter_distance": None, "delta_init": None, "delta_drift": None, "measured_at": size, "regime": "rich",
                    "precision": "64-true",
                }
            )  # fmt: skip
    return pd.DataFrame(rows).astype({"train_size": "Int64", "test_accuracy": "Float64"})


def board_of(*tables):
    environments = pd.DataFrame({"wall_seconds": [], "members": []})
    return leaderboard.build(protocol_of("seeds=0-2"), pd.concat(tables), environments).set_index("parameters")


LEARNS, NEVER = (0.75, 0.3, 0.0), (0.75, 0.5, 0.4)  # the target is a tenth of 3/4: between 12 and 20 of the first
LEARNED_AT = 12 * (20 / 12) ** ((0.3 - 0.075) / 0.3)


def test_a_value_between_two_sizes():
    row = board_of(trials_of(LEARNS)).iloc[0]
    assert row["value"] == pytest.approx(LEARNED_AT)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((LEARNED_AT, LEARNED_AT))
    assert (row["unit"], row["reached"], row["seeds"]) == ("samples", 1.0, "3")


def test_measurements_are_those_of_the_first_size_above():
    row = board_of(trials_of(LEARNS)).iloc[0]
    assert (row["kernel_distance"], row["measured_at"]) == (pytest.approx(0.2), 20)


def test_rows_that_never_learn_say_beyond_the_largest_size_and_rank_last():
    board = board_of(trials_of(NEVER, alpha=0.5), trials_of(LEARNS, alpha=2.0))
    never, learns = board.loc['{"alpha":0.5,"base":"mean_field"}'], board.loc['{"alpha":2.0,"base":"mean_field"}']
    assert (never["value"], never["ci_low"], never["reached"], never["rank"]) == ("> 20", None, 0.0, 2)
    assert learns["rank"] == 1


def test_a_censored_seed_makes_the_mean_a_lower_bound():
    row = board_of(trials_of([LEARNS, LEARNS, NEVER])).iloc[0]
    assert row["value"] == f"> {(LEARNED_AT**2 * 20) ** (1 / 3):.6g}"
    assert row["reached"] == pytest.approx(2 / 3)
    assert row["ci_low"] is None


def test_diverged_runs_err_as_often_as_chance():
    row = board_of(trials_of(LEARNS, status="diverged")).iloc[0]
    assert (row["value"], row["failed"], row["reached"]) == ("> 20", 3, 0.0)


def test_one_seed_has_no_interval():
    row = board_of(trials_of(LEARNS, seeds=1)).iloc[0]
    assert row["value"] == pytest.approx(LEARNED_AT)
    assert (row["ci_low"], row["seeds"]) == (None, "1/3")


def test_a_seed_without_all_sizes_does_not_count():
    trials = trials_of(LEARNS)
    row = board_of(trials[~((trials["seed"] == 2) & (trials["train_size"] == 12))]).iloc[0]
    assert row["seeds"] == "2/3"


def test_the_same_bytes_in_any_order():
    trials = pd.concat([trials_of(LEARNS), trials_of(NEVER, alpha=2.0)])
    texts = {
        leaderboard.to_text(board_of(trials.sample(frac=1, random_state=state)).reset_index()[list(leaderboard.columns.NAMES)])
        for state in range(3)
    }
    assert len(texts) == 1
