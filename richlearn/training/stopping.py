"""When a member is done before its budget is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from richlearn.errors import ParameterError


@dataclass(frozen=True)
class Stopping:
    """A member is done at the first check at which one of these holds.

    Attributes:
        train_loss: the loss on the whole training set lies below this, looked at after every `every` updates.
        goals: a quantity of the checks (`test_accuracy`, …) and its threshold; all of them hold, each at or above its own.
        sustained: checks in a row at which the goals must hold.
        every: see `train_loss`; checks may be more frequent.

    Raises:
        ParameterError: nothing would ever stop, or less than one check or update.
    """

    train_loss: float | None = None
    goals: Mapping[str, float] | None = None
    sustained: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        if self.train_loss is None and not self.goals:
            raise ParameterError("`Stopping` needs a `train_loss` or `goals`, got neither")
        if self.sustained < 1 or self.every < 1:
            raise ParameterError(f"`sustained` and `every` must be at least 1, got {self.sustained} and {self.every}")

    def done(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a member whose checks so far are `rows` is done.

        >>> Stopping(goals={"test_accuracy": 0.9}, sustained=2).done([{"test_accuracy": 0.95}, {"test_accuracy": 1.0}])
        True
        """
        looked_at = self.train_loss is not None and rows[-1]["step"] % self.every == 0
        if looked_at and rows[-1]["train_loss"] < self.train_loss:
            return True
        last = rows[-self.sustained :]
        return bool(self.goals) and len(last) == self.sustained and all(self._holds(row) for row in last)

    def _holds(self, row: Mapping[str, Any]) -> bool:
        assert self.goals is not None
        return all(row[name] >= threshold for name, threshold in self.goals.items())
