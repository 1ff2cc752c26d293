"""Layer-sequential unit variance."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks._trace import as_input, undisturbed
from richlearn.networks.structure import Layer
from richlearn.schemes._common import positive, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.orthogonal import Orthogonal


def _output_variance(network: nn.Module, layer: Layer, inputs: Tensor) -> float | None:
    """Variance of the layer's output over samples, units and positions; None if no tensor comes out of its module."""
    outputs: list[object] = []
    hook = network.get_submodule(layer.module).register_forward_hook(lambda _m, _a, out: outputs.append(out))
    try:
        with undisturbed(network):
            network(inputs)
    finally:
        hook.remove()
    output = outputs[0] if outputs else None
    return float(output.double().var(correction=0)) if isinstance(output, Tensor) else None


@final
@dataclass(frozen=True)
class LSUV(Scheme):
    """Orthogonal weights, then each layer in order of use is divided by the standard deviation of its output on `batch`.

    Mishkin & Matas 2016, "All you need is a good init", algorithm 1: every linear and convolutional layer, the readout
    included. A layer is left when |variance − 1| < `tolerance`, or after `max_iterations`. Lookup tables, and weights
    that no module of their own applies (inside attention), keep their first draw.

    Args:
        tolerance: 0.1 in the authors' code.
        max_iterations: 10 in the authors' code; one is enough where a layer is linear in its weight.

    Raises:
        ParameterError: no `batch`.
        NotApplicable: a layer's output does not vary on the batch.
    """

    tolerance: float = 0.1
    max_iterations: int = 10

    def __post_init__(self) -> None:
        positive("tolerance", self.tolerance)
        if positive("max_iterations", self.max_iterations) % 1:
            raise ParameterError(f"`max_iterations` must be a whole number, got {self.max_iterations!r}")

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        if batch is None:
            raise ParameterError("`lsuv` looks at data: it needs `batch`, a tensor of training inputs, got None")
        Orthogonal().apply(network, generator, batch=batch)
        inputs = as_input(network, batch)
        for layer in structure_of(network, batch).layers:
            if not layer.lookup and not list(network.get_submodule(layer.module).children()):
                self._normalise(network, layer, inputs)
        return Multipliers()

    @torch.no_grad()
    def _normalise(self, network: nn.Module, layer: Layer, inputs: Tensor) -> None:
        for _ in range(int(self.max_iterations)):
            variance = _output_variance(network, layer, inputs)
            if variance is None or abs(variance - 1) < self.tolerance:
                return
            if variance == 0:
                raise NotApplicable(f"`lsuv` cannot scale `{layer.weight}`: its output does not vary on the batch of {len(inputs)} inputs")
            network.get_parameter(layer.weight).div_(variance**0.5)
