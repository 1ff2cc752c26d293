"""What the metrics of a network's distance from initialisation share."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from richlearn.errors import UsageError


class DistanceFromStart(Metric):
    """A metric whose first `update` sets the reference; later ones set what is compared with it.

    Every rank of a data-parallel run holds the same network, so nothing is reduced between ranks.
    """

    is_differentiable = False
    higher_is_better = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sync_on_compute=False, **kwargs)
        self.add_state("reference", torch.empty(0), dist_reduce_fx=None)
        self.add_state("current", torch.empty(0), dist_reduce_fx=None)
        self.reference: Tensor
        self.current: Tensor

    @abstractmethod
    def observe(self, network: nn.Module) -> Tensor:
        """What of `network` is compared between times."""

    @abstractmethod
    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        """The metric's value from two observations."""

    def update(self, network: nn.Module) -> None:
        """Observe `network`; the first call since construction or `reset` sets the reference."""
        observed = self.observe(network)
        if self.reference.numel() == 0:
            self.reference = observed.clone()
        self.current = observed

    def require_seen(self) -> None:
        """Raise `UsageError` before the first update; a reference put in place (a resumed run) is none."""
        if self.current.numel() == 0:
            raise UsageError(f"`{type(self).__name__}` has seen no network yet: call `update(network)` at initialisation first")

    def compute(self) -> Tensor:
        """The metric as a float64 scalar.

        Raises:
            UsageError: nothing has been observed yet.
        """
        self.require_seen()
        return self.compare(self.reference, self.current)

    def forward(self, network: nn.Module) -> Tensor:
        """Update and compute: torchmetrics' value of "this batch alone" has no meaning for a distance from the start."""
        self.update(network)
        return self.compute()
