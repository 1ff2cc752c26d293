"""The plan: a pure function of the protocol and of what is recorded."""

import pandas as pd
import pytest
from tiny_runs import SCHEME, SEARCHED, tiny

from richlearn import catalog
from richlearn.bench.content import canonical_json, content_hash
from richlearn.bench.plan import Plan, Selection, make_plan
from richlearn.bench.trials import TrialMaker, rows_of
from richlearn.errors import UsageError


def table(batches, protocol=None, **columns) -> pd.DataFrame:
    """The trials table after `batches` are recorded."""
    protocol = protocol or tiny()
    return pd.DataFrame(
        [
            {
                "trial": trial.hash,
                "protocol_hash": protocol.hash,
                "role": trial.role,
                "scheme": trial.row.name,
                "parameters": canonical_json(trial.row.parameters),
                "spec": trial.spec,
                "status": "finished",
                "test_loss": 1.0,
                **columns,
            }
            for batch in batches
            for trial in batch.trials
        ],
        columns=["trial", "protocol_hash", "role", "scheme", "parameters", "spec", "status", "test_loss"],
    )


def plan_of(*options, extra=(), done=(), failed=(), recorded=None, centres=lambda row: (0.1, None)) -> Plan:
    protocol = tiny(*options)
    recorded = table(done, protocol) if recorded is None else recorded
    return make_plan(TrialMaker(protocol), rows_of(protocol, extra), recorded, failed, centres)


def names(batches) -> list[str]:
    return [batch.hash for batch in batches]


def test_a_plan_is_always_the_same():
    assert content_hash(names(plan_of().batches))[:16] == "599ad628c0361d7b"
    assert content_hash(names(plan_of(SEARCHED).batches))[:16] == "4125204ebb266334"


def test_batches_are_done_missing_or_failed():
    first, second, *_ = plan_of().batches
    plan = plan_of(done=[first], failed=[second.hash[:16]])
    assert [item.state for item in plan.planned] == ["done", "failed", "missing", "missing"]
    assert names(plan.todo(retry_failed=False)) == names(plan.batches[2:])
    assert names(plan.todo(retry_failed=True)) == names(plan.batches[1:])


def test_a_batch_of_which_one_trial_is_missing_is_missing():
    plan = plan_of()
    assert plan_of(recorded=table(plan.batches).iloc[1:]).count("done") == 3


def test_a_failed_batch_that_was_done_since_is_done():
    batches = plan_of().batches
    assert plan_of(done=batches, failed=[batches[0].hash]).count("failed") == 0


def test_a_plan_does_not_depend_on_what_is_done():
    plan = plan_of()
    assert names(plan_of(done=plan.batches[1:3]).batches) == names(plan.batches)


def test_more_seeds_only_add_batches():
    plan = plan_of()
    more = plan_of("seeds=0-3", done=plan.batches)
    assert names(more.batches)[:4] == names(plan.batches)
    assert (more.count("done"), more.count("missing")) == (4, 4)


def test_an_added_scheme_only_adds_batches_at_the_end():
    plan = plan_of()
    more = plan_of(extra=["kaiming"], done=plan.batches)
    assert names(more.batches)[:4] == names(plan.batches)
    assert [[trial.row.name for trial in batch.trials] for batch in more.todo(retry_failed=False)] == [["kaiming"]] * 2


def test_trials_recorded_in_another_batch_are_done():
    batches = plan_of("training.stack=2").batches
    assert plan_of(recorded=table(batches)).count("done") == 4


def test_scored_trials_wait_for_the_search():
    plan = plan_of(SEARCHED)
    assert {batch.role for batch in plan.batches} == {"search"}
    assert (len(plan.trials), plan.after_search) == (5 * 3 * 2, 10)


def test_after_the_search_come_the_scored_trials_at_the_rates_found():
    plan = plan_of(SEARCHED, "search.max_extensions=0")
    after = plan_of(SEARCHED, "search.max_extensions=0", done=plan.batches)
    assert names(after.batches)[: len(plan.batches)] == names(plan.batches)
    assert {trial.lr for trial in after.trials if trial.role == "score"} == {0.0316}
    assert after.after_search == 0


def test_raised_numerics_make_records_stale_and_name_the_field(monkeypatch):
    before = plan_of().batches
    monkeypatch.setattr(catalog, "TRAINING_NUMERICS", 7)
    plan = plan_of(done=before)
    assert plan.count("missing") == 4
    assert plan.stale[0] == "standard: 2 recorded trial(s) are stale: `numerics.training` is 1 there, 7 here"
    assert len(plan.stale) == 5


def test_a_users_changed_file_makes_its_records_stale(tmp_path):
    (path := tmp_path / "mine.py").write_text(SCHEME)
    before = plan_of(extra=[f"{path}:Mine"]).batches
    path.write_text(SCHEME + "\n")
    plan = plan_of(extra=[f"{path}:Mine"], done=before)
    assert [line.partition(": ")[2][:51] for line in plan.stale] == ["2 recorded trial(s) are stale: `numerics.scheme` is"]


def test_records_of_other_seeds_and_schemes_are_not_stale():
    recorded = table(plan_of("seeds=0-3", extra=["kaiming"]).batches)
    assert plan_of(recorded=recorded).stale == []


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_shards_share_the_batches_out(count):
    batches = plan_of("seeds=0-3").batches
    parts = [Selection(shard=f"{index}/{count}")(batches) for index in range(1, count + 1)]
    assert sorted(name for part in parts for name in names(part)) == sorted(names(batches))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["seed=1"], [2, 3]),
        (["scheme=standard"], [1, 3]),
        (["scheme=standard", "seed=0"], [1]),
        (["tau=0.5"], [0, 2]),
        (["tau=1", "delta=-1.0"], [0, 2]),
        (["tau=0.5", "scheme=standard"], []),
    ],
)
def test_only_selects_whole_batches_with_a_trial_that_matches_all(only, chosen):
    batches = plan_of().batches
    assert names(Selection(tuple(only))(batches)) == [batches[index].hash for index in chosen]


@pytest.mark.parametrize(
    ("only", "text"),
    [
        ("tua=1", "`--only tua=…`: no such key; did you mean `tau`"),
        ("scheme=standrad", "no trial has this value; did you mean `standard`"),
        ("seed=7", "`--only seed=7`: no trial has this value; valid: 0, 1"),
        ("tau=None", "`--only tau=None`: no trial has this value"),
    ],
)
def test_only_must_name_something_there_is(only, text):
    with pytest.raises(UsageError, match=text):
        Selection((only,)).check(tiny().cells(), [0, 1])


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_a_shard_is_one_of_n(shard):
    with pytest.raises(UsageError, match=rf"`--shard {shard}`: expected i/n with 1 ≤ i ≤ n"):
        Selection(shard=shard)


def test_only_is_a_key_and_a_value():
    with pytest.raises(UsageError, match="`--only tau`: expected key=value"):
        Selection(("tau",))
