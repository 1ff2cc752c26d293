"""The base student of the phase portrait: every hidden unit at scale τ and conserved quantity δ."""

from dataclasses import dataclass
from math import asinh, exp
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.schemes._common import finite, normal, only_pair, positive, structure_of, zero
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.multipliers import Multipliers


def _unit_rows(rows: int, columns: int, generator: Generator) -> Tensor:
    """Rows uniform on the unit sphere; ±1 for one column."""
    return nn.functional.normalize(normal(torch.Size((rows, columns)), generator))


@final
@dataclass(frozen=True)
class Unbalanced(Scheme):
    """Two-layer, symmetrised by default: w_k ← w_k τ/α, a_k ← a_k τα with α = exp(½ asinh(δ/2τ²)), so δ_k = τ²(α² − α⁻²) = δ.

    Base: w_k uniform on the unit sphere of R^d, a_k = ±1 (c outputs: uniform on the unit sphere of R^c); the second half
    of the units copies w and negates a, so f = 0 (`symmetric`; else every unit is drawn by itself); biases 0 (Kunin et al.
    2024, section 5, fig. 1b). The base is the same for every τ and δ of one generator seed. δ is the one of equal learning
    rates, η_w = η_a = 1.

    Raises:
        ParameterError: τ is not positive, δ is not finite, or `symmetric` is no truth value.
        NotApplicable: not two weight layers, an odd number of units where they are copied, or an activation that is not
            positively homogeneous.
    """

    tau: float = 1.0
    delta: float = 0.0
    symmetric: bool = True

    def __post_init__(self) -> None:
        positive("tau", self.tau)
        finite("delta", self.delta)
        if not isinstance(self.symmetric, bool):
            raise ParameterError(f"`symmetric` must be true or false, got {self.symmetric!r}")

    @property
    def alpha(self) -> float:
        """The relative scale that gives δ."""
        return exp(0.5 * asinh(self.delta / (2 * self.tau**2)))

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        pair = only_pair(network, structure, "unbalanced")
        weight, readout = network.get_parameter(pair.incoming), network.get_parameter(pair.outgoing)
        units = len(weight)
        if self.symmetric and units % 2:
            raise NotApplicable(f"`unbalanced` copies half of the hidden units: it needs an even width, got {units}")
        outgoing = pair.by_unit(readout, units)
        drawn = units // 2 if self.symmetric else units
        w = _unit_rows(drawn, weight[0].numel(), generator) * (self.tau / self.alpha)
        a = _unit_rows(drawn, outgoing[:, 0].numel(), generator) * (self.tau * self.alpha)
        w, a = (torch.cat([w, w]), torch.cat([a, -a])) if self.symmetric else (w, a)
        weight.copy_(w.view_as(weight))
        outgoing.copy_(a.view(units, len(outgoing), -1).transpose(0, 1))
        zero(network, [*structure.biases, *(name for name in structure.readout if name != pair.outgoing)])
        return Multipliers()

    def truths(self) -> Truths:
        """Every unit starts at δ."""
        return Truths(delta=self.delta)
