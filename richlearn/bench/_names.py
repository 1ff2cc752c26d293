"""Names that may stand under a run's folder: of records, which follow from a hash, and of files that users' words name."""

import os

from richlearn.errors import RecordError, UsageError

_RECORD_DIGITS = 16
_HEX = frozenset("0123456789abcdef")


def check_batch(batch: str) -> None:
    """Raise `RecordError` unless `batch` is a SHA-256 in lower-case hexadecimal digits."""
    if len(batch) != 64 or set(batch) - _HEX:
        raise RecordError(f"`{batch!s:.80}` is no batch hash: 64 lower-case hexadecimal digits are expected")


def record_name(batch: str) -> str:
    """The name of the folder that holds the record of `batch`."""
    check_batch(batch)
    return batch[:_RECORD_DIGITS]


def is_record_name(name: str) -> bool:
    """Whether a folder of this name may hold a record."""
    return len(name) == _RECORD_DIGITS and not set(name) - _HEX


def component(name: str) -> str:
    """`name`, if it is a single path component that cannot lead out of its folder.

    Raises:
        UsageError: if it is empty, has more than 200 bytes, a separator or a NUL, or is `.` or `..`.
    """
    if name in {"", ".", ".."} or set(name) & {"/", "\\", "\0"} or len(os.fsencode(name)) > 200:
        raise UsageError(f"`{name!s:.80}` cannot name a file in the run's folder: expected 1 to 200 bytes, no `/`, `\\` or `..`")
    return name
