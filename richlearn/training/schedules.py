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
    - cosine: the warm-up factor times ½(1 + cos(π s/steps)), 0 after `steps`

    Raises:
        ParameterError: an unknown name, a negative warm-up, or a cosine without its length.

    >>> [round(Schedule("warmup", warmup=3).factor(s), 2) for s in range(5)], Schedule("cosine", steps=4).factor(2)
    ([0.25, 0.5, 0.75, 1.0, 1.0], 0.5)
    """

    name: Shape = "constant"
    warmup: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(Shape):
            raise ParameterError(f"unknown schedule `{self.name}`; {nearest(str(self.name), get_args(Shape))}")
        if self.warmup < 0:
            raise ParameterError(f"`warmup` must be ≥ 0 updates, got {self.warmup}")
        if self.name == "cosine" and (self.steps is None or self.steps < 1):
            raise ParameterError(f"schedule `cosine` needs `steps` ≥ 1, its length in updates, got {self.steps}")

    def factors(self, start: int, stop: int) -> np.ndarray:
        """The factors at updates `start` to `stop` − 1, shape (stop − start,), float64."""
        step = np.arange(start, stop, dtype=np.float64)
        if self.name == "constant":
            return np.ones_like(step)
        rising = np.minimum(1.0, (step + 1) / (self.warmup + 1))
        if self.name == "warmup":
            return rising
        assert self.steps is not None
        return rising * 0.5 * (1 + np.cos(np.pi * np.minimum(step / self.steps, 1.0)))

    def factor(self, step: int) -> float:
        """The factor at update `step`."""
        return float(self.factors(step, step + 1)[0])
