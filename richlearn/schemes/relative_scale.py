"""Relative scale between the first layer and the readout; upstream, downstream and unscaled are three of its values."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import ParameterError, nearest
from richlearn.schemes._common import positive, separate, structure_of
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.mean_field import MeanField
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.mup import MuP
from richlearn.schemes.ntk import NTK
from richlearn.schemes.standard import Standard

_BASES: dict[str, type[Scheme]] = {"standard": Standard, "ntk": NTK, "mean_field": MeanField, "mup": MuP}


@final
@dataclass(frozen=True)
class RelativeScale(Scheme):
    """The `base` scheme, then first-layer weights and every bias before the readout ÷ α, readout weights × α.

    A positively homogeneous network keeps its function (Kunin et al. 2024, section 5). α is the divisor of the first
    layer: α > 1 upstream, α < 1 downstream. `base` is `standard`, `ntk`, `mean_field` (figure 6c) or `mup`; learning-rate
    multipliers are the base's.

    Raises:
        ParameterError: α is not positive, or an unknown base.
        NotApplicable: first layer and readout are one weight.
    """

    alpha: float = 1.0
    base: str = "standard"

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)
        if not isinstance(self.base, str) or self.base not in _BASES:
            raise ParameterError(f"unknown `base` {self.base!r}; {nearest(str(self.base), _BASES)}")

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        separate(network, structure, "relative_scale")
        multipliers = _BASES[self.base]().apply(network, generator, batch=batch, optimizer=optimizer)
        for name in (*structure.first, *structure.biases):
            network.get_parameter(name).div_(self.alpha)
        for layer in structure.layers:
            if layer.weight in structure.readout:
                network.get_parameter(layer.weight).mul_(self.alpha)
        return multipliers

    def truths(self) -> Truths:
        """The function of the base."""
        return Truths(same_function_as=_BASES[self.base]())


class _Fixed(Scheme):
    """A relative scale that has a name of its own; a member supplies α."""

    alpha: ClassVar[float]

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        return RelativeScale(self.alpha).apply(network, generator, batch=batch, optimizer=optimizer)

    def truths(self) -> Truths:
        """The function of the standard initialisation."""
        return Truths(same_function_as=Standard())


@final
@dataclass(frozen=True)
class Upstream(_Fixed):
    """Relative scale α = 10: earlier layers learn faster."""

    alpha: ClassVar[float] = 10.0


@final
@dataclass(frozen=True)
class Downstream(_Fixed):
    """Relative scale α = 0.1: later layers learn faster."""

    alpha: ClassVar[float] = 0.1


@final
@dataclass(frozen=True)
class Unscaled(_Fixed):
    """Relative scale α = 1 (and overall scale 1): the reference row of a scale sweep."""

    alpha: ClassVar[float] = 1.0
