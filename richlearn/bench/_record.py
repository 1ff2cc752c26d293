"""One record: what it holds, its bytes, and the proof that bytes read back are those of a whole record.

A record's folder holds four files. `digest.json` is canonical: it follows from the other three and the batch hash alone, so
reading compares it byte by byte with what it should be, and one flipped bit anywhere shows.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from richlearn.bench._names import check_batch, record_name
from richlearn.bench.content import canonical_json, content_hash, text_hash
from richlearn.bench.tables import CURVES, TRIALS, VERSION, complete, to_arrow
from richlearn.errors import RecordError

_TRIALS, CURVES_FILE, _ENVIRONMENT, _DIGEST = "trials.parquet", "curves.parquet", "environment.json", "digest.json"
# The digest comes last: a copy that was cut short lacks it.
FILES = (_TRIALS, CURVES_FILE, _ENVIRONMENT, _DIGEST)

_TEXT = [field.name for field in TRIALS if field.type == pa.string()]
_FLOATS = [field.name for field in CURVES if field.type == pa.float64()]
_FLOAT_LISTS = [f"{field.name}.list.element" for field in CURVES if pa.types.is_list(field.type)]
# Measured: numbers of a few rows cost more to decompress than they save; δ of many units shrink by a third when bytes are split.
_PLAIN: dict[str, Any] = {"use_dictionary": False, "write_statistics": False}
_TRIALS_OPTIONS = _PLAIN | {"compression": dict.fromkeys(_TEXT, "zstd")}
_CURVES_OPTIONS = _PLAIN | {"compression": "zstd", "use_byte_stream_split": [*_FLOATS, *_FLOAT_LISTS]}


@dataclass(frozen=True, eq=False)
class Record:
    """What one finished batch leaves behind.

    Args:
        batch: SHA-256 of the batch, 64 hexadecimal digits.
        trials: a row per trial, columns of `tables.TRIALS` (absent ones become missing values).
        curves: a row per trial and measured step, columns of `tables.CURVES`.
        environment: what differs between equal runs (times, host, versions); JSON values.

    Raises:
        RecordError: if the parts do not belong together.
    """

    batch: str
    trials: pd.DataFrame
    curves: pd.DataFrame
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        check_batch(self.batch)
        if absent := {"trial", "batch", "spec"} - set(self.trials.columns):
            raise RecordError(f"trials of batch `{self.batch}` lack the columns {sorted(absent)}")
        _check_trials(self.batch, *(self.trials[name].tolist() for name in ("trial", "batch", "spec")))
        if strangers := set(self.curves["trial"] if len(self.curves) else ()) - set(self.trials["trial"]):
            raise RecordError(f"curves of batch `{self.batch}` name the trial `{min(strangers)}`, which is not among its trials")


@dataclass(frozen=True, eq=False)
class Stored:
    """A record that was read back and proved whole; its curves stay on disk, known by their SHA-256."""

    batch: str
    content: str
    curves_sum: str
    trials: pa.Table
    environment: dict[str, Any]


def _check_trials(batch: str, trials: list[str], batches: list[str], specs: list[str]) -> None:
    if not trials or len(set(trials)) < len(trials):
        raise RecordError(
            f"batch `{batch}` must hold at least one trial and each only once; it holds {len(trials)}, {len(set(trials))} distinct"
        )
    if set(batches) != {batch}:
        raise RecordError(f"trials of batch `{batch}` say that they are of batch `{next(other for other in batches if other != batch)}`")
    for trial, spec in zip(trials, specs, strict=True):
        if not isinstance(spec, str) or text_hash(spec) != trial:
            raise RecordError(f"trial `{trial}` of batch `{batch}` is not the SHA-256 of its `spec`")


def _table_bytes(frame: pd.DataFrame, schema: pa.Schema, order: list[str], options: dict[str, Any]) -> bytes:
    # A batch that measured nothing may come without columns to sort by.
    table = to_arrow(frame.sort_values(order, kind="stable") if len(frame) else frame, schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def _digest_bytes(batch: str, sums: dict[str, str]) -> bytes:
    content = content_hash({"batch": batch, "version": VERSION, "trials": sums[_TRIALS], "curves": sums[CURVES_FILE]})
    return canonical_json({"batch": batch, "content": content, "files": sums, "version": VERSION}).encode()


def _sums(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(files[name]).hexdigest() for name in FILES if name != _DIGEST}


def content_of(files: dict[str, bytes]) -> str:
    """The digest of a record's content, its environment apart, as its `digest.json` says."""
    return json.loads(files[_DIGEST])["content"]


def encode(record: Record) -> dict[str, bytes]:
    """The bytes of each file of `record`: equal content gives equal bytes, in whatever order its rows came.

    (Under one version of pyarrow, which signs the Parquet files.)
    """
    files = {
        _TRIALS: _table_bytes(record.trials, TRIALS, ["trial"], _TRIALS_OPTIONS),
        CURVES_FILE: _table_bytes(record.curves, CURVES, ["trial", "step"], _CURVES_OPTIONS),
        _ENVIRONMENT: json.dumps(record.environment, sort_keys=True, indent=1, allow_nan=False).encode(),
    }
    return files | {_DIGEST: _digest_bytes(record.batch, _sums(files))}


def _claims(digest: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(digest)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"`{_DIGEST}` is damaged") from error
    if not isinstance(claims, dict) or not isinstance(claims.get("batch"), str) or not isinstance(claims.get("files"), dict):
        raise RecordError(f"`{_DIGEST}` is damaged")
    if claims.get("version") != VERSION:
        raise RecordError(f"is of version {claims.get('version')!s:.20}, and this richlearn reads version {VERSION}")
    check_batch(claims["batch"])
    return claims


def _environment(data: bytes) -> dict[str, Any]:
    try:
        environment = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"`{_ENVIRONMENT}` is no JSON: {error}") from error
    if not isinstance(environment, dict):
        raise RecordError(f"`{_ENVIRONMENT}` must hold one JSON object")
    return environment


def decode(name: str, files: dict[str, bytes]) -> Stored:
    """The record that `files` are, proved: every byte, its version, its place `name` and the hash of each trial.

    Raises:
        RecordError: with what is wrong, without the record's name.
    """
    claims, sums = _claims(files[_DIGEST]), _sums(files)
    if files[_DIGEST] != _digest_bytes(claims["batch"], sums):
        broken = [file for file, value in sums.items() if claims["files"].get(file) != value]
        raise RecordError(f"`{broken[0] if len(broken) == 1 else _DIGEST}` is damaged: its bytes are not those that were written")
    if record_name(claims["batch"]) != name:
        raise RecordError(f"lies in another's place: it is the record of batch `{claims['batch']}`")
    table = _read(files[_TRIALS], TRIALS)
    _check_trials(claims["batch"], *(table[column].to_pylist() for column in ("trial", "batch", "spec")))
    return Stored(claims["batch"], claims["content"], sums[CURVES_FILE], table, _environment(files[_ENVIRONMENT]))


def decode_curves(data: bytes, expected: str) -> pa.Table:
    """The table of curves in `data`, whose SHA-256 must still be `expected`."""
    if hashlib.sha256(data).hexdigest() != expected:
        raise RecordError(f"`{CURVES_FILE}` has changed since it was checked")
    return _read(data, CURVES)


def _read(data: bytes, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"holds a table that pyarrow cannot read: {error}") from error
    if (found := complete(table, schema)) is None:
        raise RecordError(f"has other columns than version {VERSION} prescribes")
    return found
