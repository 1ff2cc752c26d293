"""Which units are active on which inputs, and how many of these patterns have changed."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.metrics._base import DistanceFromStart
from richlearn.metrics._bits import count_bits, pack_bits
from richlearn.metrics._units import record


def activation_patterns(network: nn.Module, inputs: Tensor) -> Tensor:
    """Whether each piecewise-linear unit is active on each input, in evaluation mode: shape (n, units), bool, in order of use.

    ReLU, leaky ReLU, PReLU and RReLU, as modules or functions, in place or not, are active where the pre-activation is
    above 0; ReLU6 and hardtanh, which have two kinks, where it is between them. That is where σ' takes its larger
    value (for slopes below 1). An activation used twice counts twice; a maximum or clamp written out is none.

    Raises:
        NotApplicable: the network has no such unit (a linear network, GELU, tanh), or its activations do not keep the
            inputs' order along the first dimension.
    """
    layers = record(network, inputs, lambda active: active)
    for layer in layers:
        if not layer.shape or layer.shape[0] % len(inputs):
            raise NotApplicable(
                f"`{layer.name}` of `{type(network).__name__}` has activations of shape {layer.shape}, whose first dimension "
                f"does not hold the {len(inputs)} inputs, so no activation patterns per input"
            )
    return torch.cat([layer.kept.reshape(len(inputs), -1) for layer in layers], dim=1)


def pattern_parity(network: nn.Module, inputs: Tensor) -> Tensor:
    """Whether an odd number of units is active on each input: shape (n,), bool.

    In a two-layer network without redundant units (none dead, no two hyperplanes equal) it colours the linear regions
    of the input space so that neighbours differ: a border is one unit's hyperplane (Kunin et al. 2024,
    figure 5a). In deeper networks it is defined, but neighbours may agree.

    Raises:
        NotApplicable: see `activation_patterns`.
    """
    return activation_patterns(network, inputs).sum(1) % 2 == 1


class ActivationHammingDistance(DistanceFromStart):
    """Share of (unit, input) pairs whose activation pattern σ'(pre-activation) differs from initialisation, in [0, 1].

    Kunin et al. 2024, figure 1c, where the two-layer code sums over units instead: `summed=True` gives that. Which units
    there are: see `activation_patterns`. Patterns are held as bits.

    Args:
        probe: inputs (n, …) on which patterns are taken.
        summed: sum over units, mean over inputs.
    """

    def __init__(self, probe: Tensor, *, summed: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("probe", probe, persistent=False)
        self.summed = summed
        self._pairs: dict[str, int] = {}

    def observe(self, network: nn.Module) -> Tensor:
        probe: Tensor = self.probe  # type: ignore[assignment]
        layers = record(network, probe, pack_bits)
        self._pairs = {layer.name: prod(layer.shape) for layer in layers}
        return torch.cat([layer.kept for layer in layers])

    def _differing(self, reference: Tensor, current: Tensor) -> list[int]:
        """Pairs of each layer whose pattern differs."""
        if (reference.shape, reference.dtype) != (current.shape, current.dtype):
            raise ParameterError(
                f"the network must have as many activations as at the start: the reference holds {len(reference)} bytes of "
                f"patterns, the network now gives {len(current)}; call `reset()` for another network"
            )
        sizes = [-(-pairs // 8) for pairs in self._pairs.values()]
        return [int(count_bits(part)) for part in (reference ^ current).split(sizes)]

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        differing = sum(self._differing(reference, current))
        probe: Tensor = self.probe  # type: ignore[assignment]
        return torch.tensor(differing / (len(probe) if self.summed else sum(self._pairs.values())), dtype=torch.float64)

    def per_layer(self) -> dict[str, float]:
        """The share of pairs that differ in each layer, by the name of the module that computes it.

        An activation called as a function bears the name of the module that calls it (in the outermost one its own);
        second and later uses in one module are numbered, as in `block/2`. Weighted by size, the shares give the whole.

        Raises:
            UsageError: nothing has been observed yet.
        """
        self.require_seen()
        differing = self._differing(self.reference, self.current)
        return {name: count / pairs for (name, pairs), count in zip(self._pairs.items(), differing, strict=True)}
