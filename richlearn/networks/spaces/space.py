"""A space of hidden units: which parameters write them, which read them, and what may be done to them without a trace in the outputs."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Role = Literal["weight", "bias", "gain"]
Reach = Literal["everywhere", "constant"]


@dataclass(frozen=True)
class Term:
    """How one parameter holds the units of a space: as a matrix X of a row per unit.

    Attributes:
        parameter: its name.
        split: (g, b, u, r): the parameter, seen as an array of this shape, holds unit k = i·u + j in its entries [i, :, j, :].
        rows: first and last + 1 of the rows that are meant, where modules pack several weights into one parameter.
        degree: of the outgoing terms: by which power of a unit's scale the input of this weight scales.
        role: whether it weighs inputs, is added, or multiplies the unit itself.
        part: first and last + 1 of the rows of X that are meant (g = 1), where units of several spaces lie side by side.
    """

    parameter: str
    split: tuple[int, int, int, int]
    rows: tuple[int, int] | None = None
    degree: float = 1.0
    role: Role = "weight"
    part: tuple[int, int] | None = None

    @property
    def units(self) -> int:
        """Rows of X."""
        first, end = self.part or (0, self.split[0] * self.split[2])
        return end - first

    def _view(self, tensor: Tensor) -> Tensor:
        meant = tensor if self.rows is None else tensor[slice(*self.rows)]
        units = meant.view(self.split).transpose(1, 2)
        return units if self.part is None else units[:, slice(*self.part)]

    def matrix(self, tensor: Tensor) -> Float[Tensor, "unit entry"]:
        """X of the parameter's value."""
        return self._view(tensor.contiguous()).reshape(self.units, -1)

    def replaced(self, tensor: Tensor, matrix: Float[Tensor, "unit entry"]) -> Tensor:
        """A copy of the parameter's value in which X is `matrix`."""
        copy = tensor.clone(memory_format=torch.contiguous_format)
        view = self._view(copy)
        view.copy_(matrix.reshape(view.shape))
        return copy


@dataclass(frozen=True)
class Space:
    """Hidden units, in contiguous blocks of equal size.

    Attributes:
        kind: `units` of a layer, `query_key` and `value_output` of attention heads (a block is a head), `key_bias`.
        units: their number.
        blocks: how many blocks may be changed independently of each other: scaled, or mixed if `full`.
        full: whether any invertible mixing inside a block can be undone by the outgoing weights, not only a scaling.
        incoming: per layer that writes the units, its terms; the layers' results are summed.
        outgoing: terms that read the units.
        norms: normalisations that undo a scaling.
        broken: why scaling the units is not undone; None if it is.
        reach: what can be added to all units of a centring block unseen: any function of the input and place, or a constant.
        centred: number of such blocks, 0 if there are none.
        centres: what centres them.
    """

    kind: str
    units: int
    blocks: int
    full: bool
    incoming: tuple[tuple[Term, ...], ...]
    outgoing: tuple[Term, ...]
    norms: tuple[str, ...] = ()
    broken: str | None = None
    reach: Reach = "everywhere"
    centred: int = 0
    centres: tuple[str, ...] = ()
