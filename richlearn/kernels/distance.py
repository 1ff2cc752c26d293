"""How far one kernel has turned from another."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.kernels._blocks import largest, total


def turned(*parts: tuple[int, Tensor, Tensor]) -> Tensor:
    """½‖K₁/‖K₁‖ − K₂/‖K₂‖‖² as a float64 scalar, of kernels in parts: (how often its entries count, of K₁, of K₂).

    The first part has all entries. Each kernel is divided by the largest before it is squared: none over- or underflows.
    """

    counts, first, second = zip(*parts, strict=True)

    def add(formula: Callable[..., Tensor], *kernels: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([count * total(formula, *part) for count, *part in zip(counts, *kernels, strict=True)]).sum()

    def norm(kernel: tuple[Tensor, ...]) -> Tensor:
        scale = largest(kernel[0])
        return scale * add(lambda values: (values / scale).square(), kernel).sqrt()

    norm1, norm2 = norm(first), norm(second)
    return 0.5 * add(lambda values1, values2: (values1 / norm1 - values2 / norm2).square(), first, second)


def kernel_distance(k1: Float[Tensor, "row column"], k2: Float[Tensor, "row2 column2"]) -> float:
    """S(K₁, K₂) = ½‖K₁/‖K₁‖ − K₂/‖K₂‖‖² = 1 − ⟨K₁, K₂⟩/(‖K₁‖‖K₂‖), in [0, 1] for kernels; 0 in the lazy regime.

    Kunin et al. 2024, eq. 2. The first form is evaluated, in float64 and by blocks of rows: the second loses its sign
    near 0. Invariant to the scale of either kernel; nan where one of them is identically 0 or not finite.

    Raises:
        ParameterError: kernels of unlike shapes (of other probes or of other `outputs`), or without entries.

    >>> import torch
    >>> first, second = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    >>> kernel_distance(first, 3 * first), kernel_distance(first, second)
    (0.0, 1.0)
    """
    if k1.shape != k2.shape:
        raise ParameterError(f"`k1` and `k2` must be kernels of one probe and one kind, got shapes {tuple(k1.shape)} and {tuple(k2.shape)}")
    if not k1.numel():
        raise ParameterError(f"`k1` and `k2` must have entries, got shape {tuple(k1.shape)}")
    return float(turned((1, k1, k2)))
