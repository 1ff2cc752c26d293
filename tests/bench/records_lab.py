"""What the tests of the record store share: small records, a run over them, and disks that fail, kill or lose power."""

import errno
import hashlib
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd

from richlearn.bench._disk import Disk
from richlearn.bench.content import canonical_json, content_hash
from richlearn.bench.folder import RunFolder
from richlearn.bench.records import Record, RecordStore
from richlearn.errors import RichlearnError

# Flushing is most of the time of these tests; what does not test it goes without.
UNFLUSHED = Disk(fsync=lambda handle: None)
CALLS = [item.name for item in fields(Disk)]


def trials_of(index: int, size: int = 2, offset: int = 0) -> pd.DataFrame:
    batch = content_hash({"batch": index})
    specs = [canonical_json({"seed": seed, "batch": index - offset}) for seed in range(size)]
    values = np.random.default_rng(index - offset).random(size)
    return pd.DataFrame(
        {
            "trial": [hashlib.sha256(spec.encode()).hexdigest() for spec in specs],
            "batch": batch,
            "seed": range(size),
            "status": "finished",
            "test_loss": values,
            "first_reached": pd.array([100, *[pd.NA] * (size - 1)], dtype="Int64"),
            "spec": specs,
        }
    )


def curves_of(trials: pd.DataFrame, steps: int = 3, units: int = 4) -> pd.DataFrame:
    rows = [
        {"trial": trial, "step": step, "test_loss": loss / (1 + step), "delta": np.full(units, loss, np.float32)}
        for trial, loss in zip(trials["trial"], trials["test_loss"], strict=True)
        for step in range(steps)
    ]
    return pd.DataFrame(rows)


def make(index: int, size: int = 2, offset: int = 0, **changes) -> Record:
    """The record of batch `index`; with an `offset`, of the same trials as batch `index - offset`."""
    trials = trials_of(index, size, offset).assign(**changes)
    return Record(trials["batch"][0], trials, curves_of(trials), {"host": "here", "wall_seconds": 1.5})


@cache
def plan(size: int = 2) -> tuple[Record, ...]:
    return tuple(make(index) for index in range(size))


def run(folder: RunFolder, records: tuple[Record, ...], acked: list[str] | None = None) -> list[str]:
    """What a run does: check the folder, skip what is done, publish the rest. Returns the outcomes."""
    store, outcomes = RecordStore(folder.prepare()), []
    done = store.done()
    for record in records:
        if not done.issuperset(record.trials["trial"]):
            outcomes.append(store.write(record))
        if acked is not None:
            acked.append(record.batch)
    return outcomes


def snapshot(path: Path) -> dict[str, bytes]:
    """The bytes under `records/`, the environment and what depends on it apart."""
    found = (path / "records").glob("[!.]*/*.parquet")
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def written(path: Path, *records: Record) -> RecordStore:
    """A store that holds `records`."""
    store = RecordStore(RunFolder(path, UNFLUSHED))
    for record in records:
        assert store.write(record) == "written"
    return store


def told(call: Callable, *args) -> str:
    """The text of the error by which `call(*args)` refuses, or nothing."""
    try:
        call(*args)
    except RichlearnError as error:
        return str(error)
    return ""


def disk_with(hook: Callable[[str, tuple], None]) -> Disk:
    """A disk that calls `hook(name of the call, its arguments)` before each call."""

    def hooked(name: str) -> Callable:
        real = getattr(Disk(), name)

        def call(*args):
            hook(name, args)
            return real(*args)

        return call

    return Disk(**{name: hooked(name) for name in CALLS})


@dataclass
class Fault:
    """Fails the `at`-th call with `error`, once or from then on; kills the process instead if `error` is `None`."""

    at: int
    error: int | None = errno.EIO
    lasting: bool = False
    calls: int = 0

    def disk(self) -> Disk:
        return disk_with(self)

    def __call__(self, name: str, args: tuple) -> None:
        self.calls += 1
        if self.calls == self.at or (self.lasting and self.calls > self.at):
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.error, os.strerror(self.error), str(args[0]) if isinstance(args[0], Path) else None)


class PowerCutError(BaseException):
    """Nothing runs after this, the cleaning up included."""


@dataclass
class _Change:
    """One write to a file's bytes, or one change of names in folders, and what flushing makes it durable."""

    owners: set[int]
    apply: Callable
    data: bool = False
    flushed: bool = False


@dataclass
class PowerCut:
    """A disk whose device keeps only what was flushed, and of the rest what chance keeps: dropped, cut or reordered.

    Calls act on the real folder `root` (what processes see) and are recorded; after `at` calls the power fails, and
    `survivors` builds the folder that a rebooted machine would find.
    """

    root: Path
    at: int = 10**9
    flush_works: bool = True
    calls: int = 0
    changes: list[_Change] = field(default_factory=list)
    handles: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes: dict[int, int] = {}
        self.numbers = count()
        self.folders: set[int] = set()
        self.root_node = self._fresh(self.root)

    def _fresh(self, path: Path) -> int:
        """A number of our own for what was just made: the file system gives an inode's number out again."""
        node = self.nodes[os.stat(path).st_ino] = next(self.numbers)
        if path.is_dir():
            self.folders.add(node)
        return node

    def _node(self, path: Path) -> int:
        return self.nodes[os.stat(path).st_ino]

    def disk(self) -> Disk:
        return Disk(**{name: self._wrap(name) for name in CALLS})

    def _wrap(self, name: str) -> Callable:
        real, record = getattr(Disk(), name), getattr(self, f"_on_{name}", None)

        def call(*args):
            self.calls += 1
            if self.calls > self.at:
                raise PowerCutError
            return record(real, *args) if record else real(*args)

        return call

    def _name(self, parent: Path, name: str, node: int | None) -> Callable:
        folder = self._node(parent)

        def apply(tree: dict[int, dict[str, int]], _: dict, __: float) -> None:
            tree.setdefault(folder, {})[name] = node if node is not None else -1

        return apply

    def _on_open(self, real, path, flags, *mode):
        handle = real(path, flags, *mode)
        node = self.handles[handle] = self._fresh(path) if flags & os.O_CREAT else self._node(path)
        if flags & os.O_CREAT:
            self.changes.append(_Change({self._node(path.parent)}, self._name(path.parent, path.name, node)))
        return handle

    def _on_write(self, real, handle, data):
        node, size = self.handles[handle], real(handle, data)
        part = bytes(data[:size])

        def apply(_, contents: dict[int, bytes], share: float) -> None:
            contents[node] = contents.get(node, b"") + part[: int(share * len(part))]

        self.changes.append(_Change({node}, apply, data=True))
        return size

    def _on_fsync(self, real, handle):
        for change in self.changes if self.flush_works else ():
            change.flushed |= self.handles[handle] in change.owners

    def _on_mkdir(self, real, path):
        real(path)
        self.changes.append(_Change({self._node(path.parent)}, self._name(path.parent, path.name, self._fresh(path))))

    def _on_rename(self, real, source, target):
        real(source, target)
        add = self._name(target.parent, target.name, self._node(target))
        drop = self._name(source.parent, source.name, None)

        def apply(*state) -> None:
            add(*state)
            drop(*state)

        self.changes.append(_Change({self._node(target.parent)}, apply))

    def _on_link(self, real, source, target):
        real(source, target)
        self.changes.append(_Change({self._node(target.parent)}, self._name(target.parent, target.name, self._node(target))))

    def _on_unlink(self, real, path):
        real(path)
        self.changes.append(_Change({self._node(path.parent)}, self._name(path.parent, path.name, None)))

    _on_rmdir = _on_unlink

    def survivors(self, path: Path, seed: int) -> Path:
        """The folder after the power cut; `seed` decides the fate of what was not flushed (0: all of it is lost, 1: names are kept)."""
        chance = random.Random(seed)
        tree: dict[int, dict[str, int]] = {}
        contents: dict[int, bytes] = {}
        for change in self.changes:
            share = 1.0 if change.flushed else {0: 0.0, 1: float(not change.data)}.get(seed, chance.choice([0.0, 0.5, 1.0]))
            if share and (share == 1 or change.data):
                change.apply(tree, contents, share)
        self._build(self.root_node, path, tree, contents)
        return path

    def _build(self, node: int, path: Path, tree: dict, contents: dict) -> None:
        path.mkdir()
        for name, child in tree.get(node, {}).items():
            if child in self.folders:
                self._build(child, path / name, tree, contents)
            elif child != -1:
                (path / name).write_bytes(contents.get(child, b""))
