"""The spectrum of a kernel: how many directions it has, and where the largest ones point."""

import torch
from jaxtyping import Float
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.kernels._blocks import largest, require_square, total


def _scaled(kernel: Tensor) -> Tensor | None:
    """The kernel in float64 with largest entry 1; None where it is 0 or not finite and so has no directions."""
    require_square(kernel)
    scale = largest(kernel)
    usable = bool(scale.isfinite()) and bool(scale > 0)
    return kernel.to(torch.float64, copy=True).div_(scale) if usable else None


def effective_rank(kernel: Float[Tensor, "row column"]) -> float:
    """exp(−Σ_i p_i ln p_i), p_i = |λ_i|/Σ_j |λ_j|: the exponential of the spectral entropy, in [1, n].

    Roy and Vetterli 2007, definition 1 (a kernel's singular values are its |λ_i|). A projector of rank r has r. In
    float64, O(n³); nan for a kernel that is 0 or not finite.

    Raises:
        ParameterError: the kernel is not square.

    >>> round(effective_rank(torch.diag(torch.tensor([2.0, 2.0, 0.0]))), 12)
    2.0
    """
    if (matrix := _scaled(kernel)) is None:
        return float("nan")
    sizes = torch.linalg.eigvalsh(matrix).abs()
    shares = sizes / sizes.sum()
    return float((-torch.xlogy(shares, shares).sum()).exp())


def participation_ratio(kernel: Float[Tensor, "row column"]) -> float:
    """(tr K)²/‖K‖_F² = (Σ_i λ_i)²/Σ_i λ_i²: an effective rank in [1, n] that needs no eigenvalues, O(n²).

    Never above `effective_rank` (it is the exponential of the Rényi entropy of order 2): small eigenvalues count for
    less. In float64 by blocks of rows; nan for a kernel that is 0 or not finite.

    Raises:
        ParameterError: the kernel is not square.

    >>> participation_ratio(torch.eye(3)), participation_ratio(torch.ones(3, 3))
    (3.0, 1.0)
    """
    require_square(kernel)
    scale = largest(kernel)
    trace = (kernel.diagonal().double() / scale).sum()
    return float(trace.square() / total(lambda values: (values / scale).square(), kernel))


def top_eigenvectors(kernel: Float[Tensor, "row column"], count: int) -> Float[Tensor, "row count"]:
    """Orthonormal eigenvectors of the `count` largest eigenvalues, float64; nan for a kernel that is 0 or not finite.

    Raises:
        ParameterError: the kernel is not square, or has fewer than `count` rows.
    """
    matrix = _scaled(kernel)
    if not 1 <= count <= len(kernel):
        raise ParameterError(f"`count` must be at least 1 and at most the kernel's {len(kernel)} rows, got {count}")
    if matrix is None:
        return torch.full((len(kernel), count), torch.nan, dtype=torch.float64, device=kernel.device)
    return torch.linalg.eigh(matrix).eigenvectors[:, -count:].clone()  # a view would keep all of them


def subspace_overlap(basis1: Float[Tensor, "row count"], basis2: Float[Tensor, "row2 count2"]) -> Float[Tensor, ""]:
    """‖U₁ᵀU₂‖_F²/count of two orthonormal bases: the mean of cos² of the principal angles, in [0, 1].

    Raises:
        ParameterError: bases of unlike shapes.
    """
    if basis1.shape != basis2.shape:
        raise ParameterError(f"bases must be of one probe and one `count`, got shapes {tuple(basis1.shape)} and {tuple(basis2.shape)}")
    return ((basis1.T @ basis2).square().sum() / basis1.shape[1]).clamp(max=1.0)


def eigenspace_overlap(k1: Float[Tensor, "row column"], k2: Float[Tensor, "row2 column2"], count: int) -> float:
    """‖U₁ᵀU₂‖_F²/count, U the eigenvectors of the `count` largest eigenvalues: 1 for equal spaces, 0 for orthogonal ones.

    The mean of cos² of the principal angles between the two spaces (Björck and Golub 1973); two random spaces give
    count/n. Where eigenvalues number `count` and `count` + 1 are equal, or both 0, the space is not determined, nor is
    the overlap. In float64, O(n³); nan where a kernel is 0 or not finite.

    Raises:
        ParameterError: kernels that are not square or of unlike sizes, or fewer than `count` rows.

    >>> first, second = torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.diag(torch.tensor([3.0, 1.0, 2.0]))
    >>> eigenspace_overlap(first, second, 1), eigenspace_overlap(first, second, 2)
    (1.0, 0.5)
    """
    return float(subspace_overlap(top_eigenvectors(k1, count), top_eigenvectors(k2, count)))
