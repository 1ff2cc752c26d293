"""What a protocol comes to: its batches, and which of them are done, given the records."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from richlearn.bench.content import differences
from richlearn.bench.rows import SchemeRow
from richlearn.bench.search import Outcomes, Search
from richlearn.bench.search import centre as search_centre
from richlearn.bench.trials import Batch, Trial, TrialMaker
from richlearn.errors import UsageError, nearest

State = Literal["done", "missing", "failed"]
_SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Selection:
    """Which batches of a plan a process works on; the plan itself does not depend on it.

    Attributes:
        only: `key=value` pairs on `scheme`, `seed`, `train_size` or a scheme's parameter; a batch is selected whole if a trial matches
            all.
        shard: "i/n": every n-th batch, from the i-th (1 ≤ i ≤ n).
    """

    only: tuple[str, ...] = ()
    shard: str = "1/1"

    def __post_init__(self) -> None:
        match = _SHARD.fullmatch(self.shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"`--shard {self.shard}`: expected i/n with 1 ≤ i ≤ n, such as 1/8")
        for pair in self.only:
            if "=" not in pair:
                raise UsageError(f"`--only {pair}`: expected key=value, such as scheme=upstream or tau=0.1")

    def check(self, rows: Sequence[SchemeRow], seeds: Collection[int], train_sizes: Collection[int] = ()) -> None:
        """Raise `UsageError` where `only` names a key, or a value of it, that no trial has."""
        known: dict[str, list[Any]] = {"scheme": [row.name for row in rows], "seed": list(seeds)}
        known |= {"train_size": list(train_sizes)} if train_sizes else {}
        for name, value in (item for row in rows for item in row.parameters.items()):
            known.setdefault(name, []).append(value)
        for key, _, text in (pair.partition("=") for pair in self.only):
            if key not in known:
                raise UsageError(f"`--only {key}=…`: no such key; {nearest(key, known)}")
            if not any(_same(value, text) for value in known[key]):
                raise UsageError(f"`--only {key}={text}`: no trial has this value; {nearest(text, set(map(str, known[key])))}")

    def _matches(self, trial: Trial) -> bool:
        values = {"scheme": trial.row.name, "seed": trial.seed, "train_size": trial.train_size, **trial.row.parameters}
        pairs = [pair.partition("=") for pair in self.only]
        # One size is searched for all: whoever asks for another still needs its outcome.
        return all(
            (trial.role == "search" and key == "train_size") or (key in values and _same(values[key], text)) for key, _, text in pairs
        )

    def __call__(self, batches: Sequence[Batch]) -> list[Batch]:
        """The selected batches, in order."""
        index, count = map(int, self.shard.split("/"))
        return [batch for batch in batches[index - 1 :: count] if any(map(self._matches, batch.trials))]


def _same(value: Any, text: str) -> bool:
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return str(value) == text


@dataclass(frozen=True)
class Planned:
    """A batch and where it stands."""

    batch: Batch
    state: State


@dataclass(frozen=True)
class Plan:
    """All batches that can be named now, in order, and how many scored trials wait for a search.

    Attributes:
        planned: batches with their state.
        after_search: scored trials whose learning rate is not known yet.
        stale: a line for each cell whose records belong to other content, naming the fields that differ.
    """

    planned: list[Planned]
    after_search: int = 0
    stale: list[str] = field(default_factory=list)

    @property
    def batches(self) -> list[Batch]:
        """All batches, in order."""
        return [planned.batch for planned in self.planned]

    @property
    def trials(self) -> list[Trial]:
        """All trials of all batches."""
        return [trial for batch in self.batches for trial in batch.trials]

    def todo(self, *, retry_failed: bool) -> list[Batch]:
        """Batches that are not done: failed ones only if they shall be tried again."""
        states = {"missing", "failed"} if retry_failed else {"missing"}
        return [planned.batch for planned in self.planned if planned.state in states]

    def count(self, state: State) -> int:
        """How many batches are in `state`."""
        return sum(planned.state == state for planned in self.planned)


def _stale(maker: TrialMaker, rows: Sequence[SchemeRow], trials: pd.DataFrame, planned: Collection[str]) -> list[str]:
    """Recorded trials of this protocol whose content is not what a run would compute today."""
    lines, known = [], {row.identity for row in rows}
    strangers = trials[(trials["protocol_hash"] == maker.protocol.hash) & ~trials["trial"].isin(planned) & (trials["role"] == "score")]
    for (scheme, parameters), group in strangers.groupby(["scheme", "parameters"], sort=True):
        there = json.loads(group["spec"].iloc[0])
        row = SchemeRow(str(scheme), json.loads(str(parameters)))
        if row.identity not in known:
            continue
        size = there["task"]["parameters"]["train_size"] if maker.protocol.train_sizes else None
        here = json.loads(maker.trial(row, there["seed"], there["lr"], train_size=size).spec)
        if changed := differences(there, here):
            lines.append(f"{row.label}: {len(group)} recorded trial(s) are stale: {'; '.join(changed)}")
    return lines


def make_plan(
    maker: TrialMaker,
    groups: Sequence[Sequence[SchemeRow]],
    recorded: pd.DataFrame,
    failed: Collection[str] = (),
    centres: Callable[[SchemeRow], tuple[float, str | None]] | None = None,
) -> Plan:
    """The plan of a protocol, a pure function of it and of what is recorded.

    Args:
        maker: of the protocol's trials.
        groups: rows that form batches together; the protocol's own first.
        recorded: the trials table of the run's folder.
        failed: hashes, or their beginnings, of batches that raised.
        centres: where each row's learning-rate search starts; by default computed from the network.
    """
    outcomes: Outcomes = {row["trial"]: row for row in recorded.to_dict("records")}  # type: ignore[misc]
    planned: list[Planned] = []
    waiting = 0
    for rows in groups:
        batches, missing = _group(maker, list(rows), outcomes, centres or remembered(maker))
        planned += [Planned(batch, _state(batch, outcomes, failed)) for batch in batches]
        waiting += missing
    names = {trial.hash for item in planned for trial in item.batch.trials}
    return Plan(planned, waiting, _stale(maker, [row for rows in groups for row in rows], recorded, names) if len(recorded) else [])


def remembered(maker: TrialMaker) -> Callable[[SchemeRow], tuple[float, str | None]]:
    """`search.centre`, computed once a row."""
    known: dict[str, tuple[float, str | None]] = {}

    def look(row: SchemeRow) -> tuple[float, str | None]:
        key = row.identity
        if key not in known:
            known[key] = search_centre(maker, row)
        return known[key]

    return look


def _state(batch: Batch, outcomes: Mapping[str, Any], failed: Collection[str]) -> State:
    if all(trial.hash in outcomes for trial in batch.trials):
        return "done"
    return "failed" if any(batch.hash.startswith(name) for name in failed) else "missing"


def _group(maker: TrialMaker, rows: list[SchemeRow], outcomes: Outcomes, centres) -> tuple[list[Batch], int]:
    """The batches of one group of rows, and how many scored trials wait for the end of its search."""
    if maker.protocol.search is None:
        return maker.batches(maker.scored(rows)), 0
    search, batches = Search(maker, rows, centres), list[Batch]()
    for trials, complete in search.rounds(outcomes):
        batches += maker.batches(trials)
        if not complete:
            return batches, len(rows) * len(maker.protocol.seeds) * max(1, len(maker.protocol.train_sizes))
    return batches + maker.batches(maker.scored(rows, search.found(outcomes))), 0
