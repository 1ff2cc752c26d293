"""The tables of many records as one: each trial once, in an order that does not depend on the files."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from richlearn.bench._record import CURVES_FILE, Stored, decode_curves
from richlearn.bench.folder import RunFolder
from richlearn.bench.tables import CURVES, TRIALS, to_frame
from richlearn.errors import RecordError, UsageError

_COMPACT = 256


@dataclass(frozen=True, eq=False)
class Contents:
    """What a run's folder holds: proved records only.

    Args:
        trials: columns of `tables.TRIALS`, sorted by trial; of a trial in several batches, the one of the smallest batch hash.
        environments: a row per batch, indexed by its hash.
        problems: a line for each record that was not read, and for each trial whose repeats differ.
    """

    trials: pd.DataFrame
    environments: pd.DataFrame
    problems: list[str]
    _sums: dict[str, str] = field(repr=False)
    _folder: RunFolder = field(repr=False)

    def curves(self, trials: Iterable[str] | None = None) -> pd.DataFrame:
        """The curves of `trials` (default: all), read now: columns of `tables.CURVES`, sorted by trial and step.

        Raises:
            UsageError: if one of `trials` is not among these contents.
            RecordError: if a file has changed since these contents were read.
        """
        batch_of = dict(zip(self.trials["trial"], self.trials["batch"], strict=True))
        wanted: dict[str, list[str]] = {}
        for trial in sorted(set(batch_of if trials is None else trials)):
            if trial not in batch_of:
                raise UsageError(f"trial `{trial}` is not recorded in `{self._folder.path}`: `trials` lists those that are")
            wanted.setdefault(batch_of[trial], []).append(trial)
        tables = [self._read_curves(batch, wanted[batch]) for batch in sorted(wanted)]
        frame = to_frame(pa.concat_tables([CURVES.empty_table(), *tables]))
        return frame.sort_values(["trial", "step"], ignore_index=True)

    def _read_curves(self, batch: str, trials: list[str]) -> pa.Table:
        path: Path = self._folder.record(batch) / CURVES_FILE
        try:
            table = decode_curves(self._folder.disk.read_file(path), self._sums[batch])
        except (OSError, RecordError) as error:
            raise RecordError(f"record `{path.parent}`: {error}; read the records again") from error
        return table.filter(pc.field("trial").isin(trials))


def gather(folder: RunFolder, records: Iterable[Stored], problems: list[str]) -> Contents:
    """`records` as tables; `problems` is taken over and gains a line for each trial whose repeats differ."""
    tables, environments, sums = [TRIALS.empty_table()], {}, {}
    for record in records:
        tables.append(record.trials)
        environments[record.batch] = record.environment
        sums[record.batch] = record.curves_sum
        # Thousands of small Arrow tables cost many times their bytes.
        if len(tables) > _COMPACT:
            tables = [pa.concat_tables(tables).combine_chunks()]
    trials = _count_once(to_frame(pa.concat_tables(tables)), problems)
    frame = pd.DataFrame.from_dict({batch: environments[batch] for batch in sorted(environments)}, orient="index")
    return Contents(trials, frame.rename_axis("batch"), problems, sums, folder)


def _count_once(trials: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    """`trials` with one row each, that of the smallest batch hash; repeats with other values become problems."""
    ordered = trials.sort_values(["trial", "batch"], ignore_index=True)
    repeats = ordered.loc[ordered.duplicated("trial", keep=False)]
    unlike = repeats.drop_duplicates(subset=[name for name in TRIALS.names if name != "batch"])
    for trial, group in unlike[unlike.duplicated("trial", keep=False)].groupby("trial"):
        first, *others = group["batch"]
        problems.append(
            f"trial `{trial}` has unequal values in batches `{first}` (counts) and {', '.join(f'`{other}`' for other in others)}"
        )
    return ordered.drop_duplicates("trial", ignore_index=True)
