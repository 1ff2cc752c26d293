"""Adding Gram matrices to a kernel, block by block, so that what is multiplied elementwise is still in the cache."""

import torch
from torch import Tensor

_BLOCK = 2**17  # elements of a block that stays in the cache with what is multiplied into it
_PRODUCT = 2**20  # elements of one matrix product over pairs of positions
_THIN = 64  # rows below which a matrix product is slow


def steps(length: int, step: int) -> list[tuple[int, int]]:
    """Consecutive (start, stop) that cover `length`."""
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def row_blocks(rows: int, columns: int, outputs: int, *, upper: bool) -> list[tuple[int, int]]:
    """Samples (start, stop) of each block of rows: what stays in the cache, and where a triangle is enough, eighths at most."""
    step = min(_BLOCK // (columns * outputs**2), -(-rows // 8) if upper else rows)
    return steps(rows, min(rows, max(step, -(-_THIN // outputs))))


def gram_blocks(rows: int, columns: int, positions: int) -> list[tuple[int, int]]:
    """The same for a Gram matrix over pairs of positions, of which there are `positions` a pair of samples."""
    return steps(rows, max(1, min(rows, _PRODUCT // (columns * positions))))


def add_product(kernel: Tensor, left: Tensor, right: Tensor, rate: float) -> None:
    """kernel (r, s) += rate · left (r, p) right (s, p)ᵀ."""
    kernel.addmm_(left, right.T, alpha=rate)


def pairing(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """(n·t, n′·t′) products of operands: inner products (n, t, k), or equality of indices (n, t) where none is negative."""
    if left.is_floating_point():
        return left.flatten(0, 1) @ right.flatten(0, 1).T
    first, second = left.flatten()[:, None], right.flatten()[None, :]
    return ((first == second) & (first >= 0)).to(dtype)


def add_traced(kernel: Tensor, weights: Tensor, left: Tensor, right: Tensor) -> None:
    """kernel (n, n′) += Σ_{t,t′} weights (n, t, n′, t′) ∘ (left rightᵀ); left (n, t, p), right (n′, t′, p), p cotangents × features."""
    (n, t, _), (columns, t2, _) = left.shape, right.shape
    product = left.flatten(0, 1) @ right.flatten(0, 1).T
    if t == t2 == 1:
        kernel.addcmul_(product, weights.view(product.shape))
    else:
        kernel += product.view(n, t, columns, t2).mul_(weights).sum((1, 3))


def add_full(kernel: Tensor, weights: Tensor, left: Tensor, right: Tensor) -> None:
    """kernel (n·m, n′·m) += Σ_{t,t′} weights (n, t, n′, t′) ∘ (left rightᵀ); left (n, m, t, o), right (n′, m, t′, o)."""
    n, m, t, _ = left.shape
    target = kernel.unflatten(0, (n, m))
    for i in range(t):
        rows = left[:, :, i].flatten(0, 1)
        for j in range(right.shape[2]):
            weight = weights[:, i, :, j]
            if t * right.shape[2] > 1 and not bool(weight.any()):
                continue
            product = rows @ right[:, :, j].flatten(0, 1).T
            target.addcmul_(product.view(n, m, -1), weight.repeat_interleave(m, dim=1)[:, None])


def add_head(kernel: Tensor, weights: Tensor, outputs: int) -> None:
    """kernel (n·m, n′·m) += weights (n, n′) on the diagonal of outputs: the layer that gives the output itself."""
    blocks = kernel.unflatten(1, (-1, outputs)).unflatten(0, (-1, outputs))  # sample, output, sample, output
    blocks.diagonal(dim1=1, dim2=3).add_(weights[..., None])


def add_traced_head(kernel: Tensor, left: Tensor, right: Tensor, rate: float) -> None:
    """kernel (n, n′) += rate · products of operands (n, 1, k) or (n, 1)."""
    if left.is_floating_point():
        add_product(kernel, left[:, 0], right[:, 0], rate)
    else:
        kernel.add_(pairing(left, right, kernel.dtype), alpha=rate)


def mirror(kernel: Tensor) -> Tensor:
    """Copy what is above the diagonal below it, in place."""
    for start, stop in steps(len(kernel), 128):
        kernel[stop:, start:stop] = kernel[start:stop, stop:].T
        block = kernel[start:stop, start:stop]
        block.copy_(block.triu() + block.triu(1).T)
    return kernel
