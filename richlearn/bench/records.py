"""The store of records: one folder per finished batch, which appears whole or not at all, proved whenever it is read.

Writers need no lock and no server. Each stages its record beside its place and renames it there; the operating system lets one
of them through, and the others compare. Two stores merge by copying the folders of `records/` while nothing runs on them.
"""

import errno
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from richlearn.bench._contents import Contents, gather
from richlearn.bench._names import is_record_name
from richlearn.bench._record import FILES, Record, Stored, content_of, decode, encode
from richlearn.bench._staging import staging_name
from richlearn.bench.folder import RunFolder, reason
from richlearn.errors import RecordError, StorageError, UsageError

__all__ = ["Contents", "Outcome", "Record", "RecordStore"]

Outcome = Literal["written", "identical", "conflict"]
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP}
_ATTEMPTS = 5
_T = TypeVar("_T")


def _second_look(action: Callable[[], _T]) -> _T:
    """What `action` returns; a shared file system may show the past once, so only a second failure counts."""
    with suppress(RecordError, OSError):
        return action()
    return action()


@dataclass(frozen=True)
class RecordStore:
    """Writes and reads the records of a run's folder."""

    folder: RunFolder

    def write(self, record: Record) -> Outcome:
        """Publish `record`: whole, flushed and durable when this returns.

        Returns:
            "written"; "identical" if an equal record (the environment apart) stood there already; "conflict" if an unequal
            one did: it stays, and `record` lies in the folder of what was set aside. A damaged one is set aside for `record`.

        Raises:
            StorageError: if the operating system refuses.
        """
        files, final = encode(record), self.folder.record(record.batch)
        staged = self.folder.records / staging_name()
        try:
            outcome = self._stage_and_publish(files, staged, final)
        except OSError as error:
            lost = "nothing of it stands under its final name; run again, finished batches are kept"
            raise StorageError(f"record `{final}` was not written: {reason(error)}; {lost}") from error
        finally:
            self.folder.disk.remove(staged)
        self.folder.make_durable(final)
        return outcome

    def _stage_and_publish(self, files: dict[str, bytes], staged: Path, final: Path) -> Outcome:
        disk = self.folder.disk
        disk.make_folders(self.folder.records)
        disk.mkdir(staged)
        for name, data in files.items():
            disk.write_file(staged / name, data)
        disk.flush_folder(staged)
        for _ in range(_ATTEMPTS):
            if self._move(staged, final):
                return "written"
            try:
                stands = self._examine(final)
            except FileNotFoundError:
                continue
            except RecordError:
                # Another writer may have moved it in the meantime.
                with suppress(FileNotFoundError):
                    self._set_aside(final, "damaged")
                continue
            if stands.content == content_of(files):
                return "identical"
            self._set_aside(staged, "conflict", final.name)
            return "conflict"
        raise FileExistsError(errno.EEXIST, "its place is taken by something that is no record", str(final))

    def _move(self, staged: Path, final: Path) -> bool:
        """Whether `staged` now stands at `final`; a folder never replaces one that holds anything."""
        try:
            self.folder.disk.rename(staged, final)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def _examine(self, place: Path) -> Stored:
        """The record at `place`, proved.

        Raises:
            RecordError: if it is damaged, foreign or of another version.
            FileNotFoundError: if it is no longer there.
            OSError: if it cannot be read, which says nothing about the record.
        """
        return _second_look(lambda: self._load(place))

    def _load(self, place: Path, name: str | None = None) -> Stored:
        disk = self.folder.disk
        try:
            files = {file: disk.read_file(place / file) for file in FILES}
        except OSError as error:
            if error.errno == errno.ENOENT:
                disk.listdir(place)
            if error.errno not in _DAMAGE:
                raise
            raise RecordError(f"cannot be read: {reason(error)}") from error
        return decode(name or place.name, files)

    def _set_aside(self, place: Path, why: str, name: str | None = None) -> None:
        disk, name = self.folder.disk, name or place.name
        disk.make_folders(self.folder.set_aside)
        target = self.folder.set_aside / f"{name}.{why}.{secrets.token_hex(4)}"
        disk.rename(place, target)
        disk.flush_folder(self.folder.set_aside)
        if why == "damaged":
            self._undo_if_whole(target, name)

    def _undo_if_whole(self, target: Path, name: str) -> None:
        """Put `target` back if, between our look and our move, another process had repaired the record."""
        with suppress(RecordError, OSError):
            self._load(target, name)
            self.folder.disk.rename(target, self.folder.records / name)

    def done(self) -> frozenset[str]:
        """Hashes of the trials that are recorded in any batch; damaged records are set aside first, so that they run again."""
        return frozenset(self.read().trials["trial"])

    def read(self, *, repair: bool = True) -> Contents:
        """All records, proved; those that are not whole are left out of the tables and told in `problems`.

        Args:
            repair: move damaged records aside so that a run computes them again; where the folder cannot be written, or if
                this is false, they stay where they are.
        """
        problems = self._conflicts()
        names = self._names(self.folder.records)
        found = (self._read_one(self.folder.records / name, problems, repair) for name in names if not name.startswith("."))
        return gather(self.folder, (record for record in found if record is not None), problems)

    def _names(self, folder: Path) -> list[str]:
        try:
            return sorted(_second_look(lambda: self.folder.disk.listdir(folder)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"folder `{folder}` cannot be read: {reason(error)}") from error

    def _conflicts(self) -> list[str]:
        names = [name for name in self._names(self.folder.set_aside) if ".conflict." in name]
        return [
            f"`{self.folder.set_aside / name}` is an unequal result of the same batch: compare the two, then delete it" for name in names
        ]

    def _read_one(self, place: Path, problems: list[str], repair: bool) -> Stored | None:
        if not is_record_name(place.name):
            problems.append(f"`{place}` is not the name of a record; it is ignored")
            return None
        try:
            return self._examine(place)
        except FileNotFoundError:
            return None
        except RecordError as error:
            problems.append(f"record `{place}`: {error}; {self._settle(place, repair)}")
        except OSError as error:
            problems.append(f"record `{place}` cannot be read: {reason(error)}; it is ignored")
        return None

    def _settle(self, place: Path, repair: bool) -> str:
        """What became of the damaged record at `place`, in words."""
        if not repair:
            return "it is ignored"
        try:
            self._set_aside(place, "damaged")
        except FileNotFoundError:
            return "another process has set it aside"
        except OSError as error:
            return f"it is ignored, for it cannot be set aside: {reason(error)}"
        return "it is set aside, and a run computes it again"
