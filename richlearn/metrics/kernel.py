"""How far the NTK has turned, since initialisation and since the last look."""

import torch
from torch import Tensor

from richlearn.kernels.packed import pack_symmetric, packed_distance
from richlearn.metrics._kernel import KernelMetric, scalar


class KernelDistance(KernelMetric):
    """S(0, t) = 1 − ⟨K₀, K_t⟩/(‖K₀‖‖K_t‖) of the empirical NTK on a probe set (Kunin et al. 2024, eq. 2); 0 is lazy.

    Unchanged when the network's output is scaled. The first update sets K₀, of which the symmetric half is kept; nan
    for a network that has diverged.

    Args:
        probe: inputs (n, …) on which the kernel is taken.
        outputs: "trace" or "full", see `richlearn.kernels.empirical_ntk`; they differ where there are several outputs.
        rates: learning rates η_p by parameter name; 1 where absent.
    """

    def measure(self, kernel: Tensor) -> Tensor:
        half = pack_symmetric(kernel)
        if self.reference.numel() == 0:
            self.reference = half
        return packed_distance(self.reference, half)


class KernelVelocity(KernelMetric):
    """S(t, t + Δt) between consecutive updates of this metric (Fort et al. 2020); nan at the first one.

    It is not divided by Δt: S grows as the square of a small step, so S/Δt would depend on how often one looks. The
    angular speed that does not is √(2S)/Δt. `reference` is the half of the last kernel seen, not of K₀.

    Args: see `KernelDistance`.
    """

    def measure(self, kernel: Tensor) -> Tensor:
        half = pack_symmetric(kernel)
        moved = packed_distance(self.reference, half) if self.reference.numel() else scalar(torch.nan)
        self.reference = half
        return moved
