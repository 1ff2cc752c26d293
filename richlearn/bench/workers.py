"""Worker processes that train batches: one parent hands them out; a worker that dies costs its batch, nothing else."""

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from richlearn.bench.trials import Batch
from richlearn.errors import RichlearnError

Work = Callable[[Batch], str]
_PATIENCE = 5.0  # seconds for an idle worker to end


@dataclass(frozen=True)
class Finished:
    """How a batch ended: `outcome` of the store, or the `error` (and its traceback, unless it is one of richlearn's own)."""

    batch: Batch
    outcome: str = ""
    error: str = ""
    trace: str = ""


class _Told:
    """A progress bar in a worker: tells the parent."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def update(self, n: float) -> None:
        self._pipe.send(("progress", n))

    def close(self) -> None:
        """Nothing to do: the parent owns the bar."""


def attempt(work: Work, batch: Batch) -> Finished:
    """Do one batch; an error becomes a result, an interruption does not."""
    try:
        return Finished(batch, work(batch))
    except RichlearnError as error:
        return Finished(batch, error=str(error))
    except Exception as error:
        return Finished(batch, error=f"{type(error).__name__}: {error}".splitlines()[0], trace=traceback.format_exc())


def _serve(pipe: Connection, make: Callable[..., Work], rank: int, environment: dict[str, str]) -> None:
    """A worker's life: take batches until the parent says stop, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.environ.update(environment)
    work = make(rank=rank, bar=_Told(pipe))
    while (batch := _received(pipe)) is not None:
        pipe.send(("finished", attempt(work, batch)))


def _received(pipe: Connection) -> Batch | None:
    try:
        return pipe.recv()
    except EOFError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep `multiprocessing` from running the user's script again in a worker: it may lack `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass
class _Team:
    """Processes that do one batch together: one, or the ranks of a data-parallel fit."""

    make: Callable[..., Work]
    ranks: Sequence[int]
    parallel: bool
    batch: Batch | None = None
    pipes: list[Connection] = field(default_factory=list)
    processes: list[BaseProcess] = field(default_factory=list)
    results: dict[int, Finished] = field(default_factory=dict)

    def start(self) -> None:
        context, port = multiprocessing.get_context("spawn"), _free_port()
        self.pipes, self.processes, self.results = [], [], {}
        for place, rank in enumerate(self.ranks):
            ours, theirs = context.Pipe()
            lightning = {"LOCAL_RANK": str(place), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            process = context.Process(target=_serve, args=(theirs, self.make, rank, lightning if self.parallel else {}), daemon=True)
            with _without_main():
                process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def give(self, batch: Batch) -> None:
        self.batch, self.results = batch, {}
        for pipe in self.pipes:
            with suppress(OSError):  # a worker that has died meanwhile is found when it is listened to
                pipe.send(batch)

    def dismiss(self) -> None:
        """Let idle workers end by themselves; kill what is at work."""
        if self.batch is None:
            for pipe, process in zip(self.pipes, self.processes, strict=True):
                with suppress(OSError):
                    pipe.send(None)
                process.join(_PATIENCE)
        self.kill()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            process.join()
            pipe.close()

    def listen(self, pipe: Connection, progress: Callable[[float], object]) -> Finished | None:
        """Take one message; the batch's result once every rank has given its own, or one has failed."""
        assert self.batch is not None
        place = self.pipes.index(pipe)
        try:
            kind, content = pipe.recv()
        except (EOFError, ConnectionResetError):
            process = self.processes[place]
            process.join()
            return self._ended(Finished(self.batch, error=f"worker died with exit code {process.exitcode} (negative: the signal)"))
        if kind == "progress":
            progress(content if place == 0 else 0)
            return None
        self.results[place] = content
        return self._ended(content) if content.error else self._complete()

    def _complete(self) -> Finished | None:
        if len(self.results) < len(self.pipes):
            return None
        self.batch = None
        return self.results[0]

    def _ended(self, result: Finished) -> Finished:
        """A failed rank leaves its peers waiting: start the team afresh."""
        self.batch = None
        if len(self.ranks) > 1 or not self.processes[0].is_alive():
            self.kill()
            self.start()
        return result


def in_parallel(
    batches: Sequence[Batch], make: Callable[..., Work], count: int, *, together: bool, progress: Callable[[float], object]
) -> Iterator[Finished]:
    """Results of `batches` from `count` worker processes, as they come.

    Args:
        batches: handed out in order.
        make: called in each worker with its `rank` and a `bar` to tell progress to; returns what does a batch.
        count: number of processes.
        together: all processes do each batch together, as ranks of one data-parallel fit; else each does its own.
        progress: told of network-steps done.
    """
    todo = deque(batches)
    ranks = range(count)
    teams = [_Team(make, ranks, True)] if together else [_Team(make, [rank], False) for rank in ranks[: len(todo)]]
    try:
        for team in teams:
            team.start()
        yield from _dispatch(teams, todo, progress)
    finally:
        for team in teams:
            team.dismiss()


def _dispatch(teams: list[_Team], todo: deque[Batch], progress: Callable[[float], object]) -> Iterator[Finished]:
    while True:
        for team in teams:
            if team.batch is None and todo:
                team.give(todo.popleft())
        owner: dict[Any, _Team] = {pipe: team for team in teams if team.batch is not None for pipe in team.pipes}
        if not owner:
            return
        for pipe in wait(list(owner)):
            team = owner[pipe]
            if team.batch is not None and pipe in team.pipes and (result := team.listen(pipe, progress)) is not None:  # type: ignore[arg-type]
                yield result
