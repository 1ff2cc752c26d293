"""PyTorch's default initialisation, from a generator of its own."""

from dataclasses import dataclass
from typing import final

from torch import Generator, Tensor, nn

from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.seeds import global_stream


def _reset(module: nn.Module) -> None:
    """Children first: a parent that resets parameters of its children (attention) does so after them, as in its constructor."""
    for child in module.children():
        _reset(child)
    for name in ("reset_parameters", "_reset_parameters"):
        if callable(reset := getattr(module, name, None)):
            reset()


@final
@dataclass(frozen=True)
class Standard(Scheme):
    """Every module's own `reset_parameters`; for a plain network the same as building it anew.

    Linear and convolutional weights and biases are uniform with variance 1/(3·fan-in). A module without a reset, and
    parameters that the network holds directly, stay as they were constructed.
    """

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        with global_stream(generator):
            _reset(network)
        return Multipliers()
