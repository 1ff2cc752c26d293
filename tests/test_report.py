"""What is read from a run's folder: tables, the leaderboard and its check, trials behind a number, costs, the environment."""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from tiny_runs import SCHEME, contents, go, tiny

import richlearn
from richlearn import catalog, figures
from richlearn.bench import environment, protocol
from richlearn.bench.estimate import estimate
from richlearn.bench.scores import SCORES
from richlearn.bench.trials import TrialMaker
from richlearn.errors import UsageError
from richlearn.lookup import look_up, run_folders
from richlearn.report import Results

COMMITTED = sorted(path.parent for path in (Path(__file__).parents[1] / "leaderboards").glob("*/leaderboard.csv"))


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_a_committed_leaderboard_is_what_its_records_give(folder):
    results = Results(folder)
    assert results.contents.problems == []
    assert results.check_leaderboard() == []


def test_protocols_know_all_scores_and_figures():
    assert set(get_args(protocol.Score)) == set(SCORES)
    assert set(get_args(protocol.FigureName)) == set(figures.FIGURES)


@pytest.fixture
def copy(finished, tmp_path):
    """A run that a test may change."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


# ---- tables and leaderboard ------------------------------------------------------------------------------------------


def test_tables_are_read_from_python(finished):
    trials, curves = richlearn.load_trials(finished), richlearn.load_curves(finished)
    assert len(trials) == 10
    assert set(curves["trial"]) == set(trials["trial"])
    assert sorted(set(curves["step"])) == [0, 1, 3, 10, 20, 30]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no run: no protocol\.yaml; `richlearn run B --out .*` starts one"):
        Results(tmp_path)


def test_a_protocol_changed_by_hand_is_refused(copy):
    (copy / "protocol.yaml").write_text((copy / "protocol.yaml").read_text().replace("steps: 30", "steps: 31"))
    with pytest.raises(UsageError, match="is not as it was written"):
        Results(copy)


def test_the_leaderboard_is_rebuilt_to_the_same_bytes(copy):
    before = (copy / "leaderboard.csv").read_bytes()
    Results(copy).write_leaderboard()
    assert (copy / "leaderboard.csv").read_bytes() == before
    assert Results(copy).check_leaderboard() == []


def test_a_changed_or_absent_leaderboard_is_found(copy):
    path = copy / "leaderboard.csv"
    path.write_text(path.read_text().replace("standard", "kaiming"))
    assert "is not what its records give" in Results(copy).check_leaderboard()[0]
    path.unlink()
    assert "does not exist" in Results(copy).check_leaderboard()[0]


def test_a_leaderboard_of_another_form_is_found(copy):
    (copy / "leaderboard.csv").write_text("a,b\n1,2\n")
    assert Results(copy).check_leaderboard()


def test_stale_trials_leave_the_leaderboard_and_are_computed_anew(copy, monkeypatch):
    monkeypatch.setattr(catalog, "MEASURING_NUMERICS", 9)
    assert Results(copy).current.empty
    assert set(Results(copy).leaderboard()["value"]) == {"not run"}
    results = go(copy)
    assert (len(results.trials), len(results.current)) == (20, 10)
    assert set(results.leaderboard()["seeds"]) == {"2"}


def test_trials_of_a_users_file_that_is_gone_still_count(tmp_path):
    (path := tmp_path / "mine.py").write_text(SCHEME)
    go(tmp_path / "run", schemes=(f"{path}:Mine",))
    before = (tmp_path / "run" / "leaderboard.csv").read_bytes()
    path.unlink()
    Results(tmp_path / "run").write_leaderboard()
    assert (tmp_path / "run" / "leaderboard.csv").read_bytes() == before


def test_records_of_another_protocol_do_not_count(copy, tmp_path_factory):
    other = go(tmp_path_factory.mktemp("other"), "training.steps=31").folder.path
    shutil.copytree(other / "records", copy / "records", dirs_exist_ok=True)
    assert len(Results(copy).trials) == 10
    assert Results(copy).check_leaderboard() == []


# ---- damage ----------------------------------------------------------------------------------------------------------


def damage(folder, file="trials.parquet"):
    path = min((folder / "records").glob(f"*/{file}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.parent.name


@pytest.mark.parametrize("file", ["trials.parquet", "curves.parquet", "environment.json", "digest.json"])
def test_a_damaged_record_is_set_aside_and_computed_again(file, copy, finished):
    name = damage(copy, file)
    assert len(Results(copy).trials) < 10
    go(copy)
    assert contents(copy) == contents(finished)
    assert [path.name.split(".")[:2] for path in (copy / "set_aside").iterdir()] == [[name, "damaged"]]


def test_a_record_of_another_version_is_set_aside_and_computed_again(copy, finished):
    path = min((copy / "records").glob("*/digest.json"))
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    assert any("is of version 2, and this richlearn reads version 1" in line for line in Results(copy).contents.problems)
    go(copy)
    assert contents(copy) == contents(finished)


def test_looking_repairs_nothing(copy):
    damage(copy)
    assert Results(copy).contents.problems
    assert not (copy / "set_aside").exists()


# ---- from a number to its trials -------------------------------------------------------------------------------------


def test_a_trial_is_found_by_the_beginning_of_its_hash(finished):
    name = richlearn.load_trials(finished)["trial"].iloc[3]
    (found,) = look_up(name[:8], [finished])
    assert found["trial"] == name
    assert found["environment"]["richlearn"]
    assert found["spec"]["training"]["steps"] == 30
    assert [row["step"] for row in found["curve"]] == [0, 1, 3, 10, 20, 30]
    json.dumps(found, default=str)


def test_a_row_is_all_its_trials(finished):
    found = look_up("unbalanced(tau=0.5, delta=-1)", [finished])
    assert [trial["seed"] for trial in found] == [0, 1]
    assert all("curve" not in trial for trial in found)
    assert Path(found[0]["record"]).is_dir()


def test_search_trials_are_shown_with_the_scored_ones(searched):
    assert {trial["role"] for trial in look_up("standard", [searched])} == {"score", "search"}


@pytest.mark.parametrize(
    ("name", "text"),
    [("standrad", "did you mean `standard`"), ("abcdef0123", "no trial and no row is called `abcdef0123`"), ("0", "no trial and no row")],
)
def test_what_is_not_there_gets_the_nearest_row(name, text, finished):
    with pytest.raises(UsageError, match=text):
        look_up(name, [finished])


def test_without_a_run_there_is_nothing_to_look_up(tmp_path):
    assert run_folders(tmp_path) == []
    with pytest.raises(UsageError, match="in no run folder; run a benchmark first"):
        look_up("standard", [])


def test_a_run_is_found_in_its_folder_or_the_one_above(finished):
    assert run_folders(finished) == [finished]
    assert finished in run_folders(finished.parent)


# ---- costs and environment -------------------------------------------------------------------------------------------


def batches_of(*options):
    maker = TrialMaker(tiny(*options))
    return maker.batches(maker.trial(row, seed) for seed in maker.protocol.seeds for row in maker.protocol.cells())


def test_costs_grow_linearly_with_members_and_steps():
    one, two = estimate(batches_of("training.stack=5", "seeds=0")), estimate(batches_of("training.stack=5"))
    longer = estimate(batches_of("training.stack=5", "seeds=0", "training.steps=60"))
    assert two.core_hours == pytest.approx(2 * one.core_hours)
    assert longer.core_hours == pytest.approx(2 * one.core_hours)
    assert two.disk == pytest.approx(2 * one.disk, rel=0.01)


def test_memory_is_that_of_the_largest_batch_and_linear_in_its_members():
    memory = [estimate(batches_of(f"training.stack={size}")).memory for size in (1, 2, 3)]
    assert memory[2] - memory[1] == memory[1] - memory[0] > 0
    assert estimate(batches_of("seeds=0")).memory == memory[2]


def test_nothing_costs_nothing():
    assert (estimate([]).core_hours, estimate([]).memory, estimate([]).disk) == (0.0, 0, 0)


def test_the_environment_describes_machine_code_and_cost():
    found = environment.describe("cpu", 1.23456, 7, "richlearn run quick")
    assert (found["wall_seconds"], found["members"], found["device"], found["command"]) == (1.235, 7, "cpu", "richlearn run quick")
    assert found["torch"] == importlib.metadata.version("torch")
    assert pd.Timestamp(found["date"]).tz is not None


def test_the_command_is_as_a_shell_takes_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/richlearn", "show", "unbalanced(tau=0.1, delta=1)"])
    assert environment.command() == "richlearn show 'unbalanced(tau=0.1, delta=1)'"


def test_the_commit_of_an_installed_package_is_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "a" / "b" / "environment.py"))
    assert environment.commit.__wrapped__() == ""


def test_a_checkout_without_git_has_no_commit(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "a" / "b" / "environment.py"))
    monkeypatch.setenv("PATH", "")
    assert environment.commit.__wrapped__() == ""
