"""What every task of the suite is: a LightningDataModule whose tensors fit in memory and depend on its seed alone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from richlearn.errors import ParameterError
from richlearn.tasks.losses import Loss
from richlearn.tasks.order import BatchOrder


def _moved(values: Tensor, like: Tensor) -> Tensor:
    """`values` on the device of the parameter `like`, in its dtype if they are floating-point."""
    return values.to(device=like.device, dtype=like.dtype if values.is_floating_point() else None)


@dataclass(frozen=True)
class Split:
    """Inputs (n, d), floating-point or tokens, and targets of one part of a task: (n, c), or labels (n,) of a classification."""

    inputs: Tensor
    targets: Tensor

    def like(self, like: Tensor) -> "Split":
        """Both tensors on the device of `like`, in its dtype where they are floating-point (tokens and labels stay integers)."""
        return Split(_moved(self.inputs, like), _moved(self.targets, like))


class _Gathered(Dataset):
    """Samples gathered by a whole batch of indices at once; collation of single samples costs more than a step."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.inputs)

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.split.inputs[indices], self.split.targets[indices]


def require_positive(**values: int) -> None:
    """Raise `ParameterError` for the first of the named whole numbers that is not at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ParameterError(f"`{name}` must be a whole number ≥ 1, got {value!r}")


class Task(LightningDataModule, ABC):
    """A LightningDataModule with a training and a test split; a member draws both in `draw`.

    Args:
        seed: fixes data, teacher and order.
        batch_size: samples per update; None is full batch.
        dtype: of the tensors; they are drawn in float64 and cast once, so that precisions share their data.
    """

    loss: Loss
    in_features: int
    out_features: int

    def __init__(self, *, seed: int = 0, batch_size: int | None = None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if batch_size is not None:
            require_positive(batch_size=batch_size)
        self.seed, self.batch_size, self.dtype = seed, batch_size, dtype
        self._splits: tuple[Split, Split] | None = None

    @abstractmethod
    def draw(self) -> tuple[Split, Split]:
        """The training and the test split in float64, from streams derived from `self.seed`."""

    def setup(self, stage: str | None = None) -> None:
        """Draw the splits once."""
        if self._splits is None:
            train, test = self.draw()
            like = torch.empty(0, dtype=self.dtype)
            self._splits = train.like(like), test.like(like)

    @property
    def train(self) -> Split:
        """The training split."""
        self.setup()
        assert self._splits is not None
        return self._splits[0]

    @property
    def test(self) -> Split:
        """The test split."""
        self.setup()
        assert self._splits is not None
        return self._splits[1]

    def order(self, rank: int = 0, world_size: int = 1) -> BatchOrder:
        """The order in which updates see the training samples."""
        return BatchOrder(len(self.train.inputs), self.batch_size, self.seed, rank=rank, world_size=world_size)

    def zero_loss(self) -> float:
        """Test loss of the predictor f = 0."""
        targets = self.test.targets
        targets = targets.double() if targets.is_floating_point() else targets
        return float(self.loss(torch.zeros(len(targets), self.out_features, dtype=torch.float64), targets))

    def train_dataloader(self) -> DataLoader:
        """Batches (inputs, targets) in `order`; each rank of a data-parallel run gets its share of every global batch.

        Use `Trainer(use_distributed_sampler=False)`: the order already knows its rank.
        """
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(_Gathered(self.train), sampler=self.order(rank, world), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The test split as one batch."""
        return DataLoader(_Gathered(self.test), sampler=BatchOrder(len(self.test.inputs), None, 0), batch_size=None)

    test_dataloader = val_dataloader
