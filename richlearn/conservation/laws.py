"""Conservation laws of gradient flow: what stays, against which scale, and the symmetry that it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from richlearn.networks.spaces import Term

Parameters = Mapping[str, Tensor]
Rates = Mapping[str, float]
_SPREAD = 0.4  # of the logarithms of random scales


def _matrix(term: Term, parameters: Parameters) -> Float[Tensor, "unit entry"]:
    return term.matrix(parameters[term.parameter].double())


def _normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Law(ABC):
    """A differentiable function of the parameters that gradient flow θ̇_p = −η_p ∂L/∂θ_p keeps constant, for every loss and data set.

    Attributes:
        name: the layers that it joins, readable.
        kind: `rescaling`, `linear`, `query_key`, `value_output`, `scale_invariance`, `shift_invariance`, `softmax_shift` or `key_bias`.
        blocks: number of independent blocks of units.
    """

    name: str
    kind: str
    blocks: int

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that it holds."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many numbers of their own a value has; no more than that are independent."""

    @property
    def size(self) -> int:
        """How many numbers a value has, both triangles of a symmetric matrix counted."""
        return self.count

    @abstractmethod
    def value(self, parameters: Parameters, rates: Rates | None = None) -> Tensor:
        """What is conserved, float64."""

    @abstractmethod
    def scale(self, parameters: Parameters, rates: Rates | None = None) -> Tensor:
        """A positive size of the same shape as the value or its blocks, against whose norm a drift is read, float64."""

    @abstractmethod
    def transform(self, parameters: Parameters, generator: Generator) -> dict[str, Tensor]:
        """All parameters after a random finite transformation that no output shows."""

    @abstractmethod
    def entries(self, value: Tensor) -> Tensor:
        """The entries of a value that are numbers of their own, shape (count,): one triangle of a symmetric matrix."""


@dataclass(frozen=True)
class ScalingLaw(Law):
    """A scaling, or mixing, of the units by their incoming weights that the outgoing ones undo (Noether's theorem).

    With X_p the matrix (units, …) of parameter p, p_o the degree of an outgoing one, and c = η_in η_out of the first of each,

        Δ = c Σ_out p_o X_o X_oᵀ/η_o − c Σ_in X_i X_iᵀ/η_i.

    Conserved are the blocks (blocks, d, d) of Δ if `mixed`: linear layers (W_outᵀW_out η_in − W_in W_inᵀ η_out, biases of
    the units as a column of W_in), query and key, value and output of a head; else the traces (blocks,) of the blocks:
    δ_k of every unit, ‖W‖² of a layer in front of a normalisation (positive there, and exact for ε = 0).

    Marcotte, Gribonval, Peyré 2023 ("Abide by the law and follow the flow") and 2025 ("Transformative or conservative?",
    arXiv:2506.06194) for the matrices; Kunin et al. 2024, section 3 for δ and its rates.
    """

    incoming: tuple[Term, ...]
    outgoing: tuple[Term, ...]
    mixed: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(term.parameter for term in (*self.incoming, *self.outgoing)))

    @property
    def units(self) -> int:
        """Number of units."""
        return self.incoming[0].units

    @property
    def count(self) -> int:
        size = self.units // self.blocks
        return self.blocks * size * (size + 1) // 2 if self.mixed else self.blocks

    @property
    def size(self) -> int:
        return self.blocks * (self.units // self.blocks) ** 2 if self.mixed else self.blocks

    def _signed(self, rates: Rates) -> Iterator[tuple[Term, float]]:
        """Each term with its coefficient in Δ, the first outgoing one first."""
        into = rates.get(self.incoming[0].parameter, 1.0)
        out = rates.get(self.outgoing[0].parameter, 1.0) if self.outgoing else 1.0
        for i, term in enumerate(self.outgoing):
            yield term, term.degree * (into if i == 0 else out * into / rates.get(term.parameter, 1.0))
        sign = -1.0 if self.outgoing else 1.0
        for i, term in enumerate(self.incoming):
            yield term, sign * (out if i == 0 else out * into / rates.get(term.parameter, 1.0))

    def _total(self, parameters: Parameters, rates: Rates | None, absolute: bool, mixed: bool) -> Tensor:
        total: Tensor | None = None
        for term, factor in self._signed(rates or {}):
            rows = _matrix(term, parameters)
            if mixed:
                rows = rows.unflatten(0, (self.blocks, -1))
            part = rows @ rows.mT if mixed else rows.square().sum(1)
            part = (abs(factor) if absolute else factor) * part
            total = part if total is None else total + part
        assert total is not None
        return total

    def delta(self, parameters: Parameters, rates: Rates | None = None) -> Float[Tensor, " unit"]:
        """The diagonal of Δ: δ_k of each unit (an invariant only where units are scaled independently)."""
        return self._total(parameters, rates, absolute=False, mixed=False)

    def kappa(self, parameters: Parameters, rates: Rates | None = None) -> Float[Tensor, " unit"]:
        """κ_k, the same with all signs positive, ≥ |δ_k|."""
        return self._total(parameters, rates, absolute=True, mixed=False)

    def value(self, parameters: Parameters, rates: Rates | None = None) -> Tensor:
        if self.mixed:
            return self._total(parameters, rates, absolute=False, mixed=True)
        return self.delta(parameters, rates).view(self.blocks, -1).sum(1)

    def scale(self, parameters: Parameters, rates: Rates | None = None) -> Tensor:
        if self.mixed:
            return self._total(parameters, rates, absolute=True, mixed=True)
        return self.kappa(parameters, rates).view(self.blocks, -1).sum(1)

    def entries(self, value: Tensor) -> Tensor:
        if not self.mixed:
            return value
        rows, columns = torch.triu_indices(*value.shape[1:])
        return value[:, rows, columns].flatten()

    def _random(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """A random G for the incoming rows and its inverse transpose: (blocks, d, d) if mixed, factors (blocks, 1, 1) if not."""
        size = self.units // self.blocks if self.mixed else 1
        scales = (_SPREAD * _normal((self.blocks, size, 1), generator)).exp()
        if not self.mixed:
            return scales, 1 / scales
        left, right = (torch.linalg.qr(_normal((self.blocks, size, size), generator))[0] for _ in range(2))
        return left @ (scales * right), left @ (right / scales)

    def _applied(self, term: Term, factor: Tensor, value: Tensor) -> Tensor:
        """The parameter's value after its rows have been scaled, or mixed, block by block."""
        rows = term.matrix(value.double()).unflatten(0, (self.blocks, -1))
        rows = factor @ rows if self.mixed else factor**term.degree * rows
        return term.replaced(value, rows.flatten(0, 1).to(value.dtype))

    def transform(self, parameters: Parameters, generator: Generator) -> dict[str, Tensor]:
        changed = dict(parameters)
        there, back = self._random(generator)
        for terms, factor in ((self.incoming, there), (self.outgoing, back)):
            for term in terms:
                changed[term.parameter] = self._applied(term, factor, changed[term.parameter].detach())
        return changed


@dataclass(frozen=True)
class ShiftLaw(Law):
    """Something added to all units of a block that a centring behind them takes away: Σ_{k in block} X_p[k, :] stays.

    Layer norm removes Σ over its features of weights and bias, softmax that of the readout's; batch, instance and group norm
    remove constants, hence each bias (batch norm) or its sum over a group; a key's bias is the same for all scores of a
    query. Rates play no part. Kunin et al. 2021 ("Neural mechanics", translation symmetry); Kunin et al. 2024, section 3.

    Attributes:
        terms: what is summed; the value has shape (blocks, columns of all terms).
        beside: terms of the same layer, whose norm per block is the scale, so that a bias of zero has one.
    """

    terms: tuple[Term, ...]
    beside: tuple[Term, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(term.parameter for term in self.terms))

    @property
    def count(self) -> int:
        return self.blocks * sum(term.split[1] * term.split[3] for term in self.terms)

    def value(self, parameters: Parameters, rates: Rates | None = None) -> Tensor:
        rows = torch.cat([_matrix(term, parameters) for term in self.terms], dim=1)
        return rows.unflatten(0, (self.blocks, -1)).sum(1)

    def scale(self, parameters: Parameters, rates: Rates | None = None) -> Tensor:
        rows = torch.cat([_matrix(term, parameters) for term in self.beside], dim=1)
        return rows.reshape(self.blocks, -1).norm(dim=1)

    def entries(self, value: Tensor) -> Tensor:
        return value.flatten()

    def transform(self, parameters: Parameters, generator: Generator) -> dict[str, Tensor]:
        changed = dict(parameters)
        for term in self.terms:
            value = changed[term.parameter].detach()
            rows = term.matrix(value.double())
            added = _normal((self.blocks, 1, rows.shape[1]), generator)
            rows = (rows.unflatten(0, (self.blocks, -1)) + added).flatten(0, 1)
            changed[term.parameter] = term.replaced(value, rows.to(value.dtype))
        return changed


@dataclass(frozen=True)
class Laws(Sequence[Law]):
    """The conservation laws of a network, in order of use.

    Attributes:
        laws: all of them.
        why: one line that says why there are none; empty if there are.
    """

    laws: tuple[Law, ...]
    why: str = ""

    def __len__(self) -> int:
        return len(self.laws)

    @overload
    def __getitem__(self, index: int) -> Law: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Law]: ...
    def __getitem__(self, index: int | slice) -> Law | Sequence[Law]:
        return self.laws[index]

    def of(self, *kinds: str) -> tuple[Law, ...]:
        """The laws of these kinds."""
        return tuple(law for law in self.laws if law.kind in kinds)

    def values(self, parameters: Parameters, rates: Rates | None = None) -> Float[Tensor, " count"]:
        """All conserved numbers, symmetric matrices by one triangle."""
        parts = [law.entries(law.value(parameters, rates)) for law in self.laws]
        return torch.cat([torch.empty(0, dtype=torch.float64), *parts])

    def independent(self, parameters: Parameters) -> int:
        """How many of the conserved numbers are independent at these parameters: the rank of their Jacobian (small networks).

        Symmetric matrices Δ of more units than weights have fewer than their entries (Marcotte et al. 2023, section 4).
        """
        moving = {name: parameters[name].detach().double() for law in self.laws for name in law.parameters}
        if not moving:
            return 0
        jacobian = torch.func.jacrev(self.values)(moving)
        return int(torch.linalg.matrix_rank(torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)))
