"""Losses as data: a value per sample and how samples are combined, so that one network, a stack and DDP ranks share them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean(-1)


def _half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output - target).square().sum(-1)


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    chosen = label.expand(logits.shape[:-1])[..., None]
    return -logits.log_softmax(-1).gather(-1, chosen)[..., 0]


def _right(logits: Tensor, label: Tensor) -> Tensor:
    return logits.argmax(-1) == label


@dataclass(frozen=True)
class Loss:
    """A loss Σ_i weight · ℓ(f(x_i), y_i); the weight is 1/n for a mean and 1 for a sum over samples.

    Attributes:
        name: what tables and plots call it.
        per_sample: ℓ, from output (…, n, c) and target, (n, c) or labels (n,), to (…, n).
        curvature: largest eigenvalue of ∂²ℓ/∂f² (of cross-entropy at uniform logits), from the number of outputs c; with the
            weight and the NTK it bounds a stable rate.
        mean: whether samples are averaged (else summed).
        right: of a classification, whether the answer is right, from output (…, n, c) and labels (n,) to (…, n); else None.
    """

    name: str
    per_sample: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[int], float]
    mean: bool = True
    right: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def classifies(self) -> bool:
        """Whether targets are labels, so that there is an accuracy."""
        return self.right is not None

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of output (…, n, c) against target, (n, c) or labels (n,), shape (…)."""
        values = self.per_sample(output, target)
        return values.mean(-1) if self.mean else values.sum(-1)

    def weights(self, size: int, like: Tensor) -> Tensor:
        """The weight of each of `size` samples, shape (size,), in the dtype and on the device of `like`."""
        return torch.full((size,), 1 / size if self.mean else 1.0, dtype=like.dtype, device=like.device)


MSE = Loss("MSE", _squared_error, lambda outputs: 2 / outputs)
HALF_SSE = Loss("½ SSE", _half_squared_error, lambda outputs: 1.0, mean=False)
CROSS_ENTROPY = Loss("cross-entropy", _cross_entropy, lambda outputs: 1 / outputs, right=_right)
