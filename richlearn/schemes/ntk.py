"""NTK parametrisation."""

from dataclasses import dataclass
from typing import final

from torch import Generator, Tensor, nn

from richlearn.schemes._parametrisation import parametrise
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers


@final
@dataclass(frozen=True)
class NTK(Scheme):
    """W = V/sqrt(fan_in), V ~ N(0, 1) trained with the protocol's learning rate: every layer, the readout included.

    Jacot, Gabriel & Hongler 2018, "Neural tangent kernel", section 2. Expressed by initial standard deviation and
    multipliers, with the same trajectory of the function. Deviation: biases start at 0 and train at the plain rate
    (their β = 1). A lookup table has c = 1. The learning rate is the one of V.
    """

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        return parametrise(network, generator, batch, optimizer, readout_power=0.5)
