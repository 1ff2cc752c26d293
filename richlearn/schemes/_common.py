"""Checks and steps that several schemes share."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable, ParameterError, nearest
from richlearn.networks.structure import Layer, Pair, Structure, find
from richlearn.schemes.standard import Standard

OPTIMIZERS = ("sgd", "adam", "adamw")
Draw = Callable[[torch.Size, Generator], Tensor]


def finite(name: str, value: object) -> float:
    """`value` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ParameterError(f"`{name}` must be a finite number, got {value!r}")
    return value


def positive(name: str, value: object) -> float:
    """`value` if it is a positive, finite number."""
    if finite(name, value) <= 0:
        raise ParameterError(f"`{name}` must be positive, got {value!r}")
    return float(value)  # pyright: ignore[reportArgumentType]


def optimizer_name(name: str | None) -> str:
    """`name` if it is known; gradient descent if it is None."""
    if name is not None and name not in OPTIMIZERS:
        raise ParameterError(f"unknown `optimizer` {name!r}; {nearest(str(name), OPTIMIZERS)}")
    return name or "sgd"


def structure_of(network: nn.Module, batch: Tensor | None) -> Structure:
    """The network's structure, seen on one input of `batch` if there is one."""
    return find(network, None if batch is None else batch[:1])


def fan_in(weight: Tensor, layer: Layer) -> int:
    """Inputs that one unit of the layer sums over; 1 for a lookup table, which reads one row."""
    return 1 if layer.lookup else weight[0].numel()


def normal(shape: torch.Size, generator: Generator) -> Tensor:
    """N(0, 1) in float64, so that float32 and float64 networks get one initialisation."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def redraw(network: nn.Module, generator: Generator, draw: Draw, structure: Structure) -> None:
    """Reset all modules, then draw every weight anew and set the biases beside them to 0; lookup tables stay N(0, 1)."""
    Standard().apply(network, generator)
    parameters = dict(network.named_parameters())
    for layer in structure.layers:
        if not layer.lookup:
            parameters[layer.weight].copy_(draw(parameters[layer.weight].shape, generator))
    zero(network, [*structure.biases, *(name for name in structure.readout if parameters[name].ndim == 1)])


@torch.no_grad()
def zero(network: nn.Module, names: list[str]) -> None:
    """Set the named parameters to 0."""
    for name in names:
        network.get_parameter(name).zero_()


def only_pair(network: nn.Module, structure: Structure, scheme: str) -> Pair:
    """The hidden layer of a two-layer positively homogeneous network.

    Raises:
        NotApplicable: another number of weight layers, or another activation.
    """
    if (count := len(structure.layers)) != 2:
        raise NotApplicable(f"`{scheme}` needs a network of two weight layers, `{type(network).__name__}` has {count}")
    return homogeneous(network, structure, scheme)[0]


def homogeneous(network: nn.Module, structure: Structure, scheme: str) -> tuple[Pair, ...]:
    """The pairs of a network in which every hidden layer is positively homogeneous.

    Raises:
        NotApplicable: some hidden layer is not, or it cannot be seen to be.
    """
    if structure.homogeneous:
        return structure.pairs
    activation = getattr(network, "activation", None)
    found = f"activation `{activation}`" if isinstance(activation, str) else f"{len(structure.pairs)} homogeneous pairs"
    raise NotApplicable(
        f"`{scheme}` needs positively homogeneous hidden layers (relu, leaky_relu, linear; no normalisation), "
        f"`{type(network).__name__}` has {len(structure.layers)} weight layers with {found}; "
        "a network that cannot be followed declares them in `homogeneous_pairs`"
    )


def separate(network: nn.Module, structure: Structure, scheme: str) -> None:
    """Raise `NotApplicable` unless the first layer and the readout are different weights."""
    if not structure.separate:
        raise NotApplicable(
            f"`{scheme}` needs a first layer and a readout of their own, `{type(network).__name__}` has one weight for both"
        )
