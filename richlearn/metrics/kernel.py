"""How far the NTK has turned since initialisation."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from richlearn.kernels import empirical_ntk, kernel_distance
from richlearn.metrics._base import DistanceFromStart


class KernelDistance(DistanceFromStart):
    """S(0, t) = 1 − ⟨K₀, K_t⟩/(‖K₀‖‖K_t‖) of the empirical NTK on a probe set (Kunin et al. 2024, eq. 2); 0 is lazy.

    Args:
        probe: inputs (n, …) on which the kernel is taken.
        outputs: "trace" or "full", see `richlearn.kernels.empirical_ntk`; they differ where there are several outputs.
        rates: learning rates η_p by parameter name; 1 where absent.
    """

    def __init__(
        self, probe: Tensor, *, outputs: Literal["full", "trace"] = "trace", rates: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.register_buffer("probe", probe, persistent=False)
        self.outputs: Literal["full", "trace"] = outputs
        self.rates = dict(rates or {})

    def observe(self, network: nn.Module) -> Tensor:
        probe: Tensor = self.probe  # type: ignore[assignment]
        return empirical_ntk(network, probe, outputs=self.outputs, rates=self.rates)

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        return torch.tensor(kernel_distance(reference, current), dtype=torch.float64)
