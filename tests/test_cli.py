"""The command line: output, exit codes, and one clear line for whatever is wrong."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from tiny_runs import SCHEME, SEARCHED, TINY, command, contents, exit_code, forked, fragile_scheme, main_with, timeless, tiny_file


@pytest.fixture
def file(tmp_path):
    return tiny_file(tmp_path)


@pytest.fixture
def copy(finished, tmp_path):
    """A run that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def refused(*arguments) -> str:
    """What the command says when it refuses with exit code 2."""
    code, _, err = main_with(*arguments)
    assert code == 2, err
    assert "Traceback" not in err
    return err


def printed_by(*arguments):
    """What the command prints as JSON."""
    code, out, err = main_with(*arguments)
    assert code == 0, err
    return json.loads(out)


# ---- list ------------------------------------------------------------------------------------------------------------


def test_list_shows_every_kind_with_meaning_and_figure():
    _, out, _ = main_with("list")
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "benchmarks:",
        "schemes:",
        "tasks:",
        "networks:",
        "metrics:",
        "predictions:",
    ]
    assert re.search(r"  unbalanced +two-layer, symmetrised.* \(figure 1b\)", out)


def test_list_of_one_kind_as_json():
    found = printed_by("list", "networks", "--json")
    assert sorted(found["networks"]) == ["linear", "mlp", "transformer", "two_layer"]
    assert set(found["networks"]["mlp"]) == {"summary", "figure"}


# ---- bad requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "quik"], "unknown benchmark `quik`; did you mean `quick`?"),
        (["plan", "nothing.yaml"], "there is no protocol file `nothing.yaml`"),
        (["plan", "quick", "--scheme", "kaimin"], "unknown scheme `kaimin`; did you mean `kaiming`?"),
        (["plan", "quick", "--scheme", "none.py:Mine"], "scheme file `none.py` does not exist"),
        (["plan", "quick", "--network", "mpl"], "unknown network `mpl`; did you mean `mlp`?"),
        (["plan", "quick", "--set", "training.stesp=5"], "did you mean `steps`"),
        (["plan", "quick", "--set", "training.steps"], "--set training.steps: expected key=value"),
        (["plan", "quick", "--precision", "16"], "precision"),
        (["plan", "quick", "--seeds", "3-1"], "expected ranges that rise"),
        (["plan", "quick", "--only", "tua=1"], "`--only tua=…`: no such key; did you mean `tau`?"),
        (["plan", "quick", "--only", "tau"], "`--only tau`: expected key=value"),
        (["plan", "quick", "--shard", "3/2"], "`--shard 3/2`: expected i/n"),
        (["plan", "quick", "--strategy", "ddp"], "`--strategy ddp` needs `--devices N`"),
        (["list", "scheme"], "unknown kind `scheme`; did you mean `schemes`?"),
        (["check", "schema", "standard"], "unknown kind `schema`; did you mean `scheme`?"),
        (["check", "scheme", "standrad"], "did you mean `standard`?"),
        (["leaderboard", "quik"], "did you mean `quick`?"),
        (["leaderboard", "quick", "--out", "/nothing/here"], "holds no run"),
        (["plot", "quick", "--out", "/nothing/here"], "holds no run"),
        (["show", "standard", "--out", "/nothing/here"], "in no run folder; run a benchmark first"),
        (["rnu", "quick"], "No such command"),
        (["plan", "quick", "--sed", "1"], "No such option"),
    ],
)
def test_a_bad_request_is_told_in_one_line(arguments, text):
    assert text in refused(*arguments)


def test_typos_in_a_protocol_come_all_at_once_with_their_places(tmp_path):
    text = TINY.replace("steps: 30", "stesp: 30").replace("name: two_layer", "name: two_layr").replace("lr: 0.05", "lr: fast")
    lines = [line for line in refused("run", tiny_file(tmp_path, text), "--out", tmp_path / "run").splitlines() if ".yaml:" in line]
    assert all(re.match(rf"error: {re.escape(str(tmp_path))}/tiny\.yaml:\d+:\d+: ", line) for line in lines)
    assert {int(line.split(":")[2]) for line in lines} == {4, 9, 10}
    assert "did you mean `two_layer`" in "".join(lines)
    assert not (tmp_path / "run").exists()


def test_arguments_of_components_are_checked_by_the_plan(tmp_path):
    err = refused("plan", tiny_file(tmp_path, TINY.replace("tau: [0.5, 1.0]", "tau: [-0.5, 1.0]")))
    assert re.search(r"tiny\.yaml:6:5: .*`tau` must be positive, got -0\.5", err)


def test_syntax_errors_have_their_place(tmp_path):
    assert re.search(r"tiny\.yaml:\d+:\d+: ", refused("plan", tiny_file(tmp_path, "name: [tiny\n")))


def test_another_protocols_folder_is_refused_naming_the_field(file, copy):
    err = refused("run", file, "--set", "training.steps=31", "--out", copy)
    assert "holds another protocol: `training.steps` is 30 there, 31 here" in err


def test_a_folder_that_cannot_be_written_is_refused_before_training():
    with tempfile.TemporaryDirectory() as name:  # another user can reach it, unlike pytest's own
        (folder := Path(name)).chmod(0o755)
        (out := folder / "run").mkdir(mode=0o555)
        child = forked("run", tiny_file(folder), "--devices", "1", "--out", out, user=65534)  # root ignores modes
        assert exit_code(child) == 2
        said = (out / "said.txt").read_text()
    assert re.search(r"error: folder `.*` cannot be written: Permission denied \(EACCES\).*; choose another one with --out", said)


# ---- plan ------------------------------------------------------------------------------------------------------------


def test_a_plan_counts_what_is_done_and_missing(file, finished):
    found = printed_by("plan", file, "--seeds", "0-2", "--out", finished, "--json")
    assert {key: found[key] for key in ("trials", "batches", "done", "missing", "failed", "after_search", "to_train_now")} == {
        "trials": 15, "batches": 6, "done": 4, "missing": 2, "failed": 0, "after_search": 0, "to_train_now": 5,
    }  # fmt: skip
    assert [batch["state"] for batch in found["batch_list"]] == ["done"] * 4 + ["missing"] * 2


def test_a_plan_writes_nothing(file, tmp_path):
    _, out, _ = main_with("plan", file, "--out", tmp_path / "run")
    assert "tiny: 10 trials in 4 batches (at most 30 updates each)" in out
    assert "done 0, missing 4, failed 0; 0 scored trials after search" in out
    assert not (tmp_path / "run").exists()


def test_a_plan_tells_what_is_stale(file, finished, monkeypatch):
    monkeypatch.setattr("richlearn.catalog.TRAINING_NUMERICS", 2)
    _, out, _ = main_with("plan", file, "--out", finished)
    assert "  stale: standard: 2 recorded trial(s) are stale: `numerics.training` is 1 there, 2 here" in out


def test_a_plan_of_a_damaged_folder_notes_it_and_changes_nothing(file, copy):
    path = min((copy / "records").glob("*/digest.json"))
    path.write_text("{}")
    code, out, err = main_with("plan", file, "--out", copy)
    assert (code, "done 3, missing 1" in out) == (0, True)
    assert "note: record" in err
    assert path.exists()


# ---- run -------------------------------------------------------------------------------------------------------------


def test_a_run_with_nothing_to_do_says_what_there_is(file, copy, finished):
    (copy / "tensorboard").mkdir(exist_ok=True)
    code, out, _ = main_with("run", file, "--out", copy)
    assert code == 0
    assert f"leaderboard: {copy}/leaderboard.csv" in out
    assert contents(copy) == contents(finished)


def test_quiet_says_nothing(file, copy):
    assert main_with("run", file, "-q", "--out", copy) == (0, "", "")


def test_a_run_without_a_terminal_tells_a_line_a_batch(file, tmp_path):
    code, _, err = main_with("run", file, "--devices", "1", "--seeds", "0", "--out", tmp_path / "run")
    assert code == 0
    assert err.splitlines()[:3] == [
        "tiny: 5 trials in 2 batches to train (0 batches done)",
        "batch 1/2 (seed 0, 3 networks): written",
        "batch 2/2 (seed 0, 2 networks): written",
    ]


def test_a_failed_batch_gives_exit_code_1_and_names_its_log(file, tmp_path):
    arguments = ["run", file, "--devices", "1", "--scheme", fragile_scheme(tmp_path, 0), "--out", tmp_path / "run"]
    code, _, err = main_with(*arguments)
    assert code == 1
    assert "batch 5/6 (seed 0, 1 networks) FAILED: RuntimeError: the seed of misfortune" in err
    assert re.search(
        r"error: 1 of the batches failed:\nerror: seed 0, 1 networks: RuntimeError: [^\n]*\(log: .*/failures/[0-9a-f]{16}\.log\)", err
    )
    assert main_with(*arguments, "-q")[0] == 1


def test_shards_in_any_order_give_one_leaderboard(file, finished, tmp_path):
    for shard in ("2/2", "1/2"):
        assert main_with("run", file, "-q", "--devices", "1", "--shard", shard, "--out", tmp_path / "run")[0] == 0
    assert timeless(tmp_path / "run").equals(timeless(finished))


def test_a_shard_of_a_search_waits_for_the_others(file, tmp_path):
    code, out, err = main_with(
        "run", file, "--set", SEARCHED, "--seeds", "0", "--devices", "1", "--shard", "1/2", "--out", tmp_path / "run"
    )
    assert code == 0, err
    assert "scored trials wait for the search, which other shards or failed batches hold up; run again then" in err
    assert set(timeless(tmp_path / "run")["value"]) == {"not run"}
    assert "pictures" not in out


def test_the_commands_that_made_it_stand_in_the_records(file, tmp_path):
    main_with("run", file, "-q", "--devices", "1", "--seeds", "0", "--out", tmp_path / "run")
    (path, _) = (tmp_path / "run" / "records").glob("*/environment.json")
    assert json.loads(path.read_text())["command"] == f"richlearn run {file} -q --devices 1 --seeds 0 --out {tmp_path}/run"


@pytest.mark.slow
def test_the_smoke_run_of_quick_walks_the_whole_path(tmp_path):
    found = command("run", "quick", "--smoke", "--devices", "1", "--out", tmp_path)
    assert found.returncode == 0, found.stderr
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["curves.png", "phase_portrait.png"]
    assert len(timeless(tmp_path)) == 2 * 4


# ---- results ---------------------------------------------------------------------------------------------------------


def test_the_leaderboard_is_printed_and_rewritten(file, copy):
    before = (copy / "leaderboard.csv").read_bytes()
    (copy / "leaderboard.csv").unlink()
    code, out, _ = main_with("leaderboard", file, "--out", copy)
    assert (code, "unbalanced" in out) == (0, True)
    assert (copy / "leaderboard.csv").read_bytes() == before


def test_the_leaderboard_as_json_holds_every_row(file, copy):
    rows = printed_by("leaderboard", file, "--out", copy, "--json")
    assert [row["rank"] for row in rows[:5]] == [1, 2, 3, 4, 5]
    assert {row["scheme"] for row in rows} == {"standard", "unbalanced"}


def test_a_tampered_leaderboard_is_found_and_left_alone(file, copy):
    path = copy / "leaderboard.csv"
    assert main_with("leaderboard", file, "--out", copy, "--check")[0] == 0
    path.write_text(path.read_text().replace("standard", "kaiming"))
    before = path.read_bytes()
    assert "is not what its records give" in refused("leaderboard", file, "--out", copy, "--check")
    assert path.read_bytes() == before


def test_a_damaged_record_is_noted_by_the_leaderboard(file, copy):
    min((copy / "records").glob("*/digest.json")).write_text("{}")
    _, _, err = main_with("leaderboard", file, "--out", copy)
    assert "note: record" in err


def test_plot_draws_and_writes_tensorboard(file, copy):
    code, out, _ = main_with("plot", file, "--out", copy)
    assert (code, out) == (0, f"tensorboard --logdir {copy}/tensorboard\n")
    assert any((copy / "tensorboard" / "cells").iterdir())


def test_show_by_row_and_by_hash(finished):
    by_row = printed_by("show", "standard", "--out", finished, "--json")
    (by_hash,) = printed_by("show", by_row[0]["trial"][:6], "--out", finished, "--json")
    assert [trial["seed"] for trial in by_row] == [0, 1]
    assert by_hash["curve"][0]["step"] == 0


def test_show_as_text_tells_trial_spec_environment_and_curve(finished):
    name = printed_by("show", "standard", "--out", finished, "--json")[0]["trial"]
    _, out, _ = main_with("show", name, "--out", finished)
    assert out.startswith(f"trial {name}\n")
    assert all(text in out for text in ("  protocol_hash: ", "  numerics: ", "  command: ", "  step=30  train_loss="))


# ---- check -----------------------------------------------------------------------------------------------------------


def test_a_good_scheme_keeps_the_contract(tmp_path):
    (path := tmp_path / "mine.py").write_text(SCHEME)
    assert main_with("check", "scheme", f"{path}:Mine") == (0, f"{path}:Mine: keeps the scheme contract\n", "")


def test_a_bad_scheme_gets_its_findings(tmp_path):
    (path := tmp_path / "mine.py").write_text(SCHEME.replace("generator=generator, ", ""))
    err = refused("check", "scheme", f"{path}:Mine")
    assert "torch's global random stream has moved: draw from `generator` only" in err


def test_a_network_of_the_suite_keeps_the_contract():
    assert main_with("check", "network", "two_layer")[:2] == (0, "two_layer: keeps the network contract\n")


def test_a_bad_network_gets_its_findings(tmp_path):
    text = "import torch\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        return super().forward(x) + torch.rand(1)\n"
    (path := tmp_path / "net.py").write_text(text)
    assert "two calls on the same inputs differ" in refused("check", "network", f"{path}:Net")
