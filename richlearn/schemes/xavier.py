"""Glorot initialisation."""

from dataclasses import dataclass
from math import sqrt
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.schemes._common import redraw, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers


def _draw(shape: torch.Size, generator: Generator) -> Tensor:
    fans = (shape[0] + shape[1]) * shape[2:].numel()
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return uniform * sqrt(6 / fans)


@final
@dataclass(frozen=True)
class Xavier(Scheme):
    """W uniform in ±sqrt(6/(fan_in + fan_out)) in every layer; biases 0; lookup tables N(0, 1).

    Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", eq. 16.
    """

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        redraw(network, generator, _draw, structure_of(network, batch))
        return Multipliers()
