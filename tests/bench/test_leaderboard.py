"""The leaderboard: what each cell says, whatever the records hold, and the file that it becomes."""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from richlearn.bench import leaderboard, scores, tables
from richlearn.bench.columns import COLUMNS, NAMES, as_text
from richlearn.bench.content import canonical_json
from richlearn.bench.scores import LOSSES, Score
from richlearn.errors import RecordError, StorageError, UsageError


def row_of(name, **parameters):
    return SimpleNamespace(name=name, parameters=parameters, label=name)


def protocol_of(cells, seeds=10, baseline=None, scores=("test_loss", "steps_to_goal")):
    return SimpleNamespace(
        name="tiny",
        hash="ab" * 32,
        cells=lambda: list(cells),
        seeds=tuple(range(seeds)),
        scores=scores,
        baseline=baseline,
        budget=lambda: 20000,
        train_sizes=(),
        network=SimpleNamespace(name="two_layer"),
        task=SimpleNamespace(name="teacher_student"),
    )


def trials_of(cell, losses, reached=(), **columns):
    """One finished trial a loss, seeds 0, 1, …; each reaches its goal at `reached`, None: not."""
    n = len(losses)
    table = {
        "trial": [f"{cell.name}{canonical_json(cell.parameters)}{seed}{columns.get('role', '')}" for seed in range(n)],
        "batch": [f"b{seed}" for seed in range(n)],
        "role": "score",
        "seed": range(n),
        "scheme": cell.name,
        "parameters": canonical_json(cell.parameters),
        "lr": 0.005,
        "steps": 20000,
        "precision": "32-true",
        "status": "finished",
        "zero_loss": 1.0,
        "test_loss": losses,
        "sustained_reached": list(reached) or [None] * n,
        "measured_at": 20000,
        "kernel_distance": 0.5,
        "regime": "rich",
    }
    frame = pd.DataFrame({**table, **columns})
    return tables.to_frame(tables.to_arrow(frame, tables.TRIALS))


def environments_of(n=10, **columns):
    table = {"richlearn": "0.1.0", "torch": "2.15", "lightning": "2.6.6", "commit": "abc", "device": "cpu", "date": "2026-01-02T03:04:05"}
    table |= {"wall_seconds": 12.0, "members": 4, **columns}
    return pd.DataFrame(table, index=pd.Index([f"b{i}" for i in range(n)], name="batch"))


A, B, C = row_of("standard"), row_of("unbalanced", tau=0.1, delta=1.0), row_of("lsuv")


def built(cells, trials, **options):
    frame = leaderboard.build(protocol_of(cells, **options), pd.concat(trials), environments_of())
    return frame.set_index(["score", "scheme"], drop=False)


def test_a_row_by_hand():
    frame = built([A, B], [trials_of(A, [0.1] * 10, [300] * 10), trials_of(B, [0.01] * 10, range(100, 1100, 100))])
    loss, steps = frame.loc[("test_loss", "unbalanced")], frame.loc[("steps_to_goal", "unbalanced")]
    assert loss["value"] == pytest.approx(0.01)
    assert (loss["rank"], loss["seeds"], loss["failed"], loss["unit"], loss["better"]) == (1, "10", 0, "MSE", "lower")
    assert (steps["value"], steps["ci_low"], steps["ci_high"], steps["reached"]) == (550, 200, 900, 1.0)
    assert (loss["regime"], loss["kernel_distance"], loss["measured_at"]) == ("rich 100%", 0.5, 20000)
    assert loss["parameters"] == '{"delta":1.0,"tau":0.1}'


def test_every_column_in_its_order():
    assert tuple(built([A], [trials_of(A, [0.1] * 10)]).columns) == NAMES


def test_ranks_follow_the_value_and_ties_share():
    frame = built([A, B, C], [trials_of(A, [0.2] * 10), trials_of(B, [0.1] * 10), trials_of(C, [0.2] * 10)])
    assert frame.loc["test_loss"]["rank"].to_dict() == {"unbalanced": 1, "standard": 2, "lsuv": 2}
    assert list(frame["scheme"][:3]) == ["unbalanced", "standard", "lsuv"]


def test_a_score_may_be_better_when_higher(monkeypatch):
    higher = Score("accuracy", "share", "higher", LOSSES, scores.column("test_loss"))
    monkeypatch.setitem(scores.SCORES, "accuracy", higher)
    frame = built([A, B], [trials_of(A, [0.9] * 10), trials_of(B, [0.8] * 10)], scores=("accuracy",))
    assert frame["rank"].tolist() == [1, 2]
    assert frame["scheme"].tolist() == ["standard", "unbalanced"]


def test_a_censored_median_says_beyond_the_budget():
    row = built([A], [trials_of(A, [0.5] * 5, [100, 200, None, None, None])], seeds=5).loc[("steps_to_goal", "standard")]
    assert (row["value"], row["ci_low"], row["ci_high"]) == ("> 20000", 100, "> 20000")
    assert (row["reached"], row["ci_level"]) == (0.4, 0.9375)


def test_a_diverged_seed_is_censored_even_if_it_had_reached():
    status = ["finished"] * 4 + ["diverged"]
    row = built([A], [trials_of(A, [0.5] * 5, [100] * 5, status=status)], seeds=5).loc[("steps_to_goal", "standard")]
    assert (row["reached"], row["failed"], row["regime"]) == (0.8, 1, "rich 80%")


def test_a_diverged_seed_counts_as_the_worst_loss():
    diverged = trials_of(A, [0.1, 0.1, math.nan], status=["finished", "finished", "diverged"])
    row = built([A, B], [diverged, trials_of(B, [0.2, 0.2, 8.0])], seeds=3).loc[("test_loss", "standard")]
    assert float(row["value"].removeprefix("> ")) == pytest.approx((0.1 * 0.1 * 8.0) ** (1 / 3), rel=1e-5)
    assert (row["failed"], row["ci_low"], row["ci_level"]) == (1, None, None)


def test_the_worst_loss_is_at_least_the_zero_predictors():
    row = built([A], [trials_of(A, [math.nan] * 3, status="diverged", zero_loss=0.25)], seeds=3).loc[("test_loss", "standard")]
    assert (row["value"], row["rank"], row["regime"]) == ("> 0.25", 1, "diverged 100%")


def test_a_row_that_a_scheme_cannot_serve_has_its_reason_and_no_rank():
    refused = trials_of(C, [math.nan] * 10, status="not_applicable", reason="`lsuv` needs a batch", regime=None)
    row = built([A, C], [trials_of(A, [0.1] * 10), refused]).loc[("test_loss", "lsuv")]
    assert row["value"] == "not applicable: `lsuv` needs a batch"
    assert row[["rank", "seeds", "failed", "regime", "p_value"]].tolist() == [None] * 5


def test_blank_nan_and_not_run_are_told_apart():
    frame = built([A, B, C], [trials_of(A, [0.1] * 10), trials_of(B, [math.nan] * 10)])
    assert [as_text(frame.loc[("test_loss", name), "value"]) for name in ("standard", "unbalanced", "lsuv")] == ["0.1", "nan", "not run"]
    assert as_text(frame.loc[("test_loss", "standard"), "hamming_distance"]) == ""


def test_partial_rows_are_marked():
    frame = built([A, B], [trials_of(A, [0.1] * 3)])
    assert frame.loc[("test_loss", "standard"), "seeds"] == "3/10"
    assert frame.loc[("test_loss", "unbalanced"), "seeds"] == "0/10"


def test_seeds_that_the_protocol_does_not_ask_for_are_left_out():
    row = built([A], [trials_of(A, [0.1, 0.1, 9.0])], seeds=2).loc[("test_loss", "standard")]
    assert row["value"] == pytest.approx(0.1)


def test_of_repeated_trials_the_smallest_batch_counts():
    later = trials_of(A, [0.9] * 10, batch="z")
    row = built([A], [later, trials_of(A, [0.1] * 10)]).loc[("test_loss", "standard")]
    assert row["value"] == pytest.approx(0.1)


def test_p_values_are_holms_over_the_other_rows():
    noise = np.exp(np.linspace(-0.1, 0.1, 10))
    trials = [trials_of(A, 0.2 * noise), trials_of(B, 0.1 * noise), trials_of(C, [0.2] * 10)]
    frame = built([A, B, C], trials, baseline="standard")
    found = frame.loc["test_loss"]["p_value"].to_dict()
    assert found["unbalanced"] == pytest.approx(2 * 2 / 2**10)
    assert found["lsuv"] == 1.0
    assert found["standard"] is None


def test_too_few_seeds_cannot_decide():
    frame = built([A, B], [trials_of(A, [0.2] * 5), trials_of(B, [0.1] * 5)], baseline="standard", seeds=5)
    assert frame.loc[("test_loss", "unbalanced"), "p_value"] == "n/a"


def test_rows_not_yet_run_count_in_the_correction():
    frame = built([A, B, C], [trials_of(A, [0.2] * 10), trials_of(B, [0.1] * 10)], baseline="standard")
    assert frame.loc[("test_loss", "unbalanced"), "p_value"] == pytest.approx(2 * 2 / 2**10)
    assert frame.loc[("test_loss", "lsuv"), "p_value"] is None


def test_grids_without_a_baseline_have_no_p_values():
    assert built([A, B], [trials_of(A, [0.2] * 10), trials_of(B, [0.1] * 10)])["p_value"].isna().all()


def test_times_are_compared_within_the_budget():
    early, late = trials_of(A, [0.1] * 10, [100] * 10), trials_of(B, [0.1] * 10, [None] * 10)
    frame = built([A, B], [early, late], baseline="standard")
    assert frame.loc[("steps_to_goal", "unbalanced"), "p_value"] == pytest.approx(2 / 2**10)


def test_the_search_is_only_a_cost():
    searched = trials_of(A, [1e-9] * 3, role="search", steps=500)
    row = built([A], [trials_of(A, [0.1] * 10), searched]).loc[("test_loss", "standard")]
    assert (row["search_steps"], row["value"]) == (1500, pytest.approx(0.1))


def test_unlike_environments_show_every_value():
    environments = environments_of(device=["cpu"] * 9 + ["cuda H200"], date=[f"2026-01-{day:02}T00:00:00" for day in range(1, 11)])
    row = leaderboard.build(protocol_of([A]), trials_of(A, [0.1] * 10), environments).iloc[0]
    assert (row["device"], row["date"]) == ("cpu | cuda H200", "2026-01-10T00:00:00")
    assert row["wall_seconds"] == pytest.approx(10 * 12.0 / 4)


def test_an_unknown_score_is_refused():
    with pytest.raises(UsageError, match="unknown score `test_los`; did you mean `test_loss`"):
        built([A], [trials_of(A, [0.1])], scores=("test_los",))


def test_a_score_has_one_of_two_directions():
    with pytest.raises(ValueError, match="`better` of score `x` is lower or higher; got `up`"):
        Score("x", "", "up", LOSSES, scores.column("test_loss"))  # pyright: ignore[reportArgumentType]


# ---- the file


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    trials = [trials_of(cell, rng.lognormal(size=10), [*range(9), None]) for cell in (A, B)]
    refused = trials_of(C, [math.nan] * 10, status="not_applicable", reason='=HYPERLINK(1)\n,"two"', regime=None)
    return protocol_of([A, B, C], baseline="standard"), pd.concat([*trials, refused])


def test_the_same_bytes_from_the_same_records_in_any_order(table, tmp_path):
    protocol, trials = table
    for seed, name in enumerate(("a.csv", "b.csv")):
        shuffled = trials.sample(frac=1, random_state=seed)
        leaderboard.write(leaderboard.build(protocol, shuffled, environments_of().sample(frac=1, random_state=seed)), tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()


def test_what_is_written_reads_back_valid(table, tmp_path):
    frame = leaderboard.build(*table, environments_of())
    leaderboard.write(frame, tmp_path / "x.csv")
    assert leaderboard.validate(tmp_path / "x.csv") == []
    found = leaderboard.read(tmp_path / "x.csv")
    assert found.to_dict("records") == [{name: as_text(cell) for name, cell in row.items()} for row in frame.to_dict("records")]
    assert os.listdir(tmp_path) == ["x.csv"]


def test_an_empty_set_of_records_makes_a_leaderboard_of_rows_not_run(table, tmp_path):
    protocol, trials = table
    leaderboard.write(leaderboard.build(protocol, trials.iloc[:0], environments_of(0)), tmp_path / "x.csv")
    assert set(leaderboard.read(tmp_path / "x.csv")["value"]) == {"not run"}


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_spreadsheet_formula(text):
    assert as_text(text) == "'" + text.strip()


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("rank", "0", "`rank`: expected a whole number from 1 or blank; got `0`"),
        ("value", "", "`value`: expected a number, .*; it is blank"),
        ("value", "soon", "`value`: expected a number, `> number`, nan, `not run`"),
        ("value", "99", "`value`: expected a number between `ci_low` .* and `ci_high` .*; got `99`"),
        ("rank", "", "`rank`: expected one exactly where `value` is a number; got `` beside"),
        ("p_value", "1.5", "`p_value`: expected a number in \\[0, 1\\] or `n/a` or blank; got `1.5`"),
        ("seeds", "ten", "`seeds`: expected `n` or `n/N` or blank"),
        ("parameters", "[1]", "`parameters`: expected a JSON object"),
        ("parameters", "{", "`parameters`: expected a JSON object"),
        ("commit", "=1", "`commit`: expected a text or blank; got `=1`"),
        ("lr", "0.1 | x", "`lr`: expected a number, or several"),
        ("kernel_distance", "1_0", "`kernel_distance`: expected a number in"),
        ("schema_version", "2", "`schema_version`: expected `1`; got `2`"),
        ("date", "yesterday", "`date`: expected an ISO date"),
    ],
)
def test_validation_names_line_and_column(table, tmp_path, column, text, message):
    leaderboard.write(leaderboard.build(*table, environments_of()), tmp_path / "x.csv")
    frame = leaderboard.read(tmp_path / "x.csv")
    frame.loc[0, column] = text
    frame.to_csv(tmp_path / "x.csv", index=False)
    (problem,) = leaderboard.validate(tmp_path / "x.csv")
    with pytest.raises(RecordError, match=r"leaderboard `.*x.csv`: line 2: "):
        leaderboard.read(tmp_path / "x.csv")
    assert pd.Series([problem]).str.match(f"line 2: {message}").all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "the file is empty"),
        (lambda text: text.replace("rank,", "place,", 1), "missing \\['rank'\\], unknown \\['place'\\]"),
        (lambda text: text + "1,2\n", f"line 8: expected {len(NAMES)} cells; got 2"),
        (lambda text: text + text.splitlines(keepends=True)[1], "line 8: expected one row for each cell and score; line 2 is the same"),
        (lambda text: text + 'a,"', "not a CSV table"),
    ],
)
def test_validation_of_the_table(table, tmp_path, damage, message):
    leaderboard.write(leaderboard.build(*table, environments_of()), path := tmp_path / "x.csv")
    path.write_text(damage(path.read_text()))
    assert pd.Series(leaderboard.validate(path)).str.contains(message).any()


def test_validation_of_what_is_no_text_or_no_file(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe")
    assert leaderboard.validate(tmp_path / "x.csv")[0].startswith("expected UTF-8 text")
    assert leaderboard.validate(tmp_path / "absent.csv") == ["cannot be read: No such file or directory"]


def test_a_wrong_cell_is_not_written(table, tmp_path):
    frame = leaderboard.build(*table, environments_of())
    frame.loc[0, "kernel_distance"] = 3.0
    with pytest.raises(RecordError, match=r"x.csv` is not written: line 2: `kernel_distance`: expected a number in \[0, 1\]"):
        leaderboard.write(frame, tmp_path / "x.csv")
    assert os.listdir(tmp_path) == []


def test_a_refused_write_keeps_the_old_file(table, tmp_path, monkeypatch):
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "x.csv" / "old").touch()
    with pytest.raises(StorageError, match=r"leaderboard `.*x.csv` cannot be written: .*; free space or choose another `--out`"):
        leaderboard.write(leaderboard.build(*table, environments_of()), tmp_path / "x.csv")
    assert os.listdir(tmp_path) == ["x.csv"]


def test_the_terminal_table(table):
    text = leaderboard.render(leaderboard.build(*table, environments_of()), rows=1)
    first, header, best, rest = text.split("\n\n")[0].splitlines()
    assert first == "tiny: test_loss (MSE, lower is better)"
    assert header.split()[:4] == ["rank", "scheme", "parameters", "value"]
    assert best.split()[0] == "1"
    assert rest == "(1 more, 1 not applicable)"


def test_every_column_is_documented():
    text = (Path(__file__).parents[2] / "leaderboards" / "README.md").read_text(encoding="utf-8")
    assert [column.name for column in COLUMNS if f"| `{column.name}` |" not in text] == []
