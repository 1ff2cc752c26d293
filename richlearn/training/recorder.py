"""Training and test loss, and accuracy, of every member at the checks of a run; it ends the members that are done."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from lightning import LightningModule, Trainer

from richlearn.errors import UsageError
from richlearn.tasks.base import Split
from richlearn.training._timed import Timed
from richlearn.training.members import HasMembers
from richlearn.training.stopping import Stopping


class LossRecorder(Timed):
    """Records loss and, of a classification, accuracy on the whole training and test set.

    A member whose loss is not finite has diverged, and trains no further.

    Args:
        train, test: the splits.
        times: optimiser updates at which to look; None is the end of every epoch.
        stopping: when a member is done; it then trains no further. Other callbacks see that in `module.stopped`.

    Attributes:
        rows: one dict (trial, step, train_loss, test_loss, and train_accuracy, test_accuracy) per member and check.
        not_finite: trial → first check at which its training loss was not finite.
    """

    def __init__(self, train: Split, test: Split, times: Iterable[int] | None = None, stopping: Stopping | None = None) -> None:
        super().__init__(times)
        self.train, self.test, self.stopping = train, test, stopping
        self.not_finite: dict[str, int] = {}
        self._own: dict[str, list[dict[str, Any]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Rows, and who has diverged."""
        return super().state_dict() | {"not_finite": self.not_finite}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        super().load_state_dict(state_dict)
        self.not_finite, self._own = dict(state_dict["not_finite"]), {}
        for row in self.rows:
            self._own.setdefault(row["trial"], []).append(row)

    def measure(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """Append a row per member that has not diverged."""
        if not isinstance(module, HasMembers):
            raise UsageError(f"`LossRecorder` needs a `NetworkModule` or a `StackedModule`, got `{type(module).__name__}`")
        ended = {trial for trial, at in module.stopped.items() if at < step}
        found = {f"train_{name}": values.tolist() for name, values in module.evaluate(self.train).items()}
        found |= {f"test_{name}": values.tolist() for name, values in module.evaluate(self.test).items()}
        for index, trial in enumerate(member.trial for member in module.trials):
            values = {name: each[index] for name, each in found.items()}
            if trial in ended:
                continue
            if math.isfinite(values["train_loss"]) and math.isfinite(values["test_loss"]):
                self._note(module, {"trial": trial, "step": step, **values})
            elif trial not in self.not_finite:
                self.not_finite[trial] = step
                module.stop(trial)

    def _note(self, module: HasMembers, row: dict[str, Any]) -> None:
        """Keep a member's row, and end the member if it is done."""
        self.rows.append(row)
        if self.stopping is None:
            return
        own = self._own.setdefault(row["trial"], [])
        own.append(row)
        if self.stopping.done(own):
            module.stop(row["trial"])

    def table(self) -> pd.DataFrame:
        """The rows so far."""
        accuracies = ["train_accuracy", "test_accuracy"] if self.rows and "test_accuracy" in self.rows[0] else []
        return pd.DataFrame(self.rows, columns=["trial", "step", "train_loss", "test_loss", *accuracies])
