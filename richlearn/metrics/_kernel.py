"""What the metrics of a kernel share: the kernel of a network on a probe set, or one computed already, becomes one number."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from richlearn.kernels import TangentKernel
from richlearn.metrics._base import DistanceFromStart


class KernelMetric(DistanceFromStart):
    """A number from the empirical NTK on a probe set: `update(network)` takes the kernel, `update_kernel(kernel)` is given it.

    Only `reference` (what of an earlier kernel a metric needs, or nothing) and the number itself outlive an update, so
    that at most two kernels exist within it: the present one, the half of it that is kept, and the half kept before.

    Args:
        probe: inputs (n, …) on which the kernel is taken.
        outputs: "trace" or "full", see `richlearn.kernels.TangentKernel`; they differ where there are several outputs.
        rates: learning rates η_p by parameter name; 1 where absent.
    """

    def __init__(
        self, probe: Tensor, *, outputs: Literal["full", "trace"] = "trace", rates: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.register_buffer("probe", probe, persistent=False)
        self.outputs: Literal["full", "trace"] = outputs
        self.rates = dict(rates or {})
        self._engine: TangentKernel | None = None

    @abstractmethod
    def measure(self, kernel: Tensor) -> Tensor:
        """The metric's value, a float64 scalar; sets `reference` if it needs one."""

    def observe(self, network: nn.Module | Tensor) -> Tensor:
        if isinstance(network, Tensor):
            return network
        probe: Tensor = self.probe  # type: ignore[assignment]
        if self._engine is None or self._engine.x is not probe:
            self._engine = TangentKernel(network, probe, outputs=self.outputs)
        return self._engine(network, rates=self.rates)

    def update(self, network: nn.Module | Tensor) -> None:
        """Measure `network`, or its kernel where that is known already."""
        self.current = self.measure(self.observe(network))

    def update_kernel(self, kernel: Tensor) -> None:
        """Measure a kernel of this metric's probe, outputs and rates: several metrics share the cost of one.

        Raises:
            ParameterError: it is not square, or not of the size of the reference.
        """
        self.update(kernel)  # torchmetrics counts calls of `update`, and forgets the value computed before

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        return current


def scalar(value: float) -> Tensor:
    """A number as what a metric returns."""
    return torch.tensor(value, dtype=torch.float64)
