"""A symmetric kernel as the half that determines it, and distances between such halves."""

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.kernels._blocks import require_square, row_blocks
from richlearn.kernels.distance import turned


def pack_symmetric(kernel: Float[Tensor, "row column"]) -> Float[Tensor, " entry"]:
    """The upper triangle with its diagonal, row after row: n(n+1)/2 entries K_ij, i ≤ j, in the kernel's dtype.

    Raises:
        ParameterError: the kernel is no square matrix.

    >>> pack_symmetric(torch.tensor([[1.0, 2.0], [2.0, 3.0]]))
    tensor([1., 2., 3.])
    """
    require_square(kernel)
    half = kernel.new_empty(len(kernel) * (len(kernel) + 1) // 2)
    start = filled = 0
    for rows in row_blocks(kernel):
        upper = rows.masked_select(torch.ones(rows.shape, dtype=torch.bool, device=kernel.device).triu(start))
        half[filled : filled + len(upper)] = upper
        start, filled = start + len(rows), filled + len(upper)
    return half


def _diagonal(packed: Tensor) -> Tensor:
    """K_ii: row i of the half begins at i·n − i(i−1)/2, where n is the size of the kernel."""
    size = (isqrt(8 * len(packed) + 1) - 1) // 2
    index = torch.arange(size, device=packed.device)
    return packed[index * size - index * (index - 1) // 2]


def packed_distance(first: Float[Tensor, " entry"], second: Float[Tensor, " entry2"]) -> Float[Tensor, ""]:
    """`kernel_distance` of the kernels behind two halves, a float64 scalar; nothing is unpacked.

    Every entry of a half counts twice, those of the diagonal once less.

    Raises:
        ParameterError: halves of kernels of unlike sizes.
    """
    if first.shape != second.shape:
        raise ParameterError(
            f"kernels must be of one probe and one kind, got symmetric halves of {len(first)} and {len(second)} entries: "
            "was the reference taken on another probe?"
        )
    return turned((2, first, second), (-1, _diagonal(first), _diagonal(second)))
