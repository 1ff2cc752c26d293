"""Orthogonal initialisation."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.schemes._common import normal, redraw, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers


def orthogonal(shape: torch.Size, generator: Generator) -> Tensor:
    """A Haar-distributed semi-orthogonal matrix (shape[0], product of the rest), in float64, reshaped to `shape`."""
    rows, columns = shape[0], shape[1:].numel()
    q, r = torch.linalg.qr(normal(torch.Size((max(rows, columns), min(rows, columns))), generator))
    q = q * r.diagonal().sign()
    return (q if rows >= columns else q.T).reshape(shape)


@final
@dataclass(frozen=True)
class Orthogonal(Scheme):
    """W semi-orthogonal (gain 1) in every layer; biases 0; lookup tables N(0, 1).

    Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks".
    """

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        redraw(network, generator, orthogonal, structure_of(network, batch))
        return Multipliers()
