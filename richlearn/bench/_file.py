"""A leaderboard as a file: the same bytes for the same table, whole or absent, and checked cell by cell."""

import csv
import io
from pathlib import Path

import pandas as pd

from richlearn.bench._disk import Disk
from richlearn.bench._staging import staging_name
from richlearn.bench.columns import BEYOND, COLUMNS, NAMES, as_text
from richlearn.bench.scores import SCORES
from richlearn.errors import RecordError, StorageError


def to_text(frame: pd.DataFrame) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([as_text(cell) for cell in row] for row in frame.itertuples(index=False))
    return buffer.getvalue()


def amount(cell: object) -> tuple[float, bool]:
    """The number in a cell of `value`, `ci_low` or `ci_high`, and whether it is only a lower bound; ``nan`` where there is none.

    A number has the digits that the CSV shows, so that a picture of a table and of its file are the same.

    >>> amount("> 20000"), amount(0.5), amount("not run")
    ((20000.0, True), (0.5, False), (nan, False))
    """
    text = as_text(cell)
    try:
        return float(text.removeprefix(BEYOND)), text.startswith(BEYOND)
    except ValueError:
        return float("nan"), False


def _relations(row: dict[str, str]) -> list[str]:
    """What is wrong between the cells of one row."""
    value, low, high = (amount(row[name])[0] for name in ("value", "ci_low", "ci_high"))
    found = []
    if low > value or high < value:
        found.append(f"`value`: expected a number between `ci_low` {row['ci_low']} and `ci_high` {row['ci_high']}; got `{row['value']}`")
    ranked = row["score"] not in SCORES or SCORES[row["score"]].ranked
    if (row["rank"] == "") != (value != value or not ranked):
        found.append(f"`rank`: expected one exactly where `value` is a number; got `{row['rank']}` beside `{row['value']}`")
    return found


def _row_problems(row: dict[str, str]) -> list[str]:
    cells = [column.problem(row[column.name]) for column in COLUMNS]
    return [problem for problem in cells if problem] or _relations(row)


def _problems(text: str) -> list[str]:
    try:
        header, *rows = csv.reader(io.StringIO(text), strict=True)
    except (ValueError, csv.Error) as error:
        return [f"not a CSV table: {error}" if text else "expected a header; the file is empty"]
    if tuple(header) != NAMES:
        missing, extra = set(NAMES) - set(header), set(header) - set(NAMES)
        return [f"line 1: expected the columns of schema 1 in their order; missing {sorted(missing)}, unknown {sorted(extra)}"]
    found, seen = [], {}
    for line, cells in enumerate(rows, start=2):
        if len(cells) != len(NAMES):
            found.append(f"line {line}: expected {len(NAMES)} cells; got {len(cells)}")
            continue
        row = dict(zip(NAMES, cells, strict=True))
        found += [f"line {line}: {problem}" for problem in _row_problems(row)]
        first = seen.setdefault((row["scheme"], row["parameters"], row["score"]), line)
        if first != line:
            found.append(f"line {line}: expected one row for each cell and score; line {first} is the same")
    return found


def validate(path: Path) -> list[str]:
    """What is wrong with the leaderboard at `path`, one line each that names the line and the column; empty: nothing.

    Args:
        path: of a CSV that `write` made, or that claims to be one.
    """
    try:
        return _problems(Path(path).read_bytes().decode())
    except UnicodeDecodeError as error:
        return [f"expected UTF-8 text: {error}"]
    except OSError as error:
        return [f"cannot be read: {error.strerror}"]


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` (from `build`) to `path`: checked first, then put in place whole.

    Raises:
        RecordError: a cell is not what its column allows.
        StorageError: the operating system refuses; what stood at `path` stays.
    """
    text = to_text(frame)
    if found := _problems(text):
        raise RecordError(f"leaderboard `{path}` is not written: {'; '.join(found[:3])}")
    path, disk = Path(path), Disk()
    draft = path.with_name(staging_name())
    try:
        disk.write_file(draft, text.encode())
        disk.rename(draft, path)
        disk.flush_folder(path.parent)
    except OSError as error:
        disk.remove(draft)
        raise StorageError(f"leaderboard `{path}` cannot be written: {error.strerror}; free space or choose another `--out`") from error


def read(path: Path) -> pd.DataFrame:
    """The leaderboard at `path`, every cell as its text (blank: empty).

    Raises:
        RecordError: it is not a valid leaderboard; the first problems are named.
    """
    if found := validate(path):
        raise RecordError(f"leaderboard `{path}`: {'; '.join(found[:3])}")
    return pd.read_csv(path, dtype=str, keep_default_na=False)
