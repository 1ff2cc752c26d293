"""Runs: the same records bit for bit, whatever is added, resumed, sharded or fails in between."""

import json
import shutil

import pytest
from tiny_runs import SCHEME, SEARCHED, contents, fragile_scheme, go, losses, timeless, tiny

import richlearn
from richlearn.bench.plan import Selection
from richlearn.bench.runner import Runner, Settings
from richlearn.bench.workers import Finished
from richlearn.errors import ParameterError, UsageError
from richlearn.report import RunFailed

NORMALISED = """
from torch.nn import BatchNorm1d, Linear, Sequential

class Net(Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(Linear(inputs, 4), BatchNorm1d(4), Linear(4, outputs))
"""


def drop_a_record(folder):
    name = min(path.name for path in (folder / "records").iterdir())
    shutil.rmtree(folder / "records" / name)
    return name


def test_a_run_leaves_records_a_leaderboard_and_its_protocol(finished):
    assert len(contents(finished)) == 2 * 4
    assert len(timeless(finished)) == 2 * 5
    assert {path.name for path in finished.iterdir()} == {"records", "leaderboard.csv", "protocol.yaml", "tensorboard"}


def test_the_same_run_elsewhere_gives_the_same_bytes(finished, tmp_path):
    go(tmp_path)
    assert contents(tmp_path) == contents(finished)
    assert timeless(tmp_path).equals(timeless(finished))


def test_the_same_command_twice_does_no_work(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(Runner, "_work", lambda *_: pytest.fail("it worked"))
    results = go(tmp_path)
    assert len(results.trials) == 10


def test_what_is_missing_is_computed_to_the_same_bytes(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    drop_a_record(tmp_path)
    go(tmp_path)
    assert contents(tmp_path) == contents(finished)


def test_an_interruption_between_batches_leaves_the_finished_ones(finished, tmp_path, monkeypatch):
    tell, seen = Runner._tell, []

    def stop_after_two(*arguments):
        tell(*arguments)
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "_tell", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path)
    assert len(contents(tmp_path)) == 2 * 2
    monkeypatch.setattr(Runner, "_tell", tell)
    go(tmp_path)
    assert contents(tmp_path) == contents(finished)


def test_shards_together_are_the_whole_run(finished, tmp_path):
    go(tmp_path, selection=Selection(shard="2/2"))
    assert len(contents(tmp_path)) == 2 * 2
    go(tmp_path, selection=Selection(shard="1/2"))
    assert contents(tmp_path) == contents(finished)
    assert timeless(tmp_path).equals(timeless(finished))


def test_two_workers_give_the_same_bytes(finished, tmp_path):
    go(tmp_path, devices=2)
    assert contents(tmp_path) == contents(finished)


def test_only_trains_the_batches_selected(tmp_path):
    results = go(tmp_path, selection=Selection(("seed=1", "scheme=standard")))
    assert set(results.trials["seed"]) == {1}
    assert "not run" not in set(timeless(tmp_path).query("scheme == 'standard'")["value"])


def test_more_seeds_and_schemes_recompute_nothing(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    (path := tmp_path / "mine.py").write_text(SCHEME)
    go(tmp_path, "seeds=0-2", schemes=(f"{path}:Mine",))
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2 * (2 + 3)  # seed 2, and three batches of the scheme


def test_every_scheme_and_seed_that_was_run_stands_in_the_leaderboard(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    go(tmp_path, "seeds=0-2", schemes=("kaiming",))
    go(tmp_path)
    table = timeless(tmp_path)
    assert "kaiming" in set(table["scheme"])
    assert set(table["seeds"]) == {"3"}


def test_a_search_is_run_to_its_end_and_told(searched):
    table = timeless(searched)
    assert set(table["seeds"]) == {"2"}
    assert all(int(steps) >= 3 * 2 * 30 for steps in table["search_steps"])
    assert all(float(lr) != 0.05 for lr in table["lr"])


def test_a_search_interrupted_or_sharded_gives_the_same_bytes(searched, tmp_path):
    rows = "schemes=[{name: standard}, {name: unbalanced, parameters: {tau: 0.5}}]"
    for shard in ("1/2", "2/2", "1/2", "2/2", "1/1"):
        go(tmp_path, SEARCHED, rows, selection=Selection(shard=shard))
    assert contents(tmp_path) == contents(searched)


# ---- failures --------------------------------------------------------------------------------------------------------


def test_a_batch_that_raises_does_not_stop_the_others(tmp_path):
    with pytest.raises(RunFailed, match=r"(?s)1 of the batches failed:\nseed 0, 1 networks: RuntimeError: the seed of misfortune \(log: "):
        go(tmp_path / "run", schemes=(fragile_scheme(tmp_path, 0),))
    assert len(contents(tmp_path / "run")) == 2 * (4 + 1)
    (log,) = (tmp_path / "run" / "failures").iterdir()
    assert "Traceback" in log.read_text()


def test_the_leaderboard_of_a_run_with_failures_marks_the_row_partial(tmp_path):
    with pytest.raises(RunFailed):
        go(tmp_path / "run", schemes=(fragile_scheme(tmp_path, 0),))
    table = timeless(tmp_path / "run")
    assert set(table.loc[table["scheme"].str.contains("fragile"), "seeds"]) == {"1/2"}


def test_failed_batches_are_tried_again_only_when_asked(tmp_path, monkeypatch):
    scheme = fragile_scheme(tmp_path, 0)
    with pytest.raises(RunFailed):
        go(tmp_path / "run", schemes=(scheme,))
    monkeypatch.setattr(Runner, "_work", lambda *_: pytest.fail("it worked"))
    with pytest.raises(RunFailed, match="failed in an earlier run; --retry-failed tries it again"):
        go(tmp_path / "run", schemes=(scheme,))
    monkeypatch.undo()
    with pytest.raises(RunFailed, match="the seed of misfortune"):
        go(tmp_path / "run", schemes=(scheme,), retry_failed=True)


def test_a_log_goes_when_its_batch_succeeds(tmp_path):
    failures = tmp_path / "run" / "failures"
    go(tmp_path / "run", selection=Selection(shard="1/4"))
    record = next((tmp_path / "run" / "records").iterdir()).name
    shutil.rmtree(tmp_path / "run" / "records" / record)
    failures.mkdir()
    (failures / f"{record}.log").write_text("once")
    go(tmp_path / "run", selection=Selection(shard="1/4"), retry_failed=True)
    assert list(failures.iterdir()) == []


def test_fail_fast_stops_at_the_first_failure(tmp_path):
    scheme = fragile_scheme(tmp_path, 0)
    with pytest.raises(RunFailed, match="seed 0"):
        go(tmp_path / "run", schemes=(scheme,), fail_fast=True, selection=Selection((f"scheme={scheme}",)))
    assert contents(tmp_path / "run") == {}


def test_an_earlier_failure_is_no_failure_of_what_is_selected_now(tmp_path):
    scheme = fragile_scheme(tmp_path, 0)
    with pytest.raises(RunFailed):
        go(tmp_path / "run", schemes=(scheme,), selection=Selection(("seed=0", f"scheme={scheme}")))
    go(tmp_path / "run", schemes=(scheme,), selection=Selection(("seed=1", f"scheme={scheme}")))


def test_only_a_log_that_exists_is_named(tmp_path):
    runner = Runner(tiny(), go(tmp_path, selection=Selection(shard="1/4")).folder)
    batch = runner.plan().batches[0]
    assert runner._summary([Finished(batch, error="disk full")]) == "1 of the batches failed:\nseed 0, 3 networks: disk full"


# ---- what cannot be served, and divergence ---------------------------------------------------------------------------


def test_a_scheme_that_cannot_serve_is_a_row_with_its_reason(tmp_path):
    go(tmp_path, "seeds=0", "schemes=[{name: standard}]", "network.parameters.width=3", schemes=("unbalanced",))
    table = timeless(tmp_path).set_index(["scheme", "score"])
    value = table.loc[("unbalanced", "test_loss"), "value"]
    assert value == "not applicable: `unbalanced` copies half of the hidden units: it needs an even width, got 3"
    assert table.loc[("unbalanced", "test_loss"), "rank"] == ""


def test_members_that_diverge_leave_the_others_bit_equal(tmp_path):
    wild = "schemes=[{name: standard}, {name: overall_scale, parameters: {tau: TAU}}, {name: kaiming}]"
    for tau in ("1.0", "1e6"):
        go(tmp_path / tau, "seeds=0", wild.replace("TAU", tau), "measure.check_every=7")
    calm, hot = losses(tmp_path / "1.0"), losses(tmp_path / "1e6")
    for name in ("standard", "kaiming"):
        assert hot[name, "{}", 0] == calm[name, "{}", 0]


def test_divergence_is_recorded_with_its_step_and_counted(tmp_path):
    results = go(tmp_path, "seeds=0-1", "schemes=[{name: standard}, {name: overall_scale, parameters: {tau: 1e6}}]")
    row = results.trials.query("scheme == 'overall_scale'").iloc[0]
    assert (row["status"], row["reason"]) == ("diverged", f"not finite after update {row['diverged_at']}")
    assert 1 <= row["diverged_at"] < 30
    table = timeless(tmp_path).set_index(["scheme", "score"])
    assert table.loc[("overall_scale", "test_loss"), ["failed", "rank", "regime"]].tolist() == ["2", "2", "diverged 100%"]
    assert table.loc[("overall_scale", "test_loss"), "value"].startswith("> ")
    assert table.loc[("overall_scale", "steps_to_goal"), "value"] == "> 30"


def test_one_by_one_a_network_diverges_alone_too(tmp_path):
    results = go(tmp_path, "seeds=0", "training.stack=1", "schemes=[{name: standard}, {name: overall_scale, parameters: {tau: 1e6}}]")
    assert sorted(results.trials["status"]) == ["diverged", "finished"]


def test_stacked_and_one_by_one_agree(finished, tmp_path):
    go(tmp_path, "training.stack=1", "seeds=0")
    stacked, single = losses(finished), losses(tmp_path)
    assert all(single[key] == pytest.approx(stacked[key], rel=1e-5) for key in single)


# ---- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"devices": "none"}, "`--devices none`: expected a whole number ≥ 1, or auto"),
        ({"devices": 0}, "`--devices 0`"),
        ({"strategy": "fsdp"}, "`--strategy fsdp`: expected auto"),
        ({"accelerator": "tpu9"}, "`--accelerator tpu9`: expected auto, cpu"),
        ({"strategy": "ddp"}, "`--strategy ddp` needs `--devices N`"),
    ],
)
def test_settings_check_themselves(settings, text):
    with pytest.raises(UsageError, match=text):
        Settings(**settings)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("task.parameters.dimensoin=5", "tiny.yaml.*unknown argument `dimensoin`; did you mean `dimension`"),
        ("network.parameters.widht=5", "unknown argument `widht`; did you mean `width`"),
        ("schemes.0.grid.tua=[1]", "unknown argument `tua`; did you mean `tau`"),
        ("schemes.0.grid.tau=[1, -2]", "tiny.yaml:6:5: .*scheme `unbalanced`: `tau` must be positive, got -2"),
        ("task.parameters.seed=5", "`seed` is not a parameter here: `seeds` gives it"),
        ("task.parameters.batch_size=5", "`training.batch_size` gives it"),
        ("network.parameters.width=0", "`width` must be a whole number of at least 1"),
    ],
)
def test_arguments_that_a_component_refuses_are_refused_before_anything_is_written(option, text, tmp_path):
    with pytest.raises(UsageError, match=text):
        go(tmp_path / "run", option)
    assert not (tmp_path / "run").exists()


def test_all_refused_arguments_come_at_once(tmp_path):
    options = ["schemes.0.grid.tau=[-1, -2]", "network.parameters.widht=5", "optimizer.lr_rule=inverse_tau_squared"]
    with pytest.raises(UsageError) as refused:
        go(tmp_path, *options)
    assert len(str(refused.value).splitlines()) == 3


def test_a_zero_tau_has_no_learning_rate(tmp_path):
    with pytest.raises(UsageError, match="`tau` must be positive"):
        go(tmp_path, "schemes.0.grid.tau=[0.0, 1.0]", "optimizer.lr_rule=inverse_tau_squared")


def test_a_users_class_that_raises_is_named_without_a_traceback(tmp_path):
    text = SCHEME.replace("scale: float = 0.5", "scale: float = 0.5\n    def __post_init__(self): raise ValueError('no')")
    (path := tmp_path / "mine.py").write_text(text)
    with pytest.raises(UsageError, match="ValueError: no"):
        go(tmp_path / "run", schemes=(f"{path}:Mine",))


def test_a_network_that_does_not_stack_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "net.py").write_text(NORMALISED)
    options = [f"network={{name: '{tmp_path}/net.py:Net'}}", "schemes=[{name: standard}]"]
    with pytest.raises(UsageError, match=r"cannot be stacked.*set training\.stack to 1"):
        go(tmp_path / "run", *options)
    assert len(go(tmp_path / "run", *options, "training.stack=1").trials) == 2


def test_an_added_scheme_of_the_protocol_is_refused(tmp_path):
    with pytest.raises(UsageError, match="already a row of `tiny`"):
        go(tmp_path, schemes=("standard",))


def test_a_folder_of_another_protocol_is_refused_naming_the_field(finished):
    with pytest.raises(UsageError, match=r"holds another protocol: `training\.steps` is 30 there, 31 here"):
        go(finished, "training.steps=31")


def test_parameter_errors_are_usage_errors():
    assert issubclass(ParameterError, UsageError)


def test_weights_are_kept_where_asked(tmp_path):
    import torch

    results = go(tmp_path, "seeds=0", "schemes=[{name: standard}]", save_weights=True)
    (path,) = (tmp_path / "weights").iterdir()
    state = torch.load(path, weights_only=True)
    assert path.stem == results.trials["trial"].iloc[0]
    assert {name: tuple(value.shape) for name, value in state.items()} == {"layers.0.weight": (4, 4), "layers.2.weight": (1, 4)}


def test_a_whole_run_draws_and_writes_tensorboard(tmp_path):
    results = richlearn.run(tiny("figures=[phase_portrait, curves]", "seeds=0"), tmp_path, devices="1", quiet=True)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["curves.png", "phase_portrait.png"]
    assert len(list((tmp_path / "tensorboard" / "cells").iterdir())) >= 5
    assert not any((tmp_path / "tensorboard" / "in_training").iterdir())
    assert len(results.leaderboard()) == 10


def test_records_say_where_they_come_from(finished):
    (path, *_) = (finished / "records").glob("*/environment.json")
    found = json.loads(path.read_text())
    versions = {"richlearn", "torch", "lightning", "python", "commit"}
    assert set(found) == versions | {"date", "host", "device", "command", "wall_seconds", "members"}
    assert found["device"] == "cpu"
