"""He initialisation."""

from dataclasses import dataclass
from math import sqrt
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.schemes._common import normal, redraw, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers


def _draw(shape: torch.Size, generator: Generator) -> Tensor:
    return normal(shape, generator) * sqrt(2 / shape[1:].numel())


@final
@dataclass(frozen=True)
class Kaiming(Scheme):
    """W ~ N(0, 2/fan_in) in every layer, readout included; biases 0; lookup tables N(0, 1).

    He et al. 2015, "Delving deep into rectifiers", eq. 10 (the gain of ReLU under every activation).
    """

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        redraw(network, generator, _draw, structure_of(network, batch))
        return Multipliers()
