"""Learning-rate schedules: a factor for each optimiser update."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from richlearn.errors import ParameterError, nearest

Shape = Literal["constant", "warmup", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate at update s = 0, 1, …

    - constant: 1
    - warmup: min(1, (s + 1)/(warmup + 1)), linear over the first `warmup` updates, then 1 (Power et al. 2022: warmup = 9)
    - cosine: the warm-up factor times ½(1 + cos(π s/(period·steps))); it rises again where `period` < 1, and stays after `steps`

    The cosine changes after every `every` updates only: with the updates of an epoch and `period` 0.8 it is the schedule of the
    random-hierarchy experiments, 0 at 80% of the epochs and 0.141 in the last of 250 (Petrini, Cagnetta et al. 2023, code).

    Raises:
        ParameterError: an unknown name, a negative warm-up, a cosine without its length, or a period or interval out of range.

    >>> [round(Schedule("warmup", warmup=3).factor(s), 2) for s in range(5)], Schedule("cosine", steps=4).factor(2)
    ([0.25, 0.5, 0.75, 1.0, 1.0], 0.5)
    """

    name: Shape = "constant"
    warmup: int = 0
    steps: int | None = None
    period: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        if self.name not in get_args(Shape):
            raise ParameterError(f"unknown schedule `{self.name}`; {nearest(str(self.name), get_args(Shape))}")
        if self.warmup < 0:
            raise ParameterError(f"`warmup` must be ≥ 0 updates, got {self.warmup}")
        if self.name == "cosine" and (self.steps is None or self.steps < 1):
            raise ParameterError(f"schedule `cosine` needs `steps` ≥ 1, its length in updates, got {self.steps}")
        if not self.period > 0 or self.every < 1:
            raise ParameterError(f"`period` must be positive and `every` at least 1 update, got {self.period} and {self.every}")

    def factors(self, start: int, stop: int) -> np.ndarray:
        """The factors at updates `start` to `stop` − 1, shape (stop − start,), float64."""
        step = np.arange(start, stop, dtype=np.float64)
        if self.name == "constant":
            return np.ones_like(step)
        rising = np.minimum(1.0, (step + 1) / (self.warmup + 1))
        if self.name == "warmup":
            return rising
        assert self.steps is not None
        share = np.minimum(step // self.every * self.every / self.steps, 1.0)
        return rising * 0.5 * (1 + np.cos(np.pi * share / self.period))

    def factor(self, step: int) -> float:
        """The factor at update `step`."""
        return float(self.factors(step, step + 1)[0])
