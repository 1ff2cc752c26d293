"""The record store on a failing machine (fault rows 2, 3, 5, 7 and 8 of the suite's fault table).

The oracle of every test: afterwards a run on a healthy machine ends with the records of an undisturbed one, byte for byte;
nothing that was acknowledged is lost, and nothing that is not whole is accepted.
"""

import errno
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from records_lab import UNFLUSHED, Fault, PowerCut, PowerCutError, make, plan, run, snapshot, told, written

import richlearn.errors
from richlearn.bench._disk import Disk
from richlearn.bench.folder import RunFolder
from richlearn.bench.records import RecordStore
from richlearn.errors import StorageError, UsageError

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pandas", "pyarrow.parquet"])
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES)
PLAN = plan(2)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("oracle")
    run(RunFolder(path), PLAN)
    return snapshot(path)


def in_process(target, *args) -> int | None:
    """Exit code of `target(*args)` in a process of its own."""
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def from_nothing(path: Path) -> None:
    path.mkdir()


def from_damage(path: Path) -> None:
    """One record damaged, the other one finished."""
    store = written(path, *PLAN)
    (store.folder.record(PLAN[0].batch) / "curves.parquet").write_bytes(b"")


def assert_recovers(path: Path, acked: list[str], oracle: dict[str, bytes]) -> None:
    trials = RecordStore(RunFolder(path)).read(repair=False).trials
    assert set(acked) <= set(trials["batch"])
    run(RunFolder(path, UNFLUSHED), PLAN)
    assert snapshot(path) == oracle


def count_calls(path: Path, start) -> int:
    start(path)
    fault = Fault(at=10**9)
    run(RunFolder(path, fault.disk()), PLAN)
    return fault.calls


def run_with(fault: Fault, path: Path) -> list[str]:
    acked: list[str] = []
    if error := told(run, RunFolder(path, fault.disk()), PLAN, acked):
        assert str(path) in error
        assert os.strerror(fault.error or 0) in error
        assert "\n" not in error
    return acked


@pytest.mark.parametrize("start", [from_nothing, from_damage])
@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_at_any_call(tmp_path, oracle, start, stride):
    """Row 3: every call fails, once and from then on."""
    calls = count_calls(tmp_path / "count", start)
    assert calls > 60
    tries = product(range(1, calls + 1), (False, True), ERRORS)
    for index, (at, lasting, error) in enumerate(tries):
        if index % stride == 0:
            path = tmp_path / f"{at}-{lasting}-{error}"
            start(path)
            assert_recovers(path, run_with(Fault(at, error, lasting), path), oracle)
            shutil.rmtree(path)


def test_an_error_leaves_no_temporary_name(tmp_path):
    path = tmp_path / "run"
    for at in range(1, 26):
        if error := told(RecordStore(RunFolder(path, Fault(at, errno.ENOSPC).disk())).write, PLAN[0]):
            assert "nothing of it stands under its final name" in error
            assert not (path / "records").exists() or not os.listdir(path / "records")


def test_an_unflushed_name_is_no_success(tmp_path):
    """The last flush fails: the record stands whole, but the run may not call it durable."""
    fault = Fault(10**9)
    RecordStore(RunFolder(tmp_path / "count", fault.disk())).write(PLAN[0])
    store = RecordStore(RunFolder(tmp_path / "run", Fault(fault.calls - 1).disk()))
    with pytest.raises(StorageError, match=r"stands whole but may not outlive a power cut: Input/output error \(EIO\)"):
        store.write(PLAN[0])


def test_a_file_system_that_cannot_flush_folders_serves(tmp_path):
    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")

    assert RecordStore(RunFolder(tmp_path, Disk(fsync=fsync))).write(PLAN[0]) == "written"


def test_short_writes_are_continued(tmp_path):
    disk = Disk(write=lambda handle, data: os.write(handle, data[:100]))
    assert RecordStore(RunFolder(tmp_path, disk)).write(PLAN[0]) == "written"
    assert RecordStore(RunFolder(tmp_path)).read().problems == []


def test_staging_is_beside_the_target(tmp_path, monkeypatch):
    """Row 6: a full or foreign TMPDIR does not matter."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    moves = []
    disk = Disk(rename=lambda source, target: (moves.append((source.parent, target.parent)), os.rename(source, target))[1])
    RecordStore(RunFolder(tmp_path, disk)).write(PLAN[0])
    assert moves == [(tmp_path / "records", tmp_path / "records")]


def lose_power(root: Path, at: int, flush_works: bool = True) -> tuple[PowerCut, list[str]]:
    """A run in `root` whose machine loses power after `at` calls, and the batches that were acknowledged."""
    root.mkdir()
    cut, acked = PowerCut(root, at, flush_works), []
    with suppress(PowerCutError):
        run(RunFolder(root / "run", cut.disk()), PLAN, acked)
    return cut, acked


@pytest.mark.parametrize(("stride", "fates"), [(6, 3), pytest.param(1, 20, marks=pytest.mark.slow)])
def test_power_fails_after_any_call(tmp_path, oracle, stride, fates):
    """Row 2b: of what was not flushed, all, some or parts are lost, in any order."""
    calls = lose_power(tmp_path / "count", 10**9)[0].calls
    for at in range(1, calls + 1, stride):
        cut, acked = lose_power(tmp_path / str(at), at)
        for fate in range(fates):
            found = cut.survivors(tmp_path / f"{at}-{fate}", fate)
            assert_recovers(found / "run", acked, oracle)
            shutil.rmtree(found)


def test_the_lab_would_notice_a_missing_flush(tmp_path):
    cut, acked = lose_power(tmp_path / "live", 10**9, flush_works=False)
    lost = [cut.survivors(tmp_path / str(fate), fate) / "run" for fate in range(3)]
    read = [RecordStore(RunFolder(path)).read(repair=False) for path in lost]
    assert len(acked) == 2
    assert [len(contents.trials) for contents in read] == [0, 0, 0]
    assert len(read[1].problems) == 2


def killed_at(path: Path, at: int) -> None:
    run(RunFolder(path, Fault(at, error=None).disk()), PLAN)


@pytest.mark.parametrize("start", [from_nothing, from_damage])
@pytest.mark.parametrize("stride", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_call(tmp_path, oracle, start, stride):
    """Row 2: SIGKILL before each call; the next run also clears what the dead one staged."""
    for at in range(1, count_calls(tmp_path / "count", start) + 1, stride):
        path = tmp_path / str(at)
        start(path)
        assert in_process(killed_at, path, at) == -9
        assert_recovers(path, [], oracle)
        assert not list(path.rglob(".staging*"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_killed_by_the_kernel_at_each_call(tmp_path, oracle, call):
    """Row 2, below Python: strace kills at the N-th system call until a run gets through."""
    source = "import sys, pathlib, records_lab as lab; lab.run(lab.RunFolder(pathlib.Path(sys.argv[1])), lab.plan(2))"
    roots = [Path(__file__).parent, Path(richlearn.errors.__file__).parents[1]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, roots))}
    for at in range(1, 100):
        path = tmp_path / str(at)
        inject = ["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={at}"]
        code = subprocess.run([*inject, sys.executable, "-c", source, str(path)], env=environment, check=False).returncode
        assert_recovers(path, [], oracle)
        if code == 0:
            break
    assert at > len(PLAN)


def write_within(path: Path, limits: list[int]) -> None:
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        error = told(RecordStore(RunFolder(path)).write, PLAN[0])
        assert "File too large (EFBIG)" in error
        assert str(path) in error
        assert not os.listdir(path / "records")


def test_files_may_not_grow(tmp_path, oracle):
    """Row 5 with a limit on file size: twenty sizes, then none."""
    assert in_process(write_within, tmp_path, [1 + 500 * step for step in range(20)]) == 0
    run(RunFolder(tmp_path), PLAN)
    assert snapshot(tmp_path) == oracle


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a file system")
    yield path
    subprocess.run(["umount", path], check=True)


def test_the_disk_is_full(small_disk, oracle):
    """Row 5 on a file system of 1 MB: free pages are given one by one, until the record fits."""
    folder = RunFolder(small_disk).prepare()
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    refusals = 0
    while error := told(RecordStore(folder).write, PLAN[0]):
        refusals += 1
        assert f"record `{folder.record(PLAN[0].batch)}` was not written: No space left on device (ENOSPC)" in error
        assert not os.listdir(folder.records)
        os.truncate(filler, filler.stat().st_size - 4096)
    assert refusals > 3
    filler.unlink()
    run(folder, PLAN)
    assert snapshot(small_disk) == oracle


@pytest.fixture
def open_folder():
    """A folder that another user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def as_nobody(target, path: Path) -> None:
    """Call `target` as a user whom permissions bind; root ignores them."""
    RecordStore(RunFolder(path)).read(repair=False).curves()  # imports what that user may not be able to read
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    target(path)


def refuses(path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be written: Permission denied \(EACCES\) at .*choose another one with --out"):
        RunFolder(path).prepare()


def reads(path: Path) -> None:
    contents = RecordStore(RunFolder(path)).read()
    assert len(contents.trials) == 2
    assert len(contents.curves()) == 6
    assert "it is ignored, for it cannot be set aside: Permission denied (EACCES)" in contents.problems[0]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_read_only_folder_is_refused_before_training(open_folder, prepared):
    """Row 7."""
    if prepared:
        RunFolder(open_folder).prepare()
        os.chmod(open_folder / "records", 0o555)
    os.chmod(open_folder, 0o555)
    assert in_process(as_nobody, refuses, open_folder) == 0
    os.chmod(open_folder, 0o755)


def test_a_read_only_folder_can_be_read(open_folder):
    from_damage(open_folder)
    for path in (open_folder, open_folder / "records"):
        os.chmod(path, 0o555)
    before = snapshot(open_folder)
    assert in_process(as_nobody, reads, open_folder) == 0
    assert snapshot(open_folder) == before
    for path in (open_folder, open_folder / "records"):
        os.chmod(path, 0o755)


def race(path: Path, races: int, barrier, outcomes) -> None:
    for index in range(races):
        barrier.wait(30)
        outcomes.put((index, run(RunFolder(path / str(index)), PLAN)))


@pytest.mark.parametrize("races", [15, pytest.param(50, marks=pytest.mark.slow)])
def test_two_runs_in_one_folder(tmp_path, oracle, races):
    """Row 8: both end with the same records, each written by exactly one of them."""
    barrier, outcomes = PROCESSES.Barrier(2), PROCESSES.Queue()
    runners = [PROCESSES.Process(target=race, args=(tmp_path, races, barrier, outcomes)) for _ in range(2)]
    for runner in runners:
        runner.start()
    found = [outcomes.get(timeout=60) for _ in range(2 * races)]
    for runner in runners:
        runner.join()
    for index in range(races):
        told = [outcome for number, both in found if number == index for outcome in both]
        assert told.count("written") == len(PLAN)
        assert set(told) <= {"written", "identical"}
        assert snapshot(tmp_path / str(index)) == oracle
        assert os.listdir(tmp_path / str(index)) == ["records"]


def repair(path: Path, barrier) -> None:
    barrier.wait(30)
    run(RunFolder(path), PLAN)


def test_two_runs_repair_one_folder(tmp_path, oracle):
    for index in range(5):
        path, barrier = tmp_path / str(index), PROCESSES.Barrier(2)
        from_damage(path)
        runners = [PROCESSES.Process(target=repair, args=(path, barrier)) for _ in range(2)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        assert [runner.exitcode for runner in runners] == [0, 0]
        assert snapshot(path) == oracle


def test_unequal_racers_leave_one_record_and_a_conflict(tmp_path):
    """Another writer publishes between our staging and our rename."""
    other = RecordStore(RunFolder(tmp_path))

    def rename(source: Path, target: Path) -> None:
        if target.parent.name == "records":
            other.write(make(0, test_loss=9.0))
        os.rename(source, target)

    assert RecordStore(RunFolder(tmp_path, Disk(rename=rename))).write(make(0)) == "conflict"
    contents = other.read()
    assert set(contents.trials["test_loss"]) == {9.0}
    assert "unequal result of the same batch" in contents.problems[0]
