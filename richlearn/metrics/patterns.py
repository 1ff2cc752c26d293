"""Which units are active on which inputs, and how many of these patterns have changed."""

from typing import Any

import torch
from torch import Tensor, nn

from richlearn.errors import NotApplicable
from richlearn.metrics._base import DistanceFromStart
from richlearn.networks._trace import undisturbed

_PIECEWISE_LINEAR = (nn.ReLU, nn.LeakyReLU, nn.ReLU6)


def activation_patterns(network: nn.Module, inputs: Tensor) -> Tensor:
    """Whether each pre-activation of each piecewise-linear module is positive in eval mode, shape (n, units), bool.

    Raises:
        NotApplicable: the network has no such module (a linear network, GELU, tanh).
    """
    active: list[Tensor] = []
    modules = [module for module in network.modules() if isinstance(module, _PIECEWISE_LINEAR)]
    if not modules:
        raise NotApplicable(f"`{type(network).__name__}` has no piecewise-linear activation module, so no activation patterns")
    handles = [module.register_forward_pre_hook(lambda _, args: active.append((args[0] > 0).flatten(1))) for module in modules]
    try:
        with undisturbed(network):
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(active, dim=1)


class ActivationHammingDistance(DistanceFromStart):
    """Share of (unit, input) pairs whose activation pattern σ'(pre-activation) differs from initialisation, in [0, 1].

    Kunin et al. 2024, figure 1c, where the two-layer code sums over units instead: `summed=True` gives that.

    Args:
        probe: inputs (n, …) on which patterns are taken.
        summed: sum over units, mean over inputs.
    """

    def __init__(self, probe: Tensor, *, summed: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("probe", probe, persistent=False)
        self.summed = summed

    def observe(self, network: nn.Module) -> Tensor:
        probe: Tensor = self.probe  # type: ignore[assignment]
        return activation_patterns(network, probe)

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        differs = (reference != current).double().mean(0)
        return differs.sum() if self.summed else differs.mean()
