"""How many steps a curve takes to cross a goal, and to stay beyond it."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from richlearn.errors import ParameterError


class StepsToThreshold(Metric):
    """First step, and first *sustained* step, at which a value is at or beyond a threshold.

    A run that never is there is right-censored: both are −1 here, and "> budget" in a leaderboard, never a number.

    Args:
        threshold: the goal.
        direction: "below" (a loss) or "above" (an accuracy).
        sustained: number of consecutive checks, the first included, for which the goal must hold.

    Raises:
        ParameterError: an unknown direction, or less than one check.
    """

    full_state_update = True
    is_differentiable = False
    higher_is_better = False

    def __init__(self, threshold: float, *, direction: Literal["below", "above"] = "below", sustained: int = 1, **kwargs: Any) -> None:
        super().__init__(sync_on_compute=False, **kwargs)
        if direction not in ("below", "above"):
            raise ParameterError(f'`direction` must be "below" or "above", got {direction!r}')
        if sustained < 1:
            raise ParameterError(f"`sustained` must be at least 1 check, got {sustained}")
        self.threshold, self.direction, self.sustained = threshold, direction, sustained
        for name, start in {"first": -1, "since": -1, "held": 0, "sustained_at": -1}.items():
            self.add_state(name, torch.tensor(start), dist_reduce_fx=None)
        self.first: Tensor
        self.since: Tensor
        self.held: Tensor
        self.sustained_at: Tensor

    def update(self, step: int, value: float) -> None:
        """Check `value` at `step`; steps come in increasing order. A nan is not beyond any threshold."""
        beyond = value <= self.threshold if self.direction == "below" else value >= self.threshold
        if not beyond:
            self.held.zero_()
            return
        if self.held == 0:
            self.since.fill_(step)
        self.held += 1
        if self.first < 0:
            self.first.fill_(step)
        if self.sustained_at < 0 and self.held >= self.sustained:
            self.sustained_at = self.since.clone()

    def compute(self) -> dict[str, Tensor]:
        """`first` and `sustained` as integer scalars; −1 where not reached."""
        return {"first": self.first.clone(), "sustained": self.sustained_at.clone()}
