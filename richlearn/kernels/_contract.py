"""Adding Gram matrices to a kernel, block by block, so that what is multiplied elementwise is still in the cache.

A `fresh` block is uninitialised memory: what comes first writes it instead of adding to it.
"""

import torch
from torch import Tensor

_BLOCK = 2**19  # elements of a block of rows: more would leave the cache, fewer make thin, slow matrix products
_PRODUCT = 2**20  # elements of one matrix product over pairs of positions
_THIN = 64  # rows below which a matrix product is slow
_MIRRORED = 128  # rows that are mirrored at once


def steps(length: int, step: int) -> list[tuple[int, int]]:
    """Consecutive (start, stop) that cover `length`."""
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def row_blocks(rows: int, columns: int, outputs: int, *, upper: bool) -> list[tuple[int, int]]:
    """Samples (start, stop) of each block of rows: what stays in the cache, and where a triangle is enough, fifths at most."""
    step = min(_BLOCK // (columns * outputs**2), -(-rows // 5) if upper else rows)
    return steps(rows, min(rows, max(step, -(-_THIN // outputs))))


def gram_blocks(rows: int, columns: int, positions: int) -> list[tuple[int, int]]:
    """The same for a Gram matrix over pairs of positions, of which there are `positions` a pair of samples."""
    return steps(rows, max(1, min(rows, _PRODUCT // (columns * positions))))


def add_product(kernel: Tensor, left: Tensor, right: Tensor, rate: float, *, fresh: bool) -> None:
    """kernel (r, s) += rate · left (r, p) right (s, p)ᵀ."""
    kernel.addmm_(left, right.T, alpha=rate, beta=0 if fresh else 1)


def pairing(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """(n·t, n′·t′) products of operands: inner products (n, t, k), or equality of indices (n, t) where none is negative."""
    if left.is_floating_point():
        return left.flatten(0, 1) @ right.flatten(0, 1).T
    first, second = left.flatten()[:, None], right.flatten()[None, :]
    return ((first == second) & (first >= 0)).to(dtype)


def _add_weighted(kernel: Tensor, weights: Tensor, left: Tensor, right: Tensor, *, fresh: bool) -> None:
    """kernel (n·m, s) += weights (n, 1, s) ∘ (left (n·m, p) right (s, p)ᵀ)."""
    by_sample = kernel.unflatten(0, (len(weights), -1))
    if fresh:
        kernel.addmm_(left, right.T, beta=0)
        by_sample.mul_(weights)
    else:
        by_sample.addcmul_((left @ right.T).view(by_sample.shape), weights)


def add_traced(kernel: Tensor, weights: Tensor, left: Tensor, right: Tensor, *, fresh: bool) -> None:
    """kernel (n, n′) += Σ_{t,t′} weights (n, t, n′, t′) ∘ (left rightᵀ); left (n, t, p), right (n′, t′, p), p cotangents × features."""
    rows, columns = left.flatten(0, 1), right.flatten(0, 1)
    if left.shape[1] == right.shape[1] == 1:
        _add_weighted(kernel, weights[:, :, :, 0], rows, columns, fresh=fresh)
    else:
        kernel += (rows @ columns.T).view(weights.shape).mul_(weights).sum((1, 3))


def add_full(kernel: Tensor, weights: Tensor, left: Tensor, right: Tensor, *, fresh: bool) -> None:
    """kernel (n·m, n′·m) += Σ_{t,t′} weights (n, t, n′, t′) ∘ (left rightᵀ); left (n, m, t, o), right (n′, m, t′, o)."""
    m, pairs = left.shape[1], left.shape[2] * right.shape[2]
    for i in range(left.shape[2]):
        rows = left[:, :, i].flatten(0, 1)
        for j in range(right.shape[2]):
            weight = weights[:, i, :, j]
            if pairs == 1 or bool(weight.any()):
                repeated = weight.repeat_interleave(m, dim=1)[:, None]
                _add_weighted(kernel, repeated, rows, right[:, :, j].flatten(0, 1), fresh=fresh)


def add_head(kernel: Tensor, weights: Tensor, outputs: int) -> None:
    """kernel (n·m, n′·m) += weights (n, n′) on the diagonal of outputs: the layer that gives the output itself."""
    blocks = kernel.unflatten(1, (-1, outputs)).unflatten(0, (-1, outputs))  # sample, output, sample, output
    blocks.diagonal(dim1=1, dim2=3).add_(weights[..., None])


def add_traced_head(kernel: Tensor, left: Tensor, right: Tensor, rate: float) -> None:
    """kernel (n, n′) += rate · products of operands (n, 1, k) or (n, 1)."""
    if left.is_floating_point():
        add_product(kernel, left[:, 0], right[:, 0], rate, fresh=False)
    else:
        kernel.add_(pairing(left, right, kernel.dtype), alpha=rate)


def mirror(kernel: Tensor) -> Tensor:
    """Copy what is above the diagonal below it, in place."""
    below = torch.ones(_MIRRORED, _MIRRORED, dtype=torch.bool, device=kernel.device).tril_(-1)
    for start, stop in steps(len(kernel), _MIRRORED):
        kernel[stop:, start:stop] = kernel[start:stop, stop:].T
        block, count = kernel[start:stop, start:stop], stop - start
        block.copy_(torch.where(below[:count, :count], block.T, block))
    return kernel
