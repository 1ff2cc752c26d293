"""What is asked of a kernel: the checks of its arguments, and one kernel to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import isfinite
from numbers import Real
from typing import Literal

from torch import Tensor, nn

from richlearn.errors import ParameterError
from richlearn.kernels import _contract as contract
from richlearn.kernels._factors import Factor
from richlearn.kernels._plan import Part, Unit

Outputs = Literal["full", "trace", "sum"]


def check_arguments(outputs: str, samples: int | None, memory: int, x: Tensor, x2: Tensor | None) -> None:
    """Raise `ParameterError` where an argument of a kernel is out of range."""
    if outputs not in ("full", "trace", "sum"):
        raise ParameterError(f'`outputs` must be "full", "trace" or "sum", got {outputs!r}')
    if samples is not None and (outputs != "trace" or samples < 1):
        raise ParameterError(f'`samples` must be at least 1 and goes with outputs="trace", got {samples} with {outputs!r}')
    if not isinstance(memory, Real) or memory < 1:
        raise ParameterError(f"`memory` must be a number of bytes, got {memory!r}")
    for name, inputs in (("x", x), ("x2", x2)):
        if inputs is not None and not isinstance(inputs, Tensor):
            raise ParameterError(f"`{name}` must be a tensor of samples (n, …), got `{type(inputs).__name__}`")
        if inputs is not None and (inputs.ndim == 0 or len(inputs) == 0):
            raise ParameterError(f"`{name}` must hold at least one sample (n, …), got shape {tuple(inputs.shape)}")


def checked_rates(network: nn.Module, rates: Mapping[str, float] | None) -> Mapping[str, float]:
    """`rates`, all of them numbers of parameters that the network has."""
    if unknown := set(rates or {}) - {name for name, _ in network.named_parameters()}:
        raise ParameterError(f"`rates` names parameters that the network does not have: {sorted(unknown)}")
    for name, rate in (rates or {}).items():
        if not isinstance(rate, Real) or not isfinite(rate) or rate < 0:
            raise ParameterError(f"`rates` must hold numbers of at least 0, got {rate!r} for `{name}`")
    return rates or {}


def checked_values(network: nn.Module, values: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """`values`, each under the first name of a parameter or buffer of the network, in its shape."""
    named = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    own: dict[str, Tensor] = dict(named)
    first = {id(value): name for name, value in reversed(own.items())}
    found = {}
    for name, value in (values or {}).items():
        if name not in own:
            raise ParameterError(f"`{name}` is no parameter or buffer of `{type(network).__name__}`")
        if value.shape != own[name].shape:
            raise ParameterError(f"`{name}` must have shape {tuple(own[name].shape)}, got {tuple(value.shape)}")
        found[first[id(own[name])]] = value
    return found


@dataclass(frozen=True)
class Share:
    """What the parts `numbers` of a unit give to one kernel; `fresh`: nothing was given to it before."""

    kernel: Tensor
    numbers: list[int]
    fresh: bool


@dataclass(frozen=True)
class Request:
    """One kernel to compute: whose, with which rates, and where each part of it goes."""

    network: nn.Module
    values: Mapping[str, Tensor]
    rates: Mapping[str, float]
    targets: Mapping[str, Tensor]  # by parameter; all the same tensor, or one a layer

    @property
    def kernel(self) -> Tensor:
        """One of the kernels: all have its precision and device."""
        return next(iter(self.targets.values()))

    def rate(self, part: Part) -> float:
        """η_p."""
        return float(self.rates.get(part.parameter, 1.0))

    def shares(self, units: Sequence[Unit], *, fresh: bool) -> list[list[Share]]:
        """What each unit gives to which kernels; `fresh`: nothing has been added to them yet."""
        begun = set() if fresh else {id(kernel) for kernel in self.targets.values()}
        found = []
        for unit in units:
            numbers: dict[int, list[int]] = {}
            for number, part in enumerate(unit.parts):
                numbers.setdefault(id(self.targets[part.parameter]), []).append(number)
            found.append([Share(self.targets[unit.parts[each[0]].parameter], each, key not in begun) for key, each in numbers.items()])
            begun |= numbers.keys()
        return found

    def columns(self, unit: Unit, numbers: list[int], width: int) -> list[tuple[slice, float]]:
        """Where the gradients of these parts are among the `width` numbers of all, and η_p; neighbours of one rate together."""
        each = width // sum(part.size for part in unit.parts)  # numbers an element
        places = list(pairwise(accumulate((each * part.size for part in unit.parts), initial=0)))
        found: list[tuple[slice, float]] = []
        for number in numbers:
            (start, stop), rate = places[number], self.rate(unit.parts[number])
            if found and found[-1][0].stop == start and found[-1][1] == rate:
                start = found.pop()[0].start
            found.append((slice(start, stop), rate))
        return found

    def weights(self, unit: Unit, numbers: list[int], left: Factor, right: Factor) -> Tensor:
        """Σ_p η_p × products of operands, (n, position, n′, position)."""
        total: Tensor | None = None
        for number in numbers:
            first, second, part = left.operands[number], right.operands[number], unit.parts[number]
            product, rate = contract.pairing(first, second, self.kernel.dtype), self.rate(part)
            product = product if rate == 1.0 else product.mul_(rate)
            total = product if total is None else total.add_(product)
        assert total is not None
        return total.view(left.samples, -1, right.samples, right.operands[numbers[0]].shape[1])
