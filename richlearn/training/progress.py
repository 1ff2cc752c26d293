"""A progress bar that counts what costs time: networks × optimiser steps."""

from typing import Protocol

from lightning import Callback, LightningModule, Trainer
from tqdm.auto import tqdm


class Bar(Protocol):
    """What progress is told to: `tqdm`, or whatever stands for it in another process."""

    def update(self, n: float) -> object:
        """`n` more network-steps are done."""
        ...

    def close(self) -> object:
        """Nothing more will come."""
        ...


class NetworkStepsBar(Callback):
    """Shows networks × steps per second and the time left; use with `Trainer(enable_progress_bar=False)`.

    Args:
        bar: told instead of a bar of this fit's own.
    """

    def __init__(self, bar: Bar | None = None) -> None:
        self._given = bar
        self._bar: Bar | None = bar
        self._seen = 0

    @staticmethod
    def _networks(module: LightningModule) -> int:
        return len(getattr(module, "trials", ())) or 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step a checkpoint left off."""
        self._seen = trainer.global_step
        if self._given is None and trainer.is_global_zero:
            networks, total = self._networks(pl_module), trainer.estimated_stepping_batches if trainer.max_steps < 0 else trainer.max_steps
            start = networks * self._seen
            self._bar = tqdm(total=networks * total, initial=start, unit=" network-steps", unit_scale=True, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        """Advance by what the last `training_step` did."""
        if self._bar is not None:
            self._bar.update(self._networks(pl_module) * (trainer.global_step - self._seen))
        self._seen = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count what members that ended early have left undone, and close the bar if it is this fit's own."""
        if self._bar is not None and trainer.max_steps > self._seen:
            self._bar.update(self._networks(pl_module) * (trainer.max_steps - self._seen))
        if self._given is None and self._bar is not None:
            self._bar.close()
