"""What the measuring callbacks share: being called once at each of their times, before the first update included."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from lightning import Callback, LightningModule, Trainer

from richlearn.networks._trace import undisturbed


class Timed(Callback):
    """Calls `measure` when the number of optimiser updates is one of `times`; None means the end of every epoch, and the start."""

    def __init__(self, times: Iterable[int] | None) -> None:
        self.times = None if times is None else frozenset(times)
        self.rows: list[dict[str, Any]] = []
        self._last = -1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed fit measures on as if it had not stopped."""
        return {"rows": self.rows, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.rows, self._last = list(state_dict["rows"]), state_dict["last"]

    @abstractmethod
    def measure(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """Measure `module` after `step` updates, in eval mode and without gradients."""

    def _visit(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._last:
            return
        self._last = step
        with undisturbed(module):
            self.measure(trainer, module, step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The network at initialisation, or where a checkpoint left it."""
        if self.times is None or trainer.global_step in self.times:
            self._visit(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        """One of the times."""
        if self.times is not None and trainer.global_step in self.times:
            self._visit(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of an epoch, where no times were given."""
        if self.times is None:
            self._visit(trainer, pl_module)
