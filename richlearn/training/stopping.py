"""When a member is done before its budget is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from richlearn.errors import ParameterError, nearest


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
        for name, count in (("sustained", self.sustained), ("every", self.every)):
            if not isinstance(count, int) or count < 1:
                raise ParameterError(f"`{name}` must be a whole number of at least 1, got {count!r}")
        for name, threshold in {"train_loss": self.train_loss, **(self.goals or {})}.items():
            if threshold is not None and not isfinite(threshold):
                raise ParameterError(f"the threshold of `{name}` must be finite, got {threshold}")

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
        if unknown := self.goals.keys() - row.keys():
            raise ParameterError(
                f"`goals` names `{min(unknown)}`, which no check has; {nearest(min(unknown), row.keys() - {'trial', 'step'})}"
            )
        return all(row[name] >= threshold for name, threshold in self.goals.items())
