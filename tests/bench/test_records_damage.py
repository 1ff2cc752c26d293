"""Damaged and foreign records (fault rows 11, 12 and 15): found, set aside, told, computed again; never in the tables."""

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from records_lab import UNFLUSHED, Fault, disk_with, make, plan, snapshot, written

from richlearn.bench import _record
from richlearn.bench.content import canonical_json
from richlearn.bench.folder import RunFolder
from richlearn.bench.records import Record, RecordStore
from richlearn.errors import StorageError

RECORD = make(0)


def place_of(path: Path, record: Record = RECORD) -> Path:
    return RunFolder(path).record(record.batch)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pristine")
    written(path, RECORD)
    return path


def assert_found_and_redone(path: Path, pristine: Path) -> str:
    """The damage is told, the record leaves its place, a rerun restores it; returns what was told."""
    store = RecordStore(RunFolder(path, UNFLUSHED))
    contents = store.read()
    assert (len(contents.trials), len(contents.problems)) == (0, 1)
    assert contents.problems[0].endswith("it is set aside, and a run computes it again")
    assert [name.split(".")[:2] for name in os.listdir(path / "set_aside")] == [[RECORD.batch[:16], "damaged"]]
    assert store.write(RECORD) == "written"
    assert snapshot(path) == snapshot(pristine)
    assert store.read().problems == []
    return contents.problems[0]


def damage(pristine: Path, path: Path, change) -> str:
    """Apply `change(file bytes, file)` to a copy of `pristine`, then read it."""
    shutil.copytree(pristine, path)
    change(place_of(path))
    told = assert_found_and_redone(path, pristine)
    shutil.rmtree(path)
    return told


def flip_one(chance: random.Random):
    def change(place: Path) -> None:
        files = sorted(place.iterdir())
        file = chance.choices(files, [file.stat().st_size for file in files])[0]
        data = bytearray(file.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)

    return change


@pytest.mark.parametrize("tries", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_each_flipped_bit_is_found(pristine, tmp_path, tries):
    change = flip_one(random.Random(0))
    for _ in range(tries):
        damage(pristine, tmp_path / "run", change)


@pytest.mark.parametrize("file", _record.FILES)
def test_a_flip_in_the_small_files_is_found_too(pristine, tmp_path, file):
    for position in (0, 5, -1):

        def change(place: Path, position: int = position) -> None:
            data = bytearray((place / file).read_bytes())
            data[position] ^= 1
            (place / file).write_bytes(data)

        damage(pristine, tmp_path / "run", change)


def cut_one(chance: random.Random):
    def change(place: Path) -> None:
        file = chance.choice(sorted(place.iterdir()))
        os.truncate(file, chance.randrange(file.stat().st_size))

    return change


@pytest.mark.parametrize("tries", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_each_cut_is_found(pristine, tmp_path, tries):
    change = cut_one(random.Random(0))
    for _ in range(tries):
        damage(pristine, tmp_path / "run", change)


@pytest.mark.parametrize("file", _record.FILES)
@pytest.mark.parametrize("what", ["empty", "zero-filled", "missing", "longer", "a folder"])
def test_a_file_of_another_kind_is_found(pristine, tmp_path, file, what):
    def change(place: Path) -> None:
        size = (place / file).stat().st_size
        contents = {"empty": b"", "zero-filled": bytes(size), "longer": (place / file).read_bytes() + b"\n"}
        (place / file).unlink()
        if what == "a folder":
            (place / file).mkdir()
        elif what != "missing":
            (place / file).write_bytes(contents[what])

    damage(pristine, tmp_path / "run", change)


def test_an_empty_folder_is_found(pristine, tmp_path):
    told = damage(pristine, tmp_path / "run", lambda place: [file.unlink() for file in place.iterdir()])
    assert r"cannot be read: No such file or directory (ENOENT) at" in told


def test_a_file_in_place_of_the_folder_is_found(pristine, tmp_path):
    def change(place: Path) -> None:
        shutil.rmtree(place)
        place.write_text("")

    assert "(ENOTDIR)" in damage(pristine, tmp_path / "run", change)


def test_the_damaged_file_is_named(pristine, tmp_path):
    told = damage(pristine, tmp_path / "run", lambda place: (place / "curves.parquet").write_bytes(b"x"))
    assert "`curves.parquet` is damaged: its bytes are not those that were written" in told


def redigest(place: Path, **changes) -> None:
    """Make the digest fit the files again, as one who edits a record on purpose would."""
    files = {name: (place / name).read_bytes() for name in _record.FILES}
    batch = changes.get("batch", json.loads(files["digest.json"])["batch"])
    (place / "digest.json").write_bytes(_record._digest_bytes(batch, _record._sums(files)))


def test_another_version_is_told(pristine, tmp_path, monkeypatch):
    def change(place: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_record, "VERSION", 2)
            redigest(place)

    assert "is of version 2, and this richlearn reads version 1" in damage(pristine, tmp_path / "run", change)


def test_an_edited_field_is_found(pristine, tmp_path):
    """The table is replaced by that of another seed under the old trial hash, and the digest made to fit."""

    def change(place: Path) -> None:
        table = _record._read((place / "trials.parquet").read_bytes(), _record.TRIALS).to_pandas()
        table["spec"] = [canonical_json(json.loads(spec) | {"seed": 9}) for spec in table["spec"]]
        (place / "trials.parquet").write_bytes(_record._table_bytes(table, _record.TRIALS, ["trial"], _record._TRIALS_OPTIONS))
        redigest(place)

    assert "is not the SHA-256 of its `spec`" in damage(pristine, tmp_path / "run", change)


def test_a_batch_that_is_not_its_trials_is_found(pristine, tmp_path):
    other = RECORD.batch[:16] + "0" * 48
    assert "say that they are of batch" in damage(pristine, tmp_path / "run", lambda place: redigest(place, batch=other))


@pytest.mark.parametrize("text", ["[]", '{"host": 1e', "[" * 100_000])
def test_an_environment_that_is_no_object_is_found(pristine, tmp_path, text):
    def change(place: Path) -> None:
        (place / "environment.json").write_text(text)
        redigest(place)

    assert "`environment.json`" in damage(pristine, tmp_path / "run", change)


def test_a_table_of_other_columns_is_found(pristine, tmp_path):
    def change(place: Path) -> None:
        shutil.copy(place / "curves.parquet", place / "trials.parquet")
        redigest(place)

    assert "has other columns than version 1 prescribes" in damage(pristine, tmp_path / "run", change)


def test_no_table_at_all_is_found(pristine, tmp_path):
    def change(place: Path) -> None:
        (place / "trials.parquet").write_bytes(b"PAR1")
        redigest(place)

    assert "holds a table that pyarrow cannot read" in damage(pristine, tmp_path / "run", change)


@pytest.mark.parametrize("digest", ["{}", "7", "[" * 100_000, '{"batch": "\\ud800", "files": {}, "version": 1}'])
def test_a_digest_of_another_shape_is_found(pristine, tmp_path, digest):
    damage(pristine, tmp_path / "run", lambda place: (place / "digest.json").write_text(digest))


def test_swapped_names_are_found(tmp_path):
    records = plan(2)
    store = written(tmp_path, *records)
    places = [place_of(tmp_path, record) for record in records]
    for source, target in ((places[0], tmp_path / "x"), (places[1], places[0]), (tmp_path / "x", places[1])):
        source.rename(target)
    problems = store.read().problems
    assert sorted("lies in another's place" in problem for problem in problems) == [True, True]
    assert [store.write(record) for record in records] == ["written", "written"]


def test_files_of_another_record_are_found(tmp_path):
    records = plan(2)
    store = written(tmp_path, *records)
    shutil.copy(place_of(tmp_path, records[1]) / "trials.parquet", place_of(tmp_path, records[0]))
    assert set(store.read().trials["batch"]) == {records[1].batch}


def test_a_writer_replaces_a_damaged_record(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    (place_of(tmp_path) / "digest.json").write_text("")
    assert RecordStore(RunFolder(tmp_path)).write(RECORD) == "written"
    assert snapshot(tmp_path) == snapshot(pristine)
    assert len(os.listdir(tmp_path / "set_aside")) == 1


def test_without_repair_nothing_moves(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    (place_of(tmp_path) / "digest.json").write_text("")
    contents = RecordStore(RunFolder(tmp_path)).read(repair=False)
    assert contents.problems[0].endswith("`digest.json` is damaged; it is ignored")
    assert os.listdir(tmp_path) == ["records"]


def test_a_share_that_shows_the_past_once_is_forgiven(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    (tmp_path / "set_aside").mkdir()
    for error in (errno.ENOENT, errno.ESTALE, errno.EIO):
        for at in range(1, 20):
            contents = RecordStore(RunFolder(tmp_path, Fault(at, error).disk())).read()
            assert (len(contents.trials), contents.problems) == (2, [])


def test_what_cannot_be_read_is_not_called_damaged(pristine):
    def hook(name: str, args: tuple) -> None:
        if name == "open":
            raise OSError(errno.EMFILE, "Too many open files")

    problems = RecordStore(RunFolder(pristine, disk_with(hook))).read().problems
    assert problems == [f"record `{place_of(pristine)}` cannot be read: Too many open files (EMFILE); it is ignored"]
    assert not (pristine / "set_aside").exists()


def test_a_record_that_vanishes_is_no_problem(pristine, tmp_path):
    """Another process sets it aside between our listing and our reading."""
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)

    def hook(name: str, args: tuple) -> None:
        if name == "open":
            shutil.rmtree(place_of(tmp_path), ignore_errors=True)

    assert RecordStore(RunFolder(tmp_path, disk_with(hook))).read().problems == []


def test_a_record_repaired_while_we_move_it_is_put_back(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    (place_of(tmp_path) / "digest.json").write_text("")

    def hook(name: str, args: tuple) -> None:
        if name == "rename" and args[0] == place_of(tmp_path):
            shutil.copytree(place_of(pristine), args[0], dirs_exist_ok=True)

    RecordStore(RunFolder(tmp_path, disk_with(hook))).read()
    assert snapshot(tmp_path) == snapshot(pristine)


def test_a_damaged_record_that_another_process_moves_first(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    (place_of(tmp_path) / "digest.json").write_text("")

    def hook(name: str, args: tuple) -> None:
        if name == "rename" and args[0] == place_of(tmp_path):
            shutil.rmtree(args[0])

    store = RecordStore(RunFolder(tmp_path, disk_with(hook)))
    assert store.read().problems[0].endswith("another process has set it aside")
    assert store.write(RECORD) == "written"


def test_a_place_taken_for_good_is_an_error(tmp_path):
    (tmp_path / "records").mkdir()
    place_of(tmp_path).symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="was not written: its place is taken by something that is no record"):
        RecordStore(RunFolder(tmp_path)).write(RECORD)
