"""Losses as data: a value per sample and how samples are combined, so that one network, a stack and DDP ranks share them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean(-1)


def _half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output - target).square().sum(-1)


@dataclass(frozen=True)
class Loss:
    """A loss Σ_i weight · ℓ(f(x_i), y_i); the weight is 1/n for a mean and 1 for a sum over samples.

    Attributes:
        name: what tables and plots call it.
        per_sample: ℓ, from output (…, n, c) and target (n, c) to (…, n).
        curvature: ∂²ℓ/∂f² of each output, from the number of outputs c; with the weight and the NTK it bounds a stable rate.
        mean: whether samples are averaged (else summed).
    """

    name: str
    per_sample: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[int], float]
    mean: bool = True

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of output (…, n, c) against target (n, c), shape (…)."""
        values = self.per_sample(output, target)
        return values.mean(-1) if self.mean else values.sum(-1)

    def weights(self, size: int, like: Tensor) -> Tensor:
        """The weight of each of `size` samples, shape (size,), in the dtype and on the device of `like`."""
        return torch.full((size,), 1 / size if self.mean else 1.0, dtype=like.dtype, device=like.device)


MSE = Loss("MSE", _squared_error, lambda outputs: 2 / outputs)
HALF_SSE = Loss("½ SSE", _half_squared_error, lambda outputs: 1.0, mean=False)
