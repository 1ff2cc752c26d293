"""The paper's single neuron: one linear unit with a given function and a given balance."""

from dataclasses import dataclass
from math import cos, hypot, radians, sin, sqrt
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable
from richlearn.schemes._common import finite, only_pair, positive, structure_of
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.multipliers import Multipliers


@final
@dataclass(frozen=True)
class SingleUnit(Scheme):
    """f(x) = a·wᵀx with a given β₀ = a·w and δ = a² − ‖w‖²: a = sqrt((κ+δ)/2) > 0, w = β₀/a, κ = sqrt(δ² + 4‖β₀‖²).

    The starts of Kunin et al. 2024, figures 2-4: one function, seven balances. δ is the one of equal learning rates.

    Args:
        delta: δ.
        scale: ‖β₀‖.
        angle: of β₀ in degrees, from the first input axis towards the second.

    Raises:
        ParameterError: δ or the angle is not finite, or the scale is not positive.
        NotApplicable: more than one hidden unit or output, fewer than two inputs, or an activation that is not homogeneous.
    """

    delta: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    deterministic = True

    def __post_init__(self) -> None:
        finite("delta", self.delta)
        positive("scale", self.scale)
        finite("angle", self.angle)

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        pair = only_pair(network, structure, "single_unit")
        w, a = network.get_parameter(pair.incoming), network.get_parameter(pair.outgoing)
        if w.ndim != 2 or len(w) != 1 or w.shape[1] < 2 or a.numel() != 1 or structure.biases:
            shapes = f"{tuple(w.shape)} and {tuple(a.shape)}"
            raise NotApplicable(f"`single_unit` needs weights of shape (1, d ≥ 2) and (1, 1) without biases, got {shapes}")
        larger = sqrt((abs(self.delta) + hypot(self.delta, 2 * self.scale)) / 2)  # the larger of a and ‖w‖
        readout = larger if self.delta >= 0 else self.scale / larger
        w.zero_()
        w[0, :2] = torch.tensor([cos(radians(self.angle)), sin(radians(self.angle))], dtype=torch.float64) * (self.scale / readout)
        a.fill_(readout)
        return Multipliers()

    def truths(self) -> Truths:
        """δ."""
        return Truths(delta=self.delta)
