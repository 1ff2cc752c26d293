"""Training and test loss of every member at the checks of a run."""

import math
from collections.abc import Iterable

import pandas as pd
from lightning import LightningModule, Trainer

from richlearn.errors import UsageError
from richlearn.tasks.base import Split
from richlearn.training._timed import Timed
from richlearn.training.members import HasMembers


class LossRecorder(Timed):
    """Records the loss on the whole training and test set; a member whose loss is not finite has diverged.

    Args:
        train, test: the splits.
        times: optimiser updates at which to look; None is the end of every epoch.

    Attributes:
        rows: one dict (trial, step, train_loss, test_loss) per member and check.
        not_finite: trial → first check at which its training loss was not finite.
    """

    def __init__(self, train: Split, test: Split, times: Iterable[int] | None = None) -> None:
        super().__init__(times)
        self.train, self.test = train, test
        self.not_finite: dict[str, int] = {}

    def measure(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """Append a row per member that has not diverged."""
        if not isinstance(module, HasMembers):
            raise UsageError(f"`LossRecorder` needs a `NetworkModule` or a `StackedModule`, got `{type(module).__name__}`")
        train, test = module.losses(self.train).tolist(), module.losses(self.test).tolist()
        for member, train_loss, test_loss in zip(module.trials, train, test, strict=True):
            trial = member.trial
            if math.isfinite(train_loss) and math.isfinite(test_loss):
                self.rows.append({"trial": trial, "step": step, "train_loss": train_loss, "test_loss": test_loss})
            else:
                self.not_finite.setdefault(trial, step)

    def table(self) -> pd.DataFrame:
        """The rows so far."""
        return pd.DataFrame(self.rows, columns=["trial", "step", "train_loss", "test_loss"])
