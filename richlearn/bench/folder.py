"""The folder of a run: every path name under it, whether it can be written, and which protocol it belongs to."""

import errno
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from richlearn.bench._disk import Disk
from richlearn.bench._names import component, record_name
from richlearn.bench._staging import staging_name, sweep
from richlearn.bench.content import differences, text_hash
from richlearn.errors import StorageError, UsageError

_MARK = re.compile(r"# protocol_hash: ([0-9a-f]{64})\n# sha256 of the rest: ([0-9a-f]{64})\n")
_NOT_IDENTITY = ("name", "summary", "figure", "figures", "seeds")
_SHOWN = 5


def reason(error: OSError) -> str:
    """What the operating system says, with its symbol and the path: "No space left on device (ENOSPC) at `x`"."""
    symbol = errno.errorcode.get(error.errno or 0, "unknown")
    place = f" at `{error.filename}`" if error.filename else ""
    return f"{error.strerror or error} ({symbol}){place}"


@dataclass(frozen=True)
class RunFolder:
    """All names under the folder `path` of a run; making one touches nothing, so that a read-only folder can be read."""

    path: Path
    disk: Disk = field(default_factory=Disk, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def records(self) -> Path:
        """One folder per finished batch."""
        return self.path / "records"

    @property
    def set_aside(self) -> Path:
        """Damaged records, and results that differ from one already recorded; never read again."""
        return self.path / "set_aside"

    @property
    def leaderboard(self) -> Path:
        return self.path / "leaderboard.csv"

    @property
    def protocol(self) -> Path:
        """The resolved protocol of the latest run."""
        return self.path / "protocol.yaml"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def failures(self) -> Path:
        """A log per batch that raised."""
        return self.path / "failures"

    def record(self, batch: str) -> Path:
        """Where the record of the batch with hash `batch` stands once it is finished."""
        return self.records / record_name(batch)

    def failure(self, batch: str) -> Path:
        return self.failures / f"{record_name(batch)}.log"

    def figure(self, name: str, suffix: str = ".png") -> Path:
        return self.figures / component(f"{name}{suffix}")

    @property
    def cells(self) -> Path:
        """TensorBoard's runs of finished cells; rewritten whole."""
        return self.tensorboard / "cells"

    def in_training(self, batch: str) -> Path:
        """Where TensorBoard follows a batch until its record is written."""
        return self.tensorboard / "in_training" / record_name(batch)

    def weights(self, trial: str) -> Path:
        """The final weights of a trial, where a run keeps them."""
        return self.path / "weights" / component(f"{trial}.pt")

    def prepare(self) -> "RunFolder":
        """Make the folder, prove that records can be written into it, and clear what dead runs left half-written.

        Raises:
            UsageError: if it cannot be written; call this before any training.
        """
        try:
            self.disk.make_folders(self.records)
            for folder in (self.path, self.records):
                self._probe(folder)
                sweep(self.disk, folder)
        except OSError as error:
            raise UsageError(f"folder `{self.path}` cannot be written: {reason(error)}; choose another one with --out") from error
        return self

    def _probe(self, folder: Path) -> None:
        probe = folder / staging_name()
        try:
            self.disk.write_file(probe, b"richlearn")
        finally:
            self.disk.remove(probe)

    def replace(self, path: Path, data: bytes) -> None:
        """Put `data` at `path` under this folder: the old file stands until the new one is whole and flushed.

        Raises:
            StorageError: if the operating system refuses; the old file, if any, is kept.
        """
        if not path.is_relative_to(self.path) or ".." in path.relative_to(self.path).parts:
            raise UsageError(f"`{path}` is outside the run's folder `{self.path}`")
        self._publish(path, data, self.disk.rename)

    def _publish(self, path: Path, data: bytes, move: Callable[[Path, Path], None]) -> None:
        staged = path.parent / staging_name()
        try:
            self.disk.make_folders(path.parent)
            self.disk.write_file(staged, data)
            move(staged, path)
        except OSError as error:
            raise StorageError(f"`{path}` was not written: {reason(error)}; what stood there before is kept") from error
        finally:
            self.disk.remove(staged)
        self.make_durable(path)

    def make_durable(self, path: Path) -> None:
        """Flush the name `path`, which stands already.

        Raises:
            StorageError: if the operating system refuses; then it is whole, but may be gone after a power cut.
        """
        try:
            self.disk.flush_folder(path.parent)
        except OSError as error:
            raise StorageError(f"`{path}` stands whole but may not outlive a power cut: {reason(error)}; run again to check it") from error

    def read_protocol(self) -> tuple[str, str] | None:
        """The hash and the text of the protocol that this folder belongs to, or `None` before the first run.

        Raises:
            UsageError: if `protocol.yaml` was changed after it was written.
        """
        try:
            text = self.disk.read_file(self.protocol).decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"`{self.protocol}` cannot be read: {reason(error)}") from error
        mark = _MARK.match(text)
        if mark is None or text_hash(text[mark.end() :]) != mark[2]:
            raise UsageError(f"`{self.protocol}` is not as it was written: restore it, or choose another folder with --out")
        return mark[1], text[mark.end() :]

    def claim(self, protocol_hash: str, text: str, *, ignore: Collection[str] = _NOT_IDENTITY) -> None:
        """Bind this folder to a protocol: the first run writes `protocol.yaml`, a run of another protocol is refused.

        A run of the same protocol with other seeds replaces the text.

        Args:
            protocol_hash: hash of what identifies the protocol.
            text: the resolved protocol, YAML.
            ignore: top-level keys that the hash leaves out, and so does the refusal.

        Raises:
            UsageError: if the folder holds another protocol, naming the fields that differ with both values.
            StorageError: if `protocol.yaml` cannot be written.
        """
        data = f"# protocol_hash: {protocol_hash}\n# sha256 of the rest: {text_hash(text)}\n{text}".encode()
        if self.read_protocol() is None:
            self._publish(self.protocol, data, self._move_if_free)
        if self.check_owner(protocol_hash, text, ignore=ignore) != text:
            self.replace(self.protocol, data)

    def check_owner(self, protocol_hash: str, text: str, *, ignore: Collection[str] = _NOT_IDENTITY) -> str | None:
        """The text of the protocol that this folder holds, if it is the one of `protocol_hash`; `None` before the first run.

        Raises:
            UsageError: if the folder holds another protocol, naming the fields that differ with both values.
        """
        there = self.read_protocol()
        if there is not None and there[0] != protocol_hash:
            how = _describe(there[1], text, ignore)
            raise UsageError(f"folder `{self.path}` holds another protocol: {how}; choose another one with --out")
        return None if there is None else there[1]

    def _move_if_free(self, staged: Path, path: Path) -> None:
        """Publish unless another process was first: then what it wrote decides. Without hard links the last one decides."""
        try:
            self.disk.link(staged, path)
        except FileExistsError:
            return
        except OSError:
            self.disk.rename(staged, path)


def _describe(there: str, here: str, ignore: Collection[str]) -> str:
    """In one phrase, where the YAML texts of two protocols differ."""
    import yaml

    old, new = (yaml.safe_load(text) for text in (there, here))
    for content in (old, new):
        for key in ignore if isinstance(content, dict) else ():
            content.pop(key, None)
    lines = differences(old, new)
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more if lines else "the same keys, computed by other versions of richlearn's parts"
