"""One network as an ordinary LightningModule: the base of everything that trains here."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from richlearn.tasks.base import Split
from richlearn.tasks.losses import MSE, Loss
from richlearn.training.members import Member, View
from richlearn.training.optimizers import Optimizer


class NetworkModule(LightningModule):
    """Trains one network on one task, data-parallel if the Trainer says so.

    Args:
        network: any `nn.Module` from (n, …) to (n, c).
        loss: of the task.
        optimizer: algorithm, base rate, schedule.
        member: name, learning rate and multipliers of this trial (what a scheme's `apply` returned).
    """

    def __init__(self, network: nn.Module, loss: Loss = MSE, optimizer: Optimizer | None = None, member: Member | None = None) -> None:
        super().__init__()
        self.network, self.task_loss = network, loss
        self.optimizer, self.member = optimizer or Optimizer(), member or Member()
        self.trials = [self.member]
        self.stopped: dict[str, int] = {}

    @property
    def steps_done(self) -> int:
        """Optimiser updates done."""
        return self.trainer.global_step

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of the *global* batch: ranks whose shares differ in size contribute per sample, not per rank."""
        inputs, targets = batch
        world = self.trainer.world_size
        size = len(inputs)
        if world > 1:
            size = int(self.trainer.strategy.reduce(torch.tensor(float(size), device=self.device), reduce_op="sum"))
        output = self(inputs)
        weight = self.task_loss.weights(size, output)[: len(inputs)]
        return world * (self.task_loss.per_sample(output, targets) * weight).sum()  # DDP averages gradients over ranks

    def configure_optimizers(self):
        """`torch.optim` with a group per parameter, and the schedule stepped once an update."""
        optimizer = self.optimizer.torch_optimizer(self.optimizer.groups(self.network, self.member.multipliers, self.member.lr))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.optimizer.torch_schedule(optimizer), "interval": "step"}}

    def members(self) -> Iterator[View]:
        """This network, the only member."""
        yield View(self.member.trial, self.network, self.member.multipliers.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep whether the network is done."""
        checkpoint["stopped"] = self.stopped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up whether the network is done."""
        self.stopped = dict(checkpoint.get("stopped", {}))

    def on_train_start(self) -> None:
        """End at once where a checkpoint left a network that is done."""
        if self.stopped:
            self.trainer.should_stop = True

    def stop(self, trial: str) -> None:
        """End the fit after the present update."""
        self.stopped[trial] = self.steps_done
        self.trainer.should_stop = True

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, Tensor]:
        """The task's loss and accuracy on the whole split, shape (1,), float64."""
        split = split.like(next(self.network.parameters()))
        output = self.network(split.inputs).double()
        found = {"loss": self.task_loss(output, split.targets)[None].cpu()}
        if self.task_loss.right is not None:
            found["accuracy"] = self.task_loss.right(output, split.targets).double().mean()[None].cpu()
        return found
