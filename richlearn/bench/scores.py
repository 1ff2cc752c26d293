"""What a benchmark scores, as data: where a score's values come from, and which statistics they get."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from richlearn.bench import statistics
from richlearn.bench.sample_complexity import sample_complexity
from richlearn.bench.statistics import Estimate
from richlearn.errors import UsageError, nearest

_SMALLEST = float(np.finfo(np.float64).tiny)  # keeps the logarithm of a loss that underflowed finite
TARGET = 0.1  # of the chance error: the test error that counts as learned (Petrini, Cagnetta et al. 2023)


@dataclass(frozen=True)
class Family:
    """The statistics of one kind of value.

    Attributes:
        estimate: values of a row, one a seed -> value and interval.
        compared: the scale on which two rows' values are subtracted, seed by seed.
        censors: whether a missing value says "beyond the limit" (``inf``); else a diverged seed gets the worst loss there is.
        bounds: of what censors, whether such values count as the limit and make the estimate a lower bound.
    """

    estimate: Callable[[np.ndarray], Estimate]
    compared: Callable[[np.ndarray, float], np.ndarray]
    censors: bool
    bounds: bool = False


LOSSES = Family(statistics.geometric_mean, lambda values, _: np.log(np.maximum(values, _SMALLEST)), censors=False)
TIMES = Family(statistics.median, lambda values, budget: np.log(np.clip(values, 1, budget)), censors=True)
SIZES = Family(statistics.geometric_mean, lambda values, largest: np.log(np.minimum(values, largest)), censors=True, bounds=True)
ERRORS = Family(statistics.largest, lambda values, _: np.log(np.maximum(values, _SMALLEST)), censors=False)


@dataclass(frozen=True)
class Score:
    """One score of a benchmark.

    Attributes:
        name: as protocols write it.
        unit: of the value; empty: what the task's loss is called.
        better: which direction is an improvement.
        family: its statistics.
        sample: the scored trials of one cell -> one value a seed (index: seed), missing where the run gives none.
        ranked: whether rows compete: how far theory is off is no merit of a scheme.
        over_sizes: whether it is taken over all sizes of the training set; its limit is then the largest of them, not the budget,
            and a diverged run is one that has learned nothing, not a lost seed.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    family: Family
    sample: Callable[[pd.DataFrame], pd.Series]
    ranked: bool = True
    over_sizes: bool = False

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"`better` of score `{self.name}` is lower or higher; got `{self.better}`")


def column(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    """The `sample` of a score that stands in one column of the trials table, one trial a seed."""

    def sample(trials: pd.DataFrame) -> pd.Series:
        values = pd.Series(trials[name].to_numpy(np.float64, na_value=np.nan), index=trials["seed"].to_numpy())
        return values[~values.index.duplicated()]

    return sample


def chance_error(zero_loss: float) -> float:
    """1 − 1/c of a classification into c classes, whose zero predictor has the cross-entropy ln c."""
    return 1 - float(np.exp(-zero_loss))


def learned_at(trials: pd.DataFrame) -> pd.Series:
    """P* of each seed: the training size at which the test error falls to a tenth of the chance error; ``inf`` beyond the largest.

    A diverged run errs as often as chance.
    """
    found = {}
    for seed, runs in trials.groupby("seed"):
        chance = chance_error(runs["zero_loss"].astype(float).iloc[0])
        errors = 1 - runs["test_accuracy"].astype(float).where(runs["status"] == "finished", 1 - chance)
        found[seed] = sample_complexity(runs["train_size"].astype(float), errors, TARGET * chance)
    return pd.Series(found, dtype=np.float64)


SCORES = {
    score.name: score
    for score in (
        Score("test_loss", "", "lower", LOSSES, column("test_loss")),
        Score("steps_to_goal", "updates", "lower", TIMES, column("sustained_reached")),
        Score("time_to_grok", "updates", "lower", TIMES, column("first_reached")),
        Score("time_to_train", "updates", "lower", TIMES, column("fit_first_reached")),
        Score("sample_complexity", "samples", "lower", SIZES, learned_at, over_sizes=True),
        Score("prediction_error", "relative", "lower", ERRORS, column("prediction_error"), ranked=False),
    )
}


def score(name: str) -> Score:
    """The score called `name`.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    if name not in SCORES:
        raise UsageError(f"unknown score `{name}`; {nearest(name, SCORES)}")
    return SCORES[name]
