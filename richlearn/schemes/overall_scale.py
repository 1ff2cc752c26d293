"""Overall scale of all layers."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.schemes._common import positive, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.standard import Standard


@final
@dataclass(frozen=True)
class OverallScale(Scheme):
    """Standard, then every weight layer × τ, its bias included.

    A bias-free positively homogeneous network of D layers becomes τ^D f (Kunin et al. 2024, section 5); with biases it
    does not, since a bias in layer l would have to grow by τ^l. Normalisation layers are left alone.

    Raises:
        ParameterError: τ is not positive.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        positive("tau", self.tau)

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        Standard().apply(network, generator)
        for name in {*(layer.weight for layer in structure.layers), *structure.biases, *structure.readout}:
            network.get_parameter(name).mul_(self.tau)
        return Multipliers()
