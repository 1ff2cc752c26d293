"""The record store on a healthy disk: what is written, what is read, what counts, and what is told."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from records_lab import curves_of, make, plan, snapshot, trials_of, written

from richlearn.bench.folder import RunFolder
from richlearn.bench.records import Record, RecordStore
from richlearn.bench.tables import CURVES, TRIALS
from richlearn.errors import RecordError, UsageError


def test_what_is_written_is_read(tmp_path):
    record = make(0)
    contents = written(tmp_path, record).read()
    expected = record.trials.sort_values("trial", ignore_index=True)
    pd.testing.assert_frame_equal(contents.trials[list(expected)], expected, check_dtype=False)
    assert list(contents.trials) == TRIALS.names
    assert contents.problems == []


def test_missing_integers_stay_integers(tmp_path):
    trials = written(tmp_path, make(0)).read().trials
    assert trials["first_reached"].dtype == "Int64"
    assert sorted(trials["first_reached"].fillna(-1)) == [-1, 100]


def test_environments_are_indexed_by_batch(tmp_path):
    environments = written(tmp_path, *plan(2)).read().environments
    assert environments.index.name == "batch"
    assert environments.loc[plan(2)[0].batch].to_dict() == {"host": "here", "wall_seconds": 1.5}


def test_curves_come_sorted_with_lists_kept(tmp_path):
    curves = written(tmp_path, *plan(2)).read().curves()
    assert list(curves) == CURVES.names
    assert len(curves) == 12
    assert curves[["trial", "step"]].apply(tuple, axis=1).is_monotonic_increasing
    assert curves["delta"][0].dtype == np.float32


def test_curves_of_chosen_trials_only(tmp_path):
    contents = written(tmp_path, *plan(2)).read()
    chosen = contents.trials["trial"][1]
    assert set(contents.curves([chosen])["trial"]) == {chosen}


def test_curves_of_an_unknown_trial(tmp_path):
    with pytest.raises(UsageError, match="trial `x` is not recorded in"):
        written(tmp_path, make(0)).read().curves(["x"])


def test_curves_that_changed_since_they_were_checked(tmp_path):
    contents = written(tmp_path, make(0)).read()
    (RunFolder(tmp_path).record(make(0).batch) / "curves.parquet").write_bytes(b"")
    with pytest.raises(RecordError, match=r"`curves.parquet` has changed since it was checked; read the records again"):
        contents.curves()


def test_an_empty_store_has_all_columns(tmp_path):
    contents = RecordStore(RunFolder(tmp_path / "absent")).read()
    assert (list(contents.trials), len(contents.environments), contents.problems) == (TRIALS.names, 0, [])
    assert list(contents.curves()) == CURVES.names


def test_a_record_may_have_no_curves(tmp_path):
    record = replace(make(0), curves=pd.DataFrame())
    assert len(written(tmp_path, record).read().curves()) == 0


def test_done_names_the_recorded_trials(tmp_path):
    assert written(tmp_path, make(0)).done() == set(make(0).trials["trial"])


def test_schema_version_and_units_are_in_the_files(tmp_path):
    written(tmp_path, make(0))
    schema = pq.read_schema(RunFolder(tmp_path).record(make(0).batch) / "trials.parquet")
    assert schema.metadata[b"version"] == b"1"
    assert schema.field("steps").metadata[b"unit"] == b"updates"


def test_equal_content_gives_equal_bytes(tmp_path):
    record = make(0, size=5)
    shuffled = replace(
        record, trials=record.trials[::-1], curves=record.curves.sample(frac=1, random_state=0), environment={"host": "there"}
    )
    written(tmp_path / "a", record)
    written(tmp_path / "b", shuffled)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_the_content_digest_leaves_the_environment_out(tmp_path):
    for name in ("a", "b"):
        written(tmp_path / name, replace(make(0), environment={"host": name}))
    digests = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("digest.json"))]
    assert digests[0]["content"] == digests[1]["content"]
    assert digests[0]["files"] != digests[1]["files"]


def test_an_equal_record_is_dropped(tmp_path):
    store = written(tmp_path, make(0))
    assert store.write(replace(make(0), environment={"host": "there"})) == "identical"
    assert store.read().environments["host"].tolist() == ["here"]
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_an_unequal_record_is_set_aside_and_told(tmp_path):
    store = written(tmp_path, make(0))
    assert store.write(make(0, test_loss=9.0)) == "conflict"
    contents = store.read()
    assert contents.trials["test_loss"].max() < 1
    assert [line.split("`")[2] for line in contents.problems] == [
        " is an unequal result of the same batch: compare the two, then delete it"
    ]


def test_of_repeats_the_smallest_batch_counts(tmp_path):
    pair = make(0), make(1, offset=1)
    trials = written(tmp_path, *pair).read()
    assert set(trials.trials["batch"]) == {min(record.batch for record in pair)}
    assert (len(trials.trials), trials.problems) == (2, [])


def test_repeats_with_unequal_values_are_told(tmp_path):
    pair = make(0), make(1, offset=1, test_loss=9.0)
    first, last = sorted(record.batch for record in pair)
    problems = written(tmp_path, *pair).read().problems
    trial = min(make(0).trials["trial"])
    assert problems[0] == f"trial `{trial}` has unequal values in batches `{first}` (counts) and `{last}`"


def test_repeats_take_their_curves_from_the_batch_that_counts(tmp_path):
    pair = make(0), make(1, offset=1, test_loss=9.0)
    curves = written(tmp_path, *pair).read().curves()
    counts = min(pair, key=lambda record: record.batch)
    assert curves["test_loss"].max() == counts.trials["test_loss"].max()


def test_two_stores_merge_by_copying(tmp_path):
    records = plan(4)
    written(tmp_path / "all", *records)
    written(tmp_path / "a", *records[:3])
    written(tmp_path / "b", *records[2:])
    shutil.copytree(tmp_path / "b" / "records", tmp_path / "a" / "records", dirs_exist_ok=True)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "all")
    merged, whole = (RecordStore(RunFolder(tmp_path / name)).read() for name in ("a", "all"))
    pd.testing.assert_frame_equal(merged.trials, whole.trials)


def test_the_order_of_files_does_not_count(tmp_path):
    written(tmp_path, *plan(4))
    tables = []
    for order in (sorted, lambda names: sorted(names, reverse=True)):
        disk = replace(RunFolder(tmp_path).disk, listdir=lambda path, order=order: order(p.name for p in path.iterdir()))
        tables.append(RecordStore(RunFolder(tmp_path, disk)).read())
    pd.testing.assert_frame_equal(tables[0].trials, tables[1].trials)
    pd.testing.assert_frame_equal(tables[0].environments, tables[1].environments)


def test_strange_names_are_told_and_left(tmp_path):
    store = written(tmp_path, make(0))
    (tmp_path / "records" / "notes.txt").write_text("mine")
    (tmp_path / "records" / ".DS_Store").write_text("")
    assert store.read().problems == [f"`{tmp_path}/records/notes.txt` is not the name of a record; it is ignored"]


def test_a_record_needs_its_columns():
    with pytest.raises(RecordError, match=r"lack the columns \['spec'\]"):
        Record(make(0).batch, trials_of(0).drop(columns="spec"), pd.DataFrame(), {})


def test_a_record_needs_a_trial():
    with pytest.raises(RecordError, match="must hold at least one trial and each only once; it holds 0, 0 distinct"):
        Record(make(0).batch, trials_of(0)[:0], pd.DataFrame(), {})


def test_a_record_holds_its_own_batch_only():
    with pytest.raises(RecordError, match=f"say that they are of batch `{make(0).batch}`"):
        Record(make(1).batch, trials_of(0), pd.DataFrame(), {})


def test_a_trial_is_the_hash_of_its_spec():
    with pytest.raises(RecordError, match="is not the SHA-256 of its `spec`"):
        Record(make(0).batch, trials_of(0).assign(spec="{}"), pd.DataFrame(), {})


def test_curves_belong_to_trials_of_the_record():
    with pytest.raises(RecordError, match="which is not among its trials"):
        Record(make(0).batch, trials_of(0), curves_of(trials_of(1)), {})


def test_a_columns_name_must_be_in_the_schema(tmp_path):
    with pytest.raises(ValueError, match=r"columns \['colour'\] are not in the schema of `trials`"):
        written(tmp_path, make(0, colour="red"))
