"""A run that is killed, terminated or interrupted: exit codes, whole records, and the same leaderboard in the end."""

import os
import signal
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from tiny_runs import TINY, contents, exit_code, forked, go, main_with, timeless, tiny_file, wait_for

from richlearn.bench.execute import Executor

LONG = TINY.replace("steps: 30", "steps: 400")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return go(tmp_path_factory.mktemp("undisturbed"), "training.steps=400").folder.path


def start(folder, *options):
    """A run in a child; returns its id and its folder."""
    (out := folder / "run").mkdir()
    return forked("run", tiny_file(folder, LONG), "-q", *options, "--out", out), out


def after_records(out, count=1):
    return lambda: len(list((out / "records").glob("[!.]*"))) >= count


def go_on(out, undisturbed):
    go(out, "training.steps=400")
    assert contents(out) == contents(undisturbed)
    assert timeless(out).equals(timeless(undisturbed))


@pytest.mark.parametrize("delay", [0.05, 0.4])
def test_a_killed_run_goes_on_to_the_same_leaderboard(delay, undisturbed, tmp_path):
    child, out = start(tmp_path, "--devices", "1")
    wait_for(after_records(out), child)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert exit_code(child) == -signal.SIGKILL
    assert len(list((out / "records").glob("[!.]*"))) < 4
    go_on(out, undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_with_its_code_and_whole_records(number, code, undisturbed, tmp_path):
    child, out = start(tmp_path, "--devices", "1")
    wait_for(after_records(out), child)
    os.kill(child, number)
    assert exit_code(child) == code
    assert (out / "said.txt").read_text() == f"interrupted ({number.name}): finished batches are recorded; the same command goes on\n"
    (out / "said.txt").unlink()
    assert list((out / "records").glob(".*")) == []
    go_on(out, undisturbed)


class Signalling:
    """Its finalizer runs when a signal comes: what the handler raises there, Python drops."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def _signalled(executor, batch):
    Signalling()
    time.sleep(100)


def _signalled_before_a_fit(executor, batch):
    Signalling()
    _SignalConnector(Trainer(logger=False)).register_signal_handlers()
    time.sleep(100)


@pytest.mark.parametrize("execute", [_signalled, _signalled_before_a_fit])
def test_a_signal_within_a_finalizer_is_not_lost(execute, tmp_path):
    with patch.object(Executor, "__call__", execute):
        child, out = start(tmp_path, "--devices", "1")
    assert exit_code(child) == 143
    assert (out / "said.txt").read_text().startswith("interrupted (SIGTERM)")


def workers_of(child):
    """The worker processes whose parent is `child`."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == child and "spawn_main" in _command(pid)]


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _interrupted_workers(number, folder, ready):
    child, out = start(folder, "--devices", "2")
    wait_for(lambda: ready(child, out), child)
    workers = workers_of(child)
    os.kill(child, number)
    return exit_code(child), workers, out


def test_a_terminated_run_takes_its_workers_along(tmp_path):
    code, workers, _ = _interrupted_workers(signal.SIGTERM, tmp_path, lambda child, out: len(workers_of(child)) >= 2)
    assert code == 143
    assert not any(_parent(worker) for worker in workers)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_a_run_with_workers(number, code, undisturbed, tmp_path):
    found, workers, out = _interrupted_workers(number, tmp_path, lambda child, out: after_records(out)())
    assert found == code
    assert not any(_parent(worker) for worker in workers)
    go_on(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10))
def test_killed_at_any_time_even_while_going_on(attempt, undisturbed, tmp_path):
    child, out = start(tmp_path, "--devices", "1")
    for _ in range(2):
        time.sleep(0.3 * attempt)
        os.kill(child, signal.SIGKILL)
        exit_code(child)
        child = forked("run", tmp_path / "tiny.yaml", "-q", "--devices", "1", "--out", out)
    assert exit_code(child) == 0
    assert contents(out) == contents(undisturbed)
    assert timeless(out).equals(timeless(undisturbed))


@pytest.mark.slow
def test_a_worker_killed_in_a_batch_fails_that_batch_alone(undisturbed, tmp_path):
    child, out = start(tmp_path, "--devices", "2")
    wait_for(after_records(out), child)
    worker = max(workers_of(child))
    os.kill(worker, signal.SIGKILL)
    assert exit_code(child) == 1
    assert "worker died with exit code -9" in (out / "said.txt").read_text()
    assert main_with("run", tmp_path / "tiny.yaml", "-q", "--devices", "1", "--out", out)[0] == 0
    assert contents(out) == contents(undisturbed)
