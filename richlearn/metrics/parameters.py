"""How far the parameters have moved since initialisation."""

from typing import Any

import torch
from torch import Tensor, nn

from richlearn.metrics._base import DistanceFromStart


class ParameterDistance(DistanceFromStart):
    """‖θ_t − θ₀‖₂ over all parameters, divided by ‖θ₀‖₂ if `relative`."""

    def __init__(self, *, relative: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.relative = relative

    def observe(self, network: nn.Module) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        start = reference.double()
        distance = (current.double() - start).norm()
        return distance / start.norm() if self.relative else distance
