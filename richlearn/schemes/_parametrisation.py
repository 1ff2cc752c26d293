"""Forward-pass scales as initial standard deviations and multipliers."""

from math import sqrt

import torch
from torch import Generator, Tensor, nn

from richlearn.networks.structure import Structure
from richlearn.schemes._common import fan_in, normal, optimizer_name, structure_of, zero
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.standard import Standard


def equivalent_multipliers(scales: dict[str, float], optimizer: str | None) -> Multipliers:
    """Factors under which W follows c·V, where V trains with the plain hyperparameters in the network with W = cV.

    SGD, momentum included: lr × c², weight decay ÷ c². Adam: lr × c, ε ÷ c, and weight decay ÷ c² (it is added to the
    gradient, which is c times W's). AdamW: lr × c, ε ÷ c, weight decay ÷ c (decoupled).
    """
    lr_power, decay_power, eps_power = {"sgd": (2, -2, 0), "adam": (1, -2, -1), "adamw": (1, -1, -1)}[optimizer_name(optimizer)]
    lr, decay, eps = ({name: c**power for name, c in scales.items() if power} for power in (lr_power, decay_power, eps_power))
    return Multipliers(lr, decay, eps)


def forward_scales(network: nn.Module, structure: Structure, readout_power: float) -> dict[str, float]:
    """c of every weight: fan_in^(−1/2), for the readout fan_in^(−readout_power)."""
    fans = {layer.weight: fan_in(network.get_parameter(layer.weight), layer) for layer in structure.layers}
    return {name: fan**-readout_power if name in structure.readout else 1 / sqrt(fan) for name, fan in fans.items()}


@torch.no_grad()
def parametrise(network: nn.Module, generator: Generator, batch: Tensor | None, optimizer: str | None, readout_power: float) -> Multipliers:
    """W = cV with V ~ N(0, 1) and biases 0."""
    structure = structure_of(network, batch)
    scales = forward_scales(network, structure, readout_power)
    multipliers = equivalent_multipliers(scales, optimizer)
    Standard().apply(network, generator)
    for name, scale in scales.items():
        weight = network.get_parameter(name)
        weight.copy_(normal(weight.shape, generator) * scale)
    zero(network, [*structure.biases, *(name for name in structure.readout if name not in scales)])
    return multipliers
