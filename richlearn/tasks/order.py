"""Which samples each update sees: an order that depends on the seed and the epoch alone, not on workers, ranks or resumption."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from richlearn.seeds import generator


class BatchOrder(Sampler[list[int]]):
    """Batch sampler whose epoch e is the permutation of stream (seed, "order", e), cut into batches; a last partial batch is kept.

    Args:
        size: number of samples.
        batch_size: samples per update; None or ≥ `size` is full batch, in natural order.
        seed: the trial's seed.
        rank, world_size: this process's share of every *global* batch under data-parallel training.
    """

    def __init__(self, size: int, batch_size: int | None, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.seed = size, seed
        self.batch_size = min(batch_size or size, size)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._permutation: tuple[int, Tensor] | None = None

    @property
    def full_batch(self) -> bool:
        """Whether every update sees all samples."""
        return self.batch_size == self.size

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.epoch * len(self), (self.epoch + 1) * len(self)):
            yield self.indices(step)[self.rank :: self.world_size].tolist()

    def indices(self, step: int) -> Tensor:
        """The global batch of update `step` (0 is the first), shape (≤ batch_size,)."""
        if self.full_batch:
            return torch.arange(self.size)
        epoch, position = divmod(step, len(self))
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = epoch, torch.randperm(self.size, generator=generator(self.seed, "order", epoch))
        return self._permutation[1][position * self.batch_size : (position + 1) * self.batch_size]
