"""How each part of the kernel is computed: the cheaper contraction by operation count, and chunks that fit in memory."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import pandas as pd

from richlearn.kernels import _contract as contract
from richlearn.kernels._layout import Layout
from richlearn.kernels._survey import Survey, SurveyedUse
from richlearn.kernels._uses import ParameterView

Contraction = Literal["gram", "gradient", "jacobian"]
_CACHE = 64 * 2**20  # bytes of gradients that one backward pass may write; beyond, every operation waits for memory


@dataclass(frozen=True)
class Part:
    """Uses of one part of a parameter, all of which add up to its gradient."""

    uses: tuple[SurveyedUse, ...]

    @property
    def parameter(self) -> str:
        """Name of the parameter."""
        return self.uses[0].view.parameter

    @property
    def size(self) -> int:
        """Number of its elements."""
        return prod(self.uses[0].view.size)

    @property
    def has_gram(self) -> bool:
        """Whether its kernel is a product, elementwise, of a Gram matrix of operands and one of output gradients."""
        kinds, views = {use.kind for use in self.uses}, {use.view for use in self.uses}
        if len(kinds) > 1 or len(views) > 1 or "scale" in kinds or any(use.groups > 1 for use in self.uses):
            return False
        return kinds != {"shift"} or all(use.alignment and use.alignment[-1] == use.shape[-1] for use in self.uses)


@dataclass(frozen=True)
class Unit:
    """Parts whose gradients come from the gradients of the same results `edges`, contracted together.

    Attributes:
        edges: recorded results.
        parts: of parameters.
        contraction: "gram": (Gram matrix of operands) ∘ (Gram matrix of output gradients), summed over pairs of positions;
            "gradient": Gram matrix of per-sample parameter gradients; "jacobian": the same with gradients from autograd.
        active: positions of a sample, over all uses of a part one after the other, at which a gradient arrives, as surveyed.
        idle: the others, of a "gram" that is no head.
        fan_out: features of the results at one position.
        head: whether its result is the network's output, whose gradient is known.
        pooled: whether the gradient of its result is taken at the winners of the pooling behind it.
        operations: multiply-adds.
        factor: elements a sample that the contraction keeps.
    """

    edges: tuple[int, ...]
    parts: tuple[Part, ...]
    contraction: Contraction
    active: tuple[int, ...] = ()
    idle: tuple[int, ...] = ()
    fan_out: int = 0
    head: bool = False
    pooled: bool = False
    operations: float = 0.0
    factor: int = 0

    @property
    def constant(self) -> bool:
        """Whether its operands depend on no parameter in the sum."""
        return self.contraction == "gram" and not any(use.through for part in self.parts for use in part.uses)


@dataclass(frozen=True)
class Size:
    """n samples against n′, m cotangents; `full`: every pair of cotangents is kept."""

    rows: int
    columns: int
    cotangents: int
    full: bool
    symmetric: bool

    @property
    def pairs(self) -> float:
        """Pairs of samples."""
        return self.rows * self.columns / (2 if self.symmetric else 1)

    @property
    def both(self) -> int:
        """Samples that need a backward pass."""
        return self.rows + (0 if self.symmetric else self.columns)


@dataclass(frozen=True)
class Plan:
    """All units, and in what pieces they are computed.

    Attributes:
        units: see `Unit`.
        cotangents: at once.
        rows: samples whose factors are kept at once, on either side.
        batch: samples of one forward and backward pass.
        memory: bytes expected beyond the kernel itself.
        passes: multiply-adds of the forward and backward passes, if each is done once.
    """

    units: tuple[Unit, ...]
    cotangents: int
    rows: int
    batch: int
    memory: int
    passes: int

    @property
    def pooled(self) -> set[int]:
        """Results whose gradients are taken at the winners of the pooling behind them."""
        return _at_poolings(self.units)

    def joined(self) -> tuple[Unit, ...]:
        """The units as they are contracted: all that have parameter gradients together, one product instead of many thin ones."""
        together = [unit for unit in self.units if unit.contraction != "gram"]
        if len(together) < 2:
            return self.units
        edges = tuple(dict.fromkeys(edge for unit in together for edge in unit.edges))
        parts = tuple(part for unit in together for part in unit.parts)
        return Unit(edges, parts, "gradient"), *(unit for unit in self.units if unit.contraction == "gram")

    def table(self) -> pd.DataFrame:
        """A row for each parameter: contraction, positions, multiply-adds of its unit, numbers kept of a sample."""
        rows = [
            {
                "parameter": part.parameter,
                "uses": " + ".join(use.kind for use in part.uses) or "any",
                "contraction": unit.contraction + (" (output)" if unit.head else " (pooled)" if unit.pooled else ""),
                "positions": len(unit.active),
                "shares": len(unit.parts),
                "GFLOP": 2e-9 * unit.operations,
                "kept floats/sample": unit.factor,
            }
            for unit in self.units
            for part in unit.parts
        ]
        return pd.DataFrame(rows)


def _gram_cost(parts: Sequence[Part], positions: int, fan_out: int, size: Size) -> tuple[float, int]:
    """Multiply-adds and elements a sample of the Gram contraction."""
    m = size.cotangents
    fan_in = sum(sum(use.fan_in for use in part.uses) / len(part.uses) for part in parts)
    outputs = m * m if size.full else m
    cost = size.pairs * positions**2 * (outputs * fan_out + fan_in + (outputs if size.full else 1))
    return cost, positions * (m * fan_out + int(fan_in))


def _gradient_cost(parts: Sequence[Part], size: Size) -> tuple[float, int]:
    """Multiply-adds and elements a sample of the contraction of parameter gradients."""
    m = size.cotangents
    outputs = m * m if size.full else m
    cost = 0.0
    for part in parts:
        cost += sum(size.both * m * use.work for use in part.uses)
        cost += size.pairs * outputs * part.size
    return cost, m * sum(part.size for part in parts)


def _positions(part: Part, survey: Survey) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Positions of a part's uses, one use after the other, at which a gradient arrives, and the others; all, if it arrives nowhere."""
    active: list[int] = []
    start = 0
    for use in part.uses:
        active += [start + place for place in survey.active.get(use.edge, range(use.positions))]
        start += use.positions
    every = range(start)
    return tuple(active or every), tuple(sorted(set(every) - set(active or every)))


def _unit(edges: tuple[int, ...], parts: Sequence[Part], survey: Survey, size: Size) -> list[Unit]:
    """The unit of `parts` with the cheaper contraction; those without a Gram form apart."""
    channels = any(part.uses[0].kind == "conv" for part in parts)  # its features are not last, as those of all others are
    gram = [part for part in parts if part.has_gram and not (channels and part.uses[0].kind != "conv")]
    rest = [part for part in parts if part not in gram]
    found = []
    head = edges == (survey.head,)
    if gram:
        widths = {use.features for part in gram for use in part.uses}
        active, idle = _positions(gram[0], survey)
        operations, factor = _gram_cost(gram, max(len(active), 1), max(widths), size)
        other, _ = _gradient_cost(gram, size)
        if head or (len(widths) == 1 and operations <= other):
            operations = size.pairs if head else operations
            found.append(
                Unit(edges, tuple(gram), "gram", active, () if head else idle, max(widths), head, operations=operations, factor=factor)
            )
        else:
            rest = [*gram, *rest]
    for part in rest:
        operations, factor = _gradient_cost([part], size)
        places = tuple(range(sum(use.positions for use in part.uses)))
        found.append(
            Unit(edges, (part,), "gradient", places, (), max(use.features for use in part.uses), operations=operations, factor=factor)
        )
    return found


def _units(survey: Survey, size: Size, jacobians: dict[str, int]) -> list[Unit]:
    by_edges: dict[tuple[int, ...], list[Part]] = defaultdict(list)
    for group in survey.groups:
        edges = tuple(survey.same.get(use.edge, use.edge) for use in group)
        by_edges[edges].append(Part(group))
    units = [unit for edges, parts in by_edges.items() for unit in _unit(edges, parts, survey, size)]
    for name, elements in jacobians.items():
        cost = size.pairs * elements * (size.cotangents**2 if size.full else size.cotangents)
        units.append(Unit((), (Part((_opaque(name, elements),)),), "jacobian", operations=cost, factor=size.cotangents * elements))
    return units


def _pooled(units: list[Unit], survey: Survey, size: Size) -> list[Unit]:
    """The units, some `pooled`: where the winners' patches are fewer numbers than the convolution's gradients."""
    by_edge = defaultdict(list)
    for unit in units:
        for edge in unit.edges:
            by_edge[edge].append(unit)
    found = set()
    for edge, elements in survey.pooled.items():
        alone = all(unit.contraction == "gradient" and unit.edges == (edge,) for unit in by_edge[edge])
        fan_in = max(use.fan_in for unit in by_edge[edge] for part in unit.parts for use in part.uses)
        if alone and elements * max(fan_in, size.cotangents) < size.cotangents * survey.result_sizes[edge]:
            found.add(edge)
    return [_at_winners(unit, survey, size) if unit.edges and found.issuperset(unit.edges) else unit for unit in units]


def _at_winners(unit: Unit, survey: Survey, size: Size) -> Unit:
    (edge,), part = unit.edges, unit.parts[0]
    idle = 1 - survey.pooled[edge] / survey.result_sizes[edge]
    saved = size.both * size.cotangents * idle * sum(use.work for use in part.uses)
    return replace(unit, pooled=True, operations=unit.operations - saved)


def _opaque(name: str, elements: int) -> SurveyedUse:
    """Stands for all uses of a parameter whose Jacobian is taken."""
    return SurveyedUse(-1, -1, "any", ParameterView(name, (elements,), (1,), 0), Layout(0), (), 1, ())


def _at_poolings(units: Sequence[Unit]) -> set[int]:
    return {edge for unit in units if unit.pooled for edge in unit.edges}


def _moving(units: list[Unit], survey: Survey, cotangents: int) -> int:
    """Elements of one sample that a forward and a backward pass go through, about three tensors a result: as many as a cache may hold."""
    results, pooled = survey.result_sizes, _at_poolings(units)
    gradients = {edge: survey.pooled[edge] if edge in pooled else results[edge] for edge in survey.edges}
    largest = max((size for edge, size in enumerate(results) if edge not in pooled), default=1)
    patches = [  # all, and the winners'
        use.fan_in * (use.positions + survey.pooled[use.edge])
        for unit in units
        if unit.pooled
        for use in unit.parts[0].uses
        if use.kind == "conv"
    ]
    return 3 * sum(results) + cotangents * (sum(gradients.values()) + 2 * largest) + max(patches, default=0)


def _collecting(units: Sequence[Unit], survey: Survey) -> int:
    """Elements that making one parameter gradient of a sample takes, beyond what the passes hold: patches, the gradient and its copy."""
    found = [0]
    for unit in units:
        for use in (use for part in unit.parts for use in part.uses if unit.contraction != "gram"):
            places = use.positions + (survey.pooled[use.edge] if unit.pooled else 0)
            found.append(2 * unit.factor + (use.fan_in * places if use.kind == "conv" else 0))
    return max(found)


def _contracting(units: Sequence[Unit], rows: int, size: Size) -> int:
    """Elements of the products that are made besides the kernel, of two chunks of `rows` samples."""
    outputs = size.cotangents if size.full else 1
    block = max(end - begin for begin, end in contract.row_blocks(rows, rows, outputs, upper=size.symmetric))
    found = [block * rows * outputs**2]
    for unit in units:
        if unit.contraction == "gram" and unit.active:
            pairs = len(unit.active) ** 2
            part = max(end - begin for begin, end in contract.gram_blocks(block, rows, 1 if size.full else pairs))
            found.append(part * rows * (pairs if not size.full else pairs + 2 * outputs**2))
    return 2 * max(found)


def plan(survey: Survey, size: Size, jacobians: dict[str, int], one: Sequence[int], itemsize: int, limit: int) -> Plan:
    """The plan within `limit` bytes beyond the kernel; at least one sample and one cotangent at once, whatever the limit.

    Of a traced kernel fewer cotangents at once need less memory; where that is not enough, and of a full kernel, samples
    are taken in chunks, every pair of which needs the backward pass of one of them anew.

    Args:
        survey: of the network.
        size: of the kernel.
        jacobians: elements of the parameters whose Jacobian is taken.
        one: bytes that these Jacobians of one sample take, and besides for each cotangent.
        itemsize: bytes of a number.
        limit: bytes.
    """
    m, longest = size.cotangents, max(size.rows, size.columns)
    while True:
        at_once = replace(size, cotangents=m)
        units = _pooled(_units(survey, at_once, jacobians), survey, at_once)
        factors = itemsize * max(1, sum(unit.factor for unit in units))
        moving = itemsize * max(1, _moving(units, survey, m))
        passing = (survey.forward + m * survey.backward if survey.forward else moving) + itemsize * _collecting(units, survey)
        fixed = one[0] + m * one[1]
        fits = factors * size.both + max(fixed + passing, itemsize * _contracting(units, longest, at_once)) <= 0.9 * limit
        if fits or size.full or m == 1:
            break
        m = -(-m // 2)
    rows = longest if fits else min(longest, max(1, int(0.3 * limit / factors)))
    held = factors * (size.both if fits else 2 * rows)
    batch = max(1, min(rows, int(_CACHE / moving), int((0.9 * limit - held - fixed) / passing)))
    batch = -(-rows // -(-rows // batch))  # equal pieces
    work = [(use.work, use.through) for group in survey.groups for use in group]
    passes = size.both * sum(each * (1 + size.cotangents * through) for each, through in work)
    memory = held + max(fixed + passing * batch, itemsize * _contracting(units, rows, at_once))
    return Plan(tuple(units), m, rows, batch, memory, passes)
