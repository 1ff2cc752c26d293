"""The run's folder: its names, its check before training, and the protocol that it belongs to."""

import errno
import os
import stat

import pytest
import yaml
from records_lab import Fault, disk_with, plan, run

from richlearn.bench._staging import staging_name
from richlearn.bench.folder import RunFolder
from richlearn.errors import RecordError, StorageError, UsageError

BATCH = "ab" * 32
PROTOCOL = {"name": "quick", "seeds": [0, 1], "training": {"steps": 100}, "schemes": [{"name": "standard"}]}


def text(**changes) -> str:
    return yaml.safe_dump(PROTOCOL | changes)


def test_names_follow_the_public_layout(tmp_path):
    folder = RunFolder(tmp_path)
    names = [folder.records, folder.leaderboard, folder.figures, folder.tensorboard, folder.protocol, folder.failures, folder.set_aside]
    assert [name.relative_to(tmp_path).as_posix() for name in names] == (
        ["records", "leaderboard.csv", "figures", "tensorboard", "protocol.yaml", "failures", "set_aside"]
    )


def test_a_record_is_named_by_its_batch(tmp_path):
    folder = RunFolder(tmp_path)
    assert (folder.record(BATCH).name, folder.failure(BATCH).name) == (BATCH[:16], f"{BATCH[:16]}.log")


def test_names_of_later_stages_stay_inside(tmp_path):
    folder = RunFolder(tmp_path)
    names = [folder.cells, folder.in_training(BATCH), folder.weights("trial")]
    assert [name.relative_to(tmp_path).as_posix() for name in names] == [
        "tensorboard/cells",
        f"tensorboard/in_training/{BATCH[:16]}",
        "weights/trial.pt",
    ]


@pytest.mark.parametrize("batch", ["", "ab", "../" + BATCH[3:], BATCH.upper(), BATCH + "0"])
def test_a_batch_must_be_a_hash(tmp_path, batch):
    with pytest.raises(RecordError, match="is no batch hash: 64 lower-case"):
        RunFolder(tmp_path).record(batch)


@pytest.mark.parametrize("name", ["", "..", ".", "../x", "a/b", "a\\b", "a\0", "ü" * 101])
def test_names_cannot_lead_out(tmp_path, name):
    with pytest.raises(UsageError, match="cannot name a file in the run's folder"):
        RunFolder(tmp_path).figure(name, suffix="")


def test_odd_but_harmless_names_are_kept(tmp_path):
    assert RunFolder(tmp_path).figure("my file.py:Ünit\n1").name == "my file.py:Ünit\n1.png"


def test_making_the_object_touches_nothing(tmp_path):
    RunFolder(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_prepare_leaves_only_the_records_folder(tmp_path):
    RunFolder(tmp_path / "a" / "b").prepare()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["a", "a/b", "a/b/records"]


def test_prepare_refuses_a_file_in_its_place(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match=r"folder `.*run` cannot be written: .*choose another one with --out"):
        RunFolder(tmp_path / "run").prepare()


def test_prepare_refuses_a_file_in_place_of_the_records(tmp_path):
    (tmp_path / "records").write_text("")
    with pytest.raises(UsageError, match=r"Not a directory \(ENOTDIR\) at `.*records`"):
        RunFolder(tmp_path).prepare()


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_prepare_names_the_reason(tmp_path, error):
    folder = RunFolder(tmp_path, Fault(1, error, lasting=True).disk())
    with pytest.raises(UsageError, match=f"cannot be written: {os.strerror(error)}"):
        folder.prepare()


def test_prepare_clears_what_a_dead_process_left(tmp_path):
    RunFolder(tmp_path).prepare()
    mine = staging_name()
    dead = mine.replace(f".{os.getpid()}.", ".4194304.")
    foreign = dead.replace(dead.split(".")[2], "0123456789ab")
    for name in (mine, dead, foreign, "4194304.notes"):
        (tmp_path / "records" / name).mkdir()
        (tmp_path / "records" / name / "trials.parquet").write_text("part")
    RunFolder(tmp_path).prepare()
    assert {path.name for path in (tmp_path / "records").iterdir()} == {mine, foreign, "4194304.notes"}


def test_replace_keeps_the_old_file_when_the_disk_is_full(tmp_path):
    RunFolder(tmp_path).replace(tmp_path / "leaderboard.csv", b"old")
    for at in range(1, 7):
        folder = RunFolder(tmp_path, Fault(at, errno.ENOSPC, lasting=True).disk())
        with pytest.raises(StorageError, match=r"`.*leaderboard.csv` was not written: No space left on device \(ENOSPC\)"):
            folder.replace(folder.leaderboard, b"new")
        assert folder.leaderboard.read_bytes() == b"old"


def test_replace_replaces(tmp_path):
    folder = RunFolder(tmp_path)
    for data in (b"old", b"new"):
        folder.replace(folder.leaderboard, data)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("leaderboard.csv", b"new")]


def test_replace_stays_inside(tmp_path):
    with pytest.raises(UsageError, match="is outside the run's folder"):
        RunFolder(tmp_path / "run").replace(tmp_path / "run" / ".." / "x", b"")


def test_files_have_the_users_ordinary_mode(tmp_path):
    (tmp_path / "plain").write_text("")
    RunFolder(tmp_path).replace(tmp_path / "leaderboard.csv", b"x")
    assert stat.S_IMODE((tmp_path / "leaderboard.csv").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_first_run_writes_its_protocol(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("1" * 64, text())
    assert folder.read_protocol() == ("1" * 64, text())
    assert yaml.safe_load(folder.protocol.read_text()) == PROTOCOL


def test_no_protocol_before_the_first_run(tmp_path):
    assert RunFolder(tmp_path).read_protocol() is None


def test_other_seeds_are_the_same_protocol(tmp_path):
    folder = RunFolder(tmp_path)
    for seeds in ([0], [0, 1, 2]):
        folder.claim("1" * 64, text(seeds=seeds))
    assert yaml.safe_load(folder.protocol.read_text())["seeds"] == [0, 1, 2]


def test_another_protocol_is_refused_with_the_field_that_differs(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("1" * 64, text())
    with pytest.raises(UsageError, match=r"another protocol: `training.steps` is 100 there, 200 here; choose another one with --out"):
        folder.claim("2" * 64, text(training={"steps": 200}, seeds=[7], name="other"))
    assert folder.read_protocol() == ("1" * 64, text())


def test_many_differences_are_counted(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("1" * 64, yaml.safe_dump({f"key{index}": 0 for index in range(9)}))
    with pytest.raises(UsageError, match=r"`key0` is 0 there, 1 here; .* and 4 more; choose"):
        folder.claim("2" * 64, yaml.safe_dump({f"key{index}": 1 for index in range(9)}))


def test_equal_keys_of_unlike_hash_blame_the_code(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("1" * 64, text())
    with pytest.raises(UsageError, match="the same keys, computed by other versions"):
        folder.claim("2" * 64, text())


def test_an_edited_protocol_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("1" * 64, text())
    folder.protocol.write_text(folder.protocol.read_text().replace("100", "200"))
    with pytest.raises(UsageError, match=r"protocol.yaml` is not as it was written: restore it"):
        folder.claim("1" * 64, text())


def test_of_two_first_runs_one_wins(tmp_path):
    """The other process claims between our look and our move."""
    other = RunFolder(tmp_path)

    def hook(name: str, args: tuple) -> None:
        if name == "link":
            other.claim("2" * 64, text(training={"steps": 9}))

    with pytest.raises(UsageError, match=r"`training.steps` is 9 there, 100 here"):
        RunFolder(tmp_path, disk_with(hook)).claim("1" * 64, text())


def test_file_systems_without_links_serve(tmp_path):
    def hook(name: str, args: tuple) -> None:
        if name == "link":
            raise PermissionError(errno.EPERM, "Operation not permitted")

    RunFolder(tmp_path, disk_with(hook)).claim("1" * 64, text())
    assert [path.name for path in tmp_path.iterdir()] == ["protocol.yaml"]


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_an_unreadable_protocol_is_named(tmp_path, error):
    RunFolder(tmp_path).claim("1" * 64, text())
    with pytest.raises(UsageError, match=r"protocol.yaml` cannot be read"):
        RunFolder(tmp_path, Fault(1, error).disk()).read_protocol()


def test_odd_paths_serve(tmp_path):
    for name in ("a b", "ü", "a\nb", "x" * 200):
        run(RunFolder(tmp_path / name), plan(1))
        assert len(list((tmp_path / name / "records").iterdir())) == 1


def test_a_loop_of_links_is_a_clean_error(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="cannot be written"):
        RunFolder(tmp_path / "loop").prepare()
