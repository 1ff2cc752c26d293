"""Isotropic initialisation of deep linear networks."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.schemes._common import finite, homogeneous, positive, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.theory import isotropic_layers


@final
@dataclass(frozen=True)
class Isotropic(Scheme):
    """f = aᵀW_L…W_1x, square layers, all balanced but the last: aaᵀ − W_LW_Lᵀ = −εI (Kunin et al. 2024, appendix on deep networks).

    ε = 0 is balanced at every layer, ε > 0 downstream: the readout learns faster. Bases and the direction of β are random.

    Args:
        scale: ‖β‖ at the start.
        epsilon: ε.

    Raises:
        ParameterError: the scale is not positive, or ε is negative.
        NotApplicable: layers that are not square, several outputs, biases, or an activation that is not homogeneous.
    """

    scale: float = 1.0
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        positive("scale", self.scale)
        if finite("epsilon", self.epsilon) < 0:
            raise ParameterError(f"`epsilon` must be at least 0, got {self.epsilon!r}")

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        homogeneous(network, structure, "isotropic")
        held = [network.get_parameter(layer.weight) for layer in structure.layers]
        width = held[0].shape[-1]
        shapes = [tuple(weight.shape) for weight in held]
        if structure.biases or shapes != [(width, width)] * (len(held) - 1) + [(1, width)] or len(held) < 2:
            raise NotApplicable(f"`isotropic` needs square hidden layers, one output and no biases, got weights of shapes {shapes}")
        seed = int(torch.randint(2**62, (), generator=generator))
        for weight, value in zip(held, isotropic_layers(len(held) - 1, width, self.scale, self.epsilon, seed=seed), strict=True):
            weight.copy_(torch.as_tensor(value).reshape(weight.shape))
        return Multipliers()
