"""What the NTK can express and how well that fits the task: alignment, effective rank, largest eigenvectors."""

from typing import Any

from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.kernels.alignment import kernel_alignment
from richlearn.kernels.spectrum import effective_rank, subspace_overlap, top_eigenvectors
from richlearn.metrics._kernel import KernelMetric, scalar


class KernelAlignment(KernelMetric):
    """Alignment of the NTK with the targets, in [0, 1]: see `richlearn.kernels.kernel_alignment`.

    Args:
        probe: inputs (n, …) on which the kernel is taken.
        targets: their targets (n, c) or (n,), floating point; one-hot for classes.
        centred: whether means over the probe are subtracted; if not, one output gives yᵀKy/(‖y‖²‖K‖).
        kwargs: `outputs` and `rates`, see `KernelDistance`.

    Raises:
        ParameterError: unlike numbers of inputs and targets.
    """

    def __init__(self, probe: Tensor, targets: Tensor, *, centred: bool = True, **kwargs: Any) -> None:
        super().__init__(probe, **kwargs)
        if targets.ndim == 0 or len(targets) != len(probe):
            raise ParameterError(f"`targets` must have a row for each of the {len(probe)} inputs, got shape {tuple(targets.shape)}")
        self.register_buffer("targets", targets, persistent=False)
        self.centred = centred

    def measure(self, kernel: Tensor) -> Tensor:
        targets: Tensor = self.targets  # type: ignore[assignment]
        return scalar(kernel_alignment(kernel, targets, centred=self.centred))


class EffectiveRank(KernelMetric):
    """exp of the spectral entropy of the NTK (Roy and Vetterli 2007), in [1, n]: see `richlearn.kernels.effective_rank`.

    Args: see `KernelDistance`.
    """

    def measure(self, kernel: Tensor) -> Tensor:
        return scalar(effective_rank(kernel))


class EigenspaceOverlap(KernelMetric):
    """‖U₀ᵀU_t‖²/count of the NTK's `count` largest eigenvectors at initialisation and now: 1 is lazy, count/n is chance.

    See `richlearn.kernels.eigenspace_overlap`. The reference is U₀ (n, count) alone.

    Args:
        probe: inputs (n, …) on which the kernel is taken.
        count: number of eigenvectors.
        kwargs: `outputs` and `rates`, see `KernelDistance`.

    Raises:
        ParameterError: less than one eigenvector.
    """

    def __init__(self, probe: Tensor, count: int, **kwargs: Any) -> None:
        super().__init__(probe, **kwargs)
        if count < 1:
            raise ParameterError(f"`count` must be at least 1 eigenvector, got {count}")
        self.count = count

    def measure(self, kernel: Tensor) -> Tensor:
        basis = top_eigenvectors(kernel, self.count)
        if self.reference.numel() == 0:
            self.reference = basis
        return subspace_overlap(self.reference, basis)
