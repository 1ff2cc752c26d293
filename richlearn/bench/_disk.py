"""The store's system calls: the one seam through which tests inject faults, and the few steps built from them.

The model is SQLite's: what is written is whole or absent after a crash, because bytes are flushed before the rename that
publishes them, and the folder that holds the new name is flushed before anyone is told.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 18
_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


@dataclass(frozen=True)
class Disk:
    """The operating system as the store sees it; a test replaces single calls to fail, drop or reorder them."""

    open: Callable[..., int] = os.open
    read: Callable[[int, int], bytes] = os.read
    write: Callable[[int, memoryview], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    close: Callable[[int], None] = os.close
    mkdir: Callable[[Path], None] = os.mkdir
    rename: Callable[[Path, Path], None] = os.rename
    link: Callable[[Path, Path], None] = os.link
    unlink: Callable[[Path], None] = os.unlink
    rmdir: Callable[[Path], None] = os.rmdir
    listdir: Callable[[Path], list[str]] = os.listdir

    def read_file(self, path: Path) -> bytes:
        """All bytes of `path`."""
        handle = self.open(path, os.O_RDONLY)
        try:
            return b"".join(iter(lambda: self.read(handle, _CHUNK), b""))
        finally:
            self.close(handle)

    def write_file(self, path: Path, data: bytes) -> None:
        """A new file `path` with `data`, flushed to the device; an error leaves a part behind, for the caller to remove."""
        handle = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self.write(handle, rest) :]
            self.fsync(handle)
        except BaseException:
            with suppress(OSError):
                self.close(handle)
            raise
        # Network file systems report a full quota only here.
        self.close(handle)

    def flush_folder(self, path: Path) -> None:
        """Make the names in folder `path` durable, where the file system offers that."""
        try:
            handle = self.open(path, os.O_RDONLY)
            try:
                self.fsync(handle)
            finally:
                self.close(handle)
        except OSError as error:
            if error.errno not in _NO_FOLDER_FLUSH:
                raise

    def make_folders(self, path: Path) -> None:
        """Folder `path` and those above it that are missing; its name is flushed even if it was there: its maker may have died first."""
        try:
            self.mkdir(path)
        except FileExistsError:
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        except FileNotFoundError:
            if path.parent == path:
                raise
            self.make_folders(path.parent)
            self.make_folders(path)
        self.flush_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder of files, as far as the operating system allows; never raises `OSError`."""
        with suppress(OSError):
            if not path.is_dir():
                self.unlink(path)
                return
            for name in self.listdir(path):
                self.unlink(path / name)
            self.rmdir(path)
