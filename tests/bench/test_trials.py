"""Trials and batches: what their hashes see, and how trials are cut into batches."""

import json

import pytest
from tiny_runs import SCHEME, tiny

from richlearn import catalog
from richlearn.bench.rows import SchemeRow
from richlearn.bench.trials import TrialMaker, rows_of
from richlearn.errors import ParameterError, UsageError

STANDARD = SchemeRow("standard", {})


def trial(*options: str, strategy: str = "auto", devices: int = 1):
    return TrialMaker(tiny(*options), strategy, devices).trial(STANDARD, 0)


@pytest.mark.parametrize(
    "option",
    ["name=other", "summary=text", "figure=9z", "figures=[curves]", "seeds=0-9", "schemes=[{name: standard}]", "training.stack=2"],
)
def test_the_hash_leaves_out_what_decides_no_number(option):
    assert trial(option).hash == trial().hash


@pytest.mark.parametrize(
    "option",
    [
        "training.steps=31",
        "training.precision=64-true",
        "training.compile=true",
        "training.threads=2",
        "optimizer.lr=0.06",
        "optimizer.momentum=0.9",
        "task.parameters.train_size=17",
        "network.parameters.width=6",
        "measure.probe=9",
        "goal.sustained=2",
        "regime.kernel=0.2",
    ],
)
def test_the_hash_sees_what_decides_a_number(option):
    assert trial(option).hash != trial().hash


def test_the_hash_sees_seed_and_rate_but_not_the_role():
    maker = TrialMaker(tiny())
    trials = [maker.trial(STANDARD, 0), maker.trial(STANDARD, 1), maker.trial(STANDARD, 0, 0.1), maker.trial(STANDARD, 0, role="search")]
    assert len({each.hash for each in trials}) == 3
    assert trials[0].hash == trials[3].hash


def test_the_number_of_ranks_counts_only_where_it_decides_rounding():
    assert trial(devices=2).hash == trial().hash
    assert len({trial(strategy="ddp", devices=count).hash for count in (1, 2)} | {trial().hash}) == 3


@pytest.mark.parametrize("part", ["TRAINING_NUMERICS", "MEASURING_NUMERICS"])
def test_raised_numerics_change_the_hash(part, monkeypatch):
    before = trial().hash
    monkeypatch.setattr(catalog, part, getattr(catalog, part) + 1)
    assert trial().hash != before


def test_a_users_scheme_is_known_by_its_bytes(tmp_path):
    row = SchemeRow(f"{tmp_path}/mine.py:Mine", {})
    hashes = []
    for text in (SCHEME, SCHEME, SCHEME + "\n"):
        (tmp_path / "mine.py").write_text(text)
        hashes.append(TrialMaker(tiny()).trial(row, 0).hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_spec_is_all_that_is_needed():
    spec = json.loads(trial().spec)
    assert sorted(spec) == ["goal", "lr", "measure", "network", "numerics", "optimizer", "regime", "scheme", "seed", "task", "training"]
    assert spec["numerics"] == {"measuring": 2, "network": 1, "scheme": 1, "task": 1, "training": 1}


def test_hashes_are_the_same_on_every_machine_and_in_every_version():
    maker = TrialMaker(tiny())
    batch = maker.batches(maker.trial(row, 0) for row in tiny().cells())[0]
    assert (trial().hash[:16], batch.hash[:16]) == ("6279ec1d09c4b958", "696d431eee980a79")


def test_a_batch_is_of_one_seed_and_at_most_a_stack_in_the_protocols_order():
    maker = TrialMaker(tiny())
    batches = maker.batches(maker.trial(row, seed) for seed in (0, 1) for row in tiny().cells())
    assert [(batch.seed, len(batch.trials)) for batch in batches] == [(0, 3), (0, 2), (1, 3), (1, 2)]
    assert [t.row for batch in batches[:2] for t in batch.trials] == tiny().cells()
    assert all(batch.stacked for batch in batches)


@pytest.mark.parametrize(("options", "strategy"), [(["training.stack=1"], "auto"), ([], "ddp")])
def test_networks_train_one_by_one_without_a_stack_and_under_ddp(options, strategy):
    maker = TrialMaker(tiny(*options), strategy)
    assert not any(batch.stacked for batch in maker.batches([maker.trial(STANDARD, 0)]))


def test_the_hash_of_a_batch_sees_members_their_order_and_the_stack():
    maker = TrialMaker(tiny())
    one, two = (maker.trial(row, 0) for row in tiny().cells()[:2])
    single = TrialMaker(tiny("training.stack=1")).batches([one])
    batches = [maker.batches(each)[0] for each in ([one, two], [two, one], [one])] + single
    assert len({batch.hash for batch in batches}) == 4


def test_the_rate_follows_tau_where_the_rule_says_so():
    maker = TrialMaker(tiny("optimizer.lr_rule=inverse_tau_squared"))
    assert maker.lr(SchemeRow("unbalanced", {"tau": 0.5})) == 0.05 / 0.25
    assert maker.lr(STANDARD) == 0.05


@pytest.mark.parametrize("tau", [0, 1e-200, "half", None])
def test_a_tau_without_a_rate_is_refused(tau):
    maker = TrialMaker(tiny("optimizer.lr_rule=inverse_tau_squared"))
    with pytest.raises(ParameterError, match=r"gives no learning rate for `tau` = .*; expected a number away from 0"):
        maker.lr(SchemeRow("unbalanced", {"tau": tau}))


def test_each_added_scheme_is_a_group_of_its_own_after_the_protocols():
    groups = rows_of(tiny(), ["kaiming", "xavier"])
    assert [len(group) for group in groups] == [5, 1, 1]
    assert groups[1] == [SchemeRow("kaiming", {})]


@pytest.mark.parametrize(
    ("extra", "text"),
    [(["standard"], "already a row of `tiny`"), (["kaiming", "kaiming"], "already a row"), (["kaimin"], "did you mean `kaiming`")],
)
def test_an_added_scheme_must_be_known_and_new(extra, text):
    with pytest.raises(UsageError, match=text):
        rows_of(tiny(), extra)
