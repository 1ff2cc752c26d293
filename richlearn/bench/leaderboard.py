"""From records to the ranked table: one row for each cell and score, derived anew from the trials every time."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from richlearn import catalog
from richlearn.bench import columns, statistics
from richlearn.bench._file import amount, read, to_text, validate, write
from richlearn.bench._render import render
from richlearn.bench.columns import BETWEEN, BEYOND, NOT_APPLICABLE, NOT_RUN
from richlearn.bench.content import canonical_json
from richlearn.bench.scores import Score, learned_at, score

__all__ = ["amount", "build", "read", "render", "to_text", "validate", "write"]

_MEASURED = ("kernel_distance", "hamming_distance", "parameter_distance", "delta_init", "delta_drift")
_ENVIRONMENT = ("device", "richlearn", "torch", "lightning", "commit")


def _known(values: pd.Series) -> np.ndarray:
    known = values.to_numpy(np.float64)
    return known[~np.isnan(known)]


def _mean(values: pd.Series) -> float | None:
    known = _known(values)
    return float(known.mean()) if known.size else None


def _updates(trials: pd.DataFrame) -> pd.Series:
    """What each run took: its budget, or less where it ended before."""
    return trials["stopped_at"].fillna(trials["steps"]) if "stopped_at" in trials else trials["steps"]


def _joined(values: pd.Series) -> str | None:
    """The distinct values in order, with ` | ` between."""
    return BETWEEN.join(sorted({columns.as_text(value) for value in values.dropna().unique()} - {""})) or None


def _verdict(trials: pd.DataFrame) -> str | None:
    """The commonest regime and its share; a diverged run counts as `diverged`, of equally common ones the first by name."""
    verdicts = trials["regime"].mask(trials["status"] == "diverged", "diverged").dropna()
    if verdicts.empty:
        return None
    verdict, count = min(Counter(verdicts).items(), key=lambda item: (-item[1], item[0]))
    return f"{verdict} {100 * count / len(trials):.0f}%"


@dataclass(frozen=True)
class _Row:
    """All trials of one cell, in a fixed order, and what every score says alike about them."""

    cell: Any
    trials: pd.DataFrame
    searched: pd.DataFrame
    asked: int
    sizes: int = 1

    @classmethod
    def of(cls, cell: Any, trials: pd.DataFrame, searched: pd.DataFrame, protocol: Any) -> "_Row":
        """The row with the seeds that have a trial of every size of the training set."""
        sizes = max(1, len(protocol.train_sizes))
        whole = trials.groupby("seed")["trial"].transform("size") >= sizes
        return cls(cell, trials[whole], searched, len(protocol.seeds), sizes)

    @cached_property
    def shown(self) -> pd.DataFrame:
        """The trials that stand for the row: of several sizes the first one at or above each seed's P*, else the largest."""
        if self.sizes == 1 or self.trials.empty or self.reason is not None:
            return self.trials
        needed = self.trials["seed"].map(learned_at(self.trials))
        enough = self.trials["train_size"].where(self.trials["train_size"] >= needed, math.inf)
        ordered = self.trials.assign(enough=enough, size=-self.trials["train_size"]).sort_values(["seed", "enough", "size"], kind="stable")
        return ordered.drop_duplicates("seed").drop(columns=["enough", "size"])

    @cached_property
    def reason(self) -> str | None:
        """Why the scheme cannot serve, or None."""
        found = self.trials.loc[self.trials["status"] == "not_applicable", "reason"]
        return None if found.empty else columns.as_text(found.iloc[0])

    @cached_property
    def diverged(self) -> list[int]:
        return sorted(self.trials.loc[self.trials["status"] == "diverged", "seed"].unique())

    @property
    def missing(self) -> str | None:
        """What stands in place of a value where there is none."""
        if self.reason is not None:
            return NOT_APPLICABLE + self.reason
        return NOT_RUN if self.trials.empty else None

    def described(self) -> dict[str, Any]:
        """The columns that say which row it is, and how many seeds it has."""
        count = self.trials["seed"].nunique()
        served = self.reason is None
        return {
            "scheme": self.cell.name,
            "parameters": canonical_json(self.cell.parameters),
            "seeds": (str(count) if count == self.asked else f"{count}/{self.asked}") if served else None,
            "failed": len(self.diverged) if served and count else None,
            "lr": _joined(self.trials["lr"]) if served else None,
            "search_steps": int(_known(_updates(self.searched)).sum()),
        }

    def measured(self) -> dict[str, Any]:
        """The columns that say how the networks moved."""
        if self.missing:
            return {}
        found: dict[str, Any] = {name: _mean(self.shown[name]) for name in _MEASURED}
        times = _known(self.shown["measured_at"])
        return {"regime": _verdict(self.shown), **found, "measured_at": float(np.median(times)) if times.size else None}

    def made(self, environments: pd.DataFrame) -> dict[str, Any]:
        """The columns that say where, when and by which code; of unlike batches the several values."""
        members = self.trials["batch"].value_counts(sort=False).sort_index()
        batches = environments.loc[environments.index.isin(members.index)].sort_index()
        if self.missing or batches.empty:
            return {}
        seconds = batches["wall_seconds"] * members.reindex(batches.index) / batches["members"]
        return {
            "wall_seconds": float(_known(seconds).sum()),
            **{name: _joined(batches[name]) for name in _ENVIRONMENT},
            "precision": _joined(self.trials["precision"]),
            "date": max(batches["date"].dropna(), default=None),
        }


@dataclass(frozen=True)
class _Scored:
    """One row under one score: its value for each seed, `inf` where it is censored at `limit`, and the statistics of them."""

    row: _Row
    score: Score
    values: pd.Series
    bounded: bool
    limit: int

    @classmethod
    def of(cls, row: _Row, wanted: Score, worst: float, limit: int) -> "_Scored":
        raw = wanted.sample(row.trials if row.reason is None else row.trials.iloc[:0])
        lost = np.isinf(raw) if wanted.over_sizes else raw.index.isin(row.diverged) | np.isinf(raw)
        if wanted.family.censors:
            values = raw.mask(lost).fillna(math.inf)
            return cls(row, wanted, values, wanted.family.bounds and bool(np.isinf(values).any()), limit)
        return cls(row, wanted, raw.mask(lost, worst), bool(lost.any()), limit)

    @cached_property
    def estimate(self) -> statistics.Estimate | None:
        """None: there is no number, because nothing was run, the scheme cannot serve, or a finished run has no value."""
        family, values = self.score.family, self.values.to_numpy()
        if self.row.missing or np.isnan(values).any() or (not family.censors and math.isinf(values.max())):
            return None
        return family.estimate(np.minimum(values, self.limit) if family.bounds else values)

    def _shown(self, number: float, bounded: bool = False) -> float | str | None:
        if math.isnan(number):
            return None
        if math.isinf(number):
            return f"{BEYOND}{self.limit}"
        return f"{BEYOND}{columns.as_text(number)}" if bounded else number

    def cells(self) -> dict[str, Any]:
        """The columns that differ between scores, rank and p-value apart."""
        found: dict[str, Any] = {"score": self.score.name, "better": self.score.better}
        if self.estimate is None:
            return {**found, "value": self.row.missing or math.nan}
        found["value"] = self._shown(self.estimate.value, self.bounded)
        if not self.bounded and not math.isnan(self.estimate.low):
            interval = {"ci_low": self.estimate.low, "ci_high": self.estimate.high}
            found |= {name: self._shown(end) for name, end in interval.items()} | {"ci_level": self.estimate.level}
        if self.score.family.censors:
            found["reached"] = statistics.share_reached(self.values)
        return found

    def against(self, baseline: "_Scored") -> np.ndarray:
        """Differences from `baseline` on the score's scale, one for each seed that both have."""
        seeds = self.values.index.intersection(baseline.values.index).sort_values()
        pair = [self.score.family.compared(each.values.loc[seeds].to_numpy(), self.limit) for each in (self, baseline)]
        return pair[0] - pair[1]


def _p_values(rows: list[_Scored], baseline: str | None) -> list[float | str | None]:
    """Each row against the baseline's, Holm-corrected over all other rows that can serve, those not yet run included."""
    reference = next((row for row in rows if baseline in (row.row.cell.name, row.row.cell.label)), None)
    if baseline is None or reference is None or reference.estimate is None:
        return [None] * len(rows)
    others = [row for row in rows if row is not reference and row.row.reason is None]
    tested = [row for row in others if row.estimate is not None]
    differences = [row.against(reference) for row in tested]
    decides = [each.size > 0 and statistics.can_decide(each.size, len(others)) for each in differences]
    raw = [statistics.sign_flip_test(each) if able else math.nan for each, able in zip(differences, decides, strict=True)]
    corrected = statistics.holm(raw + [math.nan] * (len(others) - len(tested)))
    found = {id(row): "n/a" if math.isnan(p) else float(p) for row, p in zip(tested, corrected, strict=False)}
    return [found.get(id(row)) for row in rows]


def _ranks(rows: list[_Scored]) -> list[int | None]:
    """1 + the number of rows with a better value; ties share, a row without a number has no rank."""
    sign = 1 if not rows or rows[0].score.better == "lower" else -1
    keys = [None if row.estimate is None or not row.score.ranked else sign * row.estimate.value for row in rows]
    known = np.sort([key for key in keys if key is not None])
    return [None if key is None else 1 + int(np.searchsorted(known, key, side="left")) for key in keys]


def _worst(wanted: Score, rows: list[_Row]) -> float:
    """What a diverged seed scores: the largest finite loss of any row, or of the zero predictor where that is larger.

    Of what is not ranked it has no number at all.
    """
    if not wanted.ranked or wanted.family.censors:
        return math.inf
    samples = [wanted.sample(row.trials[row.trials["status"] == "finished"]) for row in rows]
    losses = np.concatenate([_known(each) for each in [*samples, *(row.trials["zero_loss"] for row in rows)]])
    return max(losses[np.isfinite(losses)].tolist(), default=math.inf)


def _plain(trials: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float64 (missing: nan) and texts as objects: many small selections from extension arrays are slow."""
    numbers = trials.select_dtypes("number").columns.difference(["seed"])
    return pd.DataFrame(
        {name: trials[name].to_numpy(np.float64, na_value=np.nan) if name in numbers else trials[name].to_numpy(object) for name in trials}
    )


def _rows(protocol: Any, trials: pd.DataFrame) -> list[_Row]:
    """The cells of `protocol` with their trials: each trial once, of repeats the one of the smallest batch hash."""
    ordered = _plain(trials).sort_values(["seed", "trial", "batch"], kind="stable").drop_duplicates("trial")
    wanted = ordered["seed"].isin(list(protocol.seeds)) & (ordered["role"] == "score")
    groups = [dict(iter(part.groupby(["scheme", "parameters"]))) for part in (ordered[wanted], ordered[ordered["role"] == "search"])]
    found = []
    for cell in protocol.cells():
        key = cell.name, canonical_json(cell.parameters)
        scored, searched = (group.get(key, ordered.iloc[:0]) for group in groups)
        found.append(_Row.of(cell, scored, searched, protocol))
    return found


def _ranked(protocol: Any, rows: list[_Row], name: str, shared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows of the score `name`, best first, those without a rank last, equal ones in the order of the cells."""
    wanted = score(name)
    worst, limit = _worst(wanted, rows), max(protocol.train_sizes) if wanted.over_sizes else protocol.budget()
    scored = [_Scored.of(row, wanted, worst, limit) for row in rows]
    placed = zip(scored, _ranks(scored), _p_values(scored, protocol.baseline), shared, strict=True)
    task = catalog.TASKS.own.get(protocol.task.name)
    unit = wanted.unit or (task.loss if task else "loss")
    found = [{**also, **row.cells(), "unit": unit, "rank": rank, "p_value": p} for row, rank, p, also in placed]
    return sorted(found, key=lambda row: row["rank"] or math.inf)


def build(protocol: Any, trials: pd.DataFrame, environments: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard of `protocol`: one row for each cell and score, its columns those of `columns.COLUMNS`.

    Args:
        protocol: what was asked; its `cells()`, `seeds`, `train_sizes`, `scores`, `baseline`, `budget()` and names are read.
        trials: table of the protocol's trials (`tables.TRIALS`), in any order, repeats and search trials included.
        environments: what differs between equal runs, one row a batch; index: batch.

    Returns:
        numbers as numbers, what is missing as None (blank in the CSV); equal for equal records in any order.

    Raises:
        UsageError: the protocol names an unknown score.
    """
    rows = _rows(protocol, trials)
    asked = {
        "schema_version": columns.VERSION,
        "benchmark": protocol.name,
        "protocol_hash": protocol.hash,
        "network": protocol.network.name,
        "task": protocol.task.name,
        "steps": protocol.budget(),
    }
    shared = [{**asked, **row.described(), **row.measured(), **row.made(environments)} for row in rows]
    cells = [row for name in protocol.scores for row in _ranked(protocol, rows, name, shared)]
    return pd.DataFrame([[row.get(name) for name in columns.NAMES] for row in cells], columns=list(columns.NAMES), dtype=object)
