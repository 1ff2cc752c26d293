"""Passes over chunks of samples: what every unit keeps of them."""

from collections.abc import Iterable, Iterator, Mapping, Set
from functools import partial

from torch import Tensor, nn

from richlearn.errors import ParameterError
from richlearn.kernels._factors import Factor, Pass, Workspace, at_active, gram_operands, gram_rows, part_gradient
from richlearn.kernels._jacobian import jacobians
from richlearn.kernels._kept import Kept
from richlearn.kernels._operations import HANDLERS, SLOPES
from richlearn.kernels._passes import State, attached, call, gradients, state_of
from richlearn.kernels._plan import Plan, Unit
from richlearn.kernels._pooling import Pooling, poolings
from richlearn.kernels._request import Request
from richlearn.kernels._survey import Survey, signature
from richlearn.kernels._uses import ParameterUses


class Collector:
    """Gives the factors of a chunk of samples, for one network architecture.

    Args:
        names: of the parameters in the sum.
        survey: of the network.
        plan: says how many samples a pass takes.
        full: whether every pair of cotangents is kept.
        kept: holds what is the same in every kernel.

    Attributes:
        units: what the factors belong to, in their order.
        everywhere: units to which gradients came at other positions than in the survey, once.
    """

    def __init__(self, names: Set[str], survey: Survey, plan: Plan, kept: Kept, *, full: bool) -> None:
        self._names, self._survey, self._plan, self._kept, self._full = names - survey.fallback.keys(), survey, plan, kept, full
        self.units = plan.joined()
        self.everywhere: set[int] = set()
        self._work = Workspace()

    def factors(self, request: Request, x: Tensor, start: int, cotangents: Tensor, side: str) -> list[Factor]:
        """What every unit keeps of the samples from `start` on, as many as are kept at once; `side` tells the two sets apart.

        Raises:
            ParameterError: a network that uses its parameters in another way than in the survey.
        """
        everywhere = len(self.everywhere)
        collected = self._collected(request, x, start, cotangents, side)
        if everywhere < len(self.everywhere):  # found on the way: all positions are needed
            collected = self._collected(request, x, start, cotangents, side)
        found = [self._factor(unit, pieces) for unit, pieces in zip(self.units, collected, strict=True)]
        return [
            self._kept.settled((side, start, number), factor) if unit.constant and (self._full or not unit.head) else factor
            for number, (unit, factor) in enumerate(zip(self.units, found, strict=True))
        ]

    def _factor(self, unit: Unit, pieces: list[Tensor]) -> Factor:
        """The pieces as a factor."""
        if unit.contraction != "gram":
            return Factor(pieces[0], [])
        if unit.head:
            return Factor(None, pieces)
        *operands, rows = pieces
        return Factor(rows if self._full else rows.flatten(2), operands)

    def _collected(self, request: Request, x: Tensor, start: int, cotangents: Tensor, side: str) -> list[list[Tensor]]:
        """The pieces of `_pass` for all samples from `start` on; parameter gradients one after the other."""
        stop = min(start + self._plan.rows, len(x))
        found: list[list[Tensor]] = [[] for _ in self.units]
        for begin in range(start, stop, self._plan.batch):
            end = min(begin + self._plan.batch, stop)
            place, count = slice(begin - start, end - start), stop - start
            for index, pieces in enumerate(self._pass(request, x[begin:end], cotangents, (side, begin))):
                unit, key = self.units[index], (side, index)
                cast = (piece.to(request.kernel.dtype) if piece.is_floating_point() else piece for piece in pieces)  # of mixed precision
                if unit.contraction != "gram" and len(unit.parts) > 1:
                    lead, each = ((count, len(cotangents)), 1) if self._full else ((count,), len(cotangents))
                    sizes = [each * part.size for part in unit.parts]
                    held = self._work.take(key, (*lead, sum(sizes)), request.kernel)
                    for piece, elements in zip(cast, held[place].split(sizes, -1), strict=True):
                        elements.copy_(piece)
                    found[index] = [held]
                else:
                    found[index] = [self._store(piece, number, key, place, count) for number, piece in enumerate(cast)]
        return found

    def _store(self, piece: Tensor, number: int, key: tuple, place: slice, count: int) -> Tensor:
        """`piece` among the others of its kind, in memory that is used again; alone it may stay where it is."""
        if len(piece) == count and piece.is_contiguous():
            return piece
        held = self._work.take((*key, number), (count, *piece.shape[1:]), piece)
        held[place].copy_(piece)
        return held

    def _pass(self, request: Request, x: Tensor, cotangents: Tensor, key: tuple[str, int]) -> Iterator[Iterable[Tensor]]:
        """One forward and one batched backward pass; of each unit what it keeps of the samples `key`, gradients last."""
        survey, m = self._survey, len(cotangents)
        exact = self._exact(request, x, cotangents)
        if not survey.groups:  # there is nothing that a pass would record
            yield from (self._rows(exact[part.parameter] for part in unit.parts) for unit in self.units)
            return
        state = state_of(request.network, self._names, request.values)
        handlers = HANDLERS | SLOPES if m > 1 else HANDLERS
        uses = ParameterUses(state.leaves, handlers, constant=survey.constant)
        output = call(request.network, state, x, uses)
        _check_as_surveyed(request.network, survey, uses, output, state)
        cotangents = cotangents.to(output)
        behind = poolings(output, {edge: uses.edges[edge] for edge in self._plan.pooled})
        seen = Pass(uses, self._backward(output, uses, behind, cotangents), behind, m, output, partial(self._kept.patches, key))
        for number, unit in enumerate(self.units):
            if unit.contraction != "gram":
                yield self._rows(exact[part.parameter] if part.parameter in exact else part_gradient(part, seen) for part in unit.parts)
            else:
                operands = [gram_operands(part, seen) for part in unit.parts]
                yield operands if unit.head else self._pieces(number, operands, gram_rows(unit, seen))

    def _rows(self, gradients: Iterable[Tensor]) -> Iterable[Tensor]:
        """Parameter gradients (n, m, element), of a traced kernel (n, m·element)."""
        return gradients if self._full else (each.flatten(1) for each in gradients)

    def _pieces(self, number: int, operands: list[Tensor], rows: Tensor) -> list[Tensor]:
        """Operands and gradients (n, m, position, feature), of a traced kernel (n, position, m, feature), where gradients arrive."""
        found = [*operands, rows] if number in self.everywhere else at_active(self.units[number], operands, rows)
        if found is None:
            self.everywhere.add(number)
            found = [*operands, rows]
        return found if self._full else [*found[:-1], found[-1].transpose(1, 2)]

    def _backward(self, output: Tensor, uses: ParameterUses, behind: Mapping[int, Pooling], cotangents: Tensor) -> dict[int, Tensor]:
        """Gradients (m, …) by result, at the winners where a pooling is `behind` it; those left out that only heads have."""
        wanted = sorted({edge for unit in self.units if not unit.head for edge in unit.edges})
        if not wanted or not output.requires_grad:
            return {}
        spread = cotangents[:, None, :].expand(-1, len(output), -1)
        edges = [behind[edge].edge if edge in behind else uses.edges[edge] for edge in wanted]
        found = dict(zip(wanted, gradients(output, edges, spread, at_once=self._survey.at_once), strict=True))
        for edge, pooling in behind.items():
            if (gradient := found[edge]) is not None:
                found[edge] = pooling.at_winners(gradient)
        same = {edge: found.get(first) for edge, first in self._survey.same.items()}
        return {edge: value for edge, value in (found | same).items() if value is not None}

    def _exact(self, request: Request, x: Tensor, cotangents: Tensor) -> dict[str, Tensor]:
        """Jacobians of the parameters that are not covered."""
        if not self._survey.fallback:
            return {}
        return jacobians(request.network, state_of(request.network, frozenset(self._survey.fallback), request.values), x, cotangents)


def _check_as_surveyed(network: nn.Module, survey: Survey, uses: ParameterUses, output: Tensor, state: State) -> None:
    """Raise where the network does something else with its parameters than it did with the first samples."""
    same = signature(uses) == survey.signature
    used = [use for group in survey.groups for use in group] if same else []
    rows = all(uses.shapes[use.edge][use.layout.axis] == len(output) * use.layout.positions for use in used)
    if not same or not rows or attached(output, state.leaves):
        raise ParameterError(
            f"`{type(network).__name__}` uses its parameters in another way for other inputs: it has no kernel by structure"
        )
