"""How well a kernel fits the task: its alignment with the targets."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.kernels._blocks import largest, require_square, row_blocks

_ROUNDING = 1e-13  # what centring leaves of a constant, relative to it


def _columns(kernel: Tensor, targets: Tensor) -> Tensor:
    """The targets as (sample, output of the kernel, column) in float64: a traced kernel sees c columns, a full one vec(Y)."""
    require_square(kernel)
    if not targets.is_floating_point() or targets.ndim not in (1, 2) or not targets.numel():
        raise ParameterError(
            f"`targets` must be floating-point values (n, c), one-hot for classes, got {targets.dtype} of shape {tuple(targets.shape)}"
        )
    values = targets.double().reshape(len(targets), -1)
    if len(kernel) not in (len(values), values.numel()):
        raise ParameterError(
            f"`kernel` must have n = {len(values)} rows (traced) or n·c = {values.numel()} rows (full) for `targets` "
            f"of shape {tuple(targets.shape)}, got {len(kernel)}"
        )
    return values[:, None, :] if len(kernel) == len(values) else values[:, :, None]


def _norm_or_nan(square: Tensor, before: Tensor) -> Tensor:
    """√square, nan where that is no more than the rounding of `before`: a direction made of rounding means nothing."""
    return torch.where(square > _ROUNDING**2 * before, square.sqrt(), torch.nan)


def kernel_alignment(kernel: Shaped[Tensor, "row column"], targets: Shaped[Tensor, "sample *output"], *, centred: bool = True) -> float:
    """A = ⟨HKH, HYYᵀH⟩/(‖HKH‖_F‖HYYᵀH‖_F), H = I − 11ᵀ/n: centred kernel-target alignment, in [0, 1] for kernels.

    Cortes, Mohri and Rostamizadeh 2012, section 2. `centred=False` leaves out H: for one output that is
    yᵀKy/(‖y‖²‖K‖_F), the usual normalisation of the target's energy in the kernel (Cristianini et al. 2001). Without
    centring a kernel with a large mean aligns with any targets of one sign. A full kernel meets vec(Y) vec(Y)ᵀ instead
    of YYᵀ and is centred over samples, each pair of outputs by itself. In float64 by blocks of rows; 1 for K = YYᵀ;
    invariant to the scale of either; nan where one of them is 0, constant (if centred) or not finite.

    Args:
        kernel: (n, n) traced, or (n·c, n·c) full, row = sample·c + output.
        targets: (n, c) or (n,), floating point; one-hot for classes.
        centred: whether means over samples are subtracted.

    Raises:
        ParameterError: a kernel that is not square or not of the targets' samples; integer targets.

    >>> y = torch.tensor([[1.0], [-1.0], [2.0]])
    >>> round(kernel_alignment(5 * y @ y.T, y), 12), round(kernel_alignment(torch.eye(3), y, centred=False), 3)
    (1.0, 0.577)
    """
    given = _columns(kernel, targets)
    labels = given - given.mean(0) if centred else given
    grid = kernel.unflatten(0, given.shape[:2]).unflatten(2, given.shape[:2])  # (sample, output, sample, output)
    scale = largest(kernel)
    blocks = row_blocks(grid)
    mean = sum((block.double() / scale).sum(0) for block in blocks) / len(grid) if centred else 0.0
    inner = squares = before = torch.zeros((), dtype=torch.float64, device=kernel.device)
    for block, rows in zip(blocks, labels.split(len(blocks[0])), strict=True):
        part = block.double() / scale
        before = before + part.square().sum()
        if centred:
            part = part - mean
            part = part - part.mean(2, keepdim=True)
        inner = inner + ((part.flatten(0, 1).flatten(1) @ labels.flatten(0, 1)) * rows.flatten(0, 1)).sum()
        squares = squares + part.square().sum()
    gram = labels.flatten(0, 1).T @ labels.flatten(0, 1)  # ‖YYᵀ‖ = ‖YᵀY‖
    return float(inner / _norm_or_nan(squares, before) / _norm_or_nan(gram.square().sum(), given.square().sum().square()))
