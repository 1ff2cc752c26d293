"""Adding Gram matrices to a kernel, block by block, so that what is multiplied elementwise is still in the cache."""

from collections.abc import Callable

import torch
from torch import Tensor

_BLOCK = 2**19  # elements of a block of a Gram matrix


def _steps(length: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def add_product(kernel: Tensor, left: Tensor, right: Tensor, rate: float, *, upper: bool) -> None:
    """kernel (r, s) += rate · left (r, p) right (s, p)ᵀ; with `upper` only on and above the diagonal, give or take a block."""
    step = -(-len(left) // 8) if upper and len(left) > 256 else len(left)
    for start, stop in _steps(len(left), step):
        first = start if upper else 0
        kernel[start:stop, first:].addmm_(left[start:stop], right[first:].T, alpha=rate)


def pairing(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """(n·t, n′·t′) products of operands: inner products (n, t, k), or equality of indices (n, t) where none is negative."""
    if left.is_floating_point():
        return left.flatten(0, 1) @ right.flatten(0, 1).T
    first, second = left.flatten()[:, None], right.flatten()[None, :]
    return ((first == second) & (first >= 0)).to(dtype)


Pairs = Callable[[int, int, int], Tensor]  # (start, stop, first) → (rows, positions, columns, positions) of a block


def add_traced(kernel: Tensor, pairs: Pairs, left: Tensor, right: Tensor, *, upper: bool) -> None:
    """kernel (n, n′) += Σ_{t,t′} pairs ∘ (left rightᵀ); left (n, t, p), right (n′, t′, p), p over cotangents and features."""
    (n, t, _), (columns, t2, _) = left.shape, right.shape
    step = max(1, min(n, _BLOCK // max(1, t * t2 * columns)))
    if upper:
        step = max(1, min(step, -(-n // 8))) if n > 64 else step
    for start, stop in _steps(n, step):
        first = start if upper else 0
        block = left[start:stop].flatten(0, 1) @ right[first:].flatten(0, 1).T
        weights = pairs(start, stop, first)
        if t == t2 == 1:
            kernel[start:stop, first:].addcmul_(block, weights.view(block.shape))
        else:
            block = block.view(stop - start, t, columns - first, t2).mul_(weights)
            kernel[start:stop, first:] += block.sum((1, 3))


def add_full(kernel: Tensor, pairs: Pairs, left: Tensor, right: Tensor, *, upper: bool) -> None:
    """kernel (n·m, n′·m) += Σ_{t,t′} pairs ∘ (left rightᵀ); left (n, m, t, o), right (n′, m, t′, o)."""
    (n, m, t, _), (columns, _, t2, _) = left.shape, right.shape
    step = max(1, min(n, _BLOCK // max(1, m * m * columns), -(-n // 8) if upper else n))
    for start, stop in _steps(n, step):
        first = start if upper else 0
        weights = pairs(start, stop, first)
        target = kernel[start * m : stop * m, first * m :].unflatten(0, (stop - start, m))
        for i in range(t):
            rows = left[start:stop, :, i].flatten(0, 1)
            for j in range(t2):
                weight = weights[:, i, :, j]
                if t * t2 > 1 and not bool(weight.any()):
                    continue
                block = rows @ right[first:, :, j].flatten(0, 1).T
                target.addcmul_(block.view(stop - start, m, -1), weight.repeat_interleave(m, dim=1)[:, None])


def add_head(kernel: Tensor, weights: Tensor, outputs: int) -> None:
    """kernel (n·m, n′·m) += weights (n, n′) on the diagonal of outputs: the layer that gives the output itself."""
    blocks = kernel.unflatten(1, (-1, outputs)).unflatten(0, (-1, outputs))  # sample, output, sample, output
    blocks.diagonal(dim1=1, dim2=3).add_(weights[..., None])


def add_traced_head(kernel: Tensor, left: Tensor, right: Tensor, rate: float, *, upper: bool) -> None:
    """kernel (n, n′) += rate · products of operands (n, 1, k) or (n, 1)."""
    if left.is_floating_point():
        add_product(kernel, left[:, 0], right[:, 0], rate, upper=upper)
    else:
        kernel.add_(pairing(left, right, kernel.dtype), alpha=rate)


def mirror(kernel: Tensor) -> Tensor:
    """Copy what is above the diagonal below it, in place."""
    for start, stop in _steps(len(kernel), 256):
        kernel[stop:, start:stop] = kernel[start:stop, stop:].T
        block = kernel[start:stop, start:stop]
        block.copy_(block.triu() + block.triu(1).T)
    return kernel
