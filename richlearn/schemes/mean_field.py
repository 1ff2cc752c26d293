"""Mean-field parametrisation."""

from dataclasses import dataclass
from typing import final

from torch import Generator, Tensor, nn

from richlearn.schemes._parametrisation import parametrise
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers


@final
@dataclass(frozen=True)
class MeanField(Scheme):
    """W = V/sqrt(fan_in) in the hidden layers, V/fan_in in the readout, V ~ N(0, 1); biases 0, trained at the plain rate.

    The parametrisation of the random-hierarchy experiments (Petrini, Cagnetta et al. 2023; Kunin et al. 2024, fig. 6c).
    The learning rate is the one of V, so under SGD it grows in proportion to the width (6.4 = 0.1 × 64 there).
    """

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        return parametrise(network, generator, batch, optimizer, readout_power=1.0)
