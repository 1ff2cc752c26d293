"""The spaces of units while a network is walked: opened, merged, spoilt."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise
from math import gcd

from richlearn.networks.spaces.space import Reach, Role, Space, Term

Powers = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Wire:
    """What a tensor carries: entry (o·units + k)·inner + i along `axis` (counted from the end), o < `outer`, belongs to unit k.

    The units are those of all `parts`, side by side; one part scales with the power `degree` of each of its spaces, which
    have equally many units. Without parts a tensor depends on the inputs all the same.
    """

    axis: int = -1
    outer: int = 1
    inner: int = 1
    parts: tuple[Powers, ...] = ()

    @property
    def degrees(self) -> Powers:
        """Spaces and degrees of all parts."""
        return tuple(chain.from_iterable(self.parts))

    @property
    def plain(self) -> bool:
        """Whether `axis` counts the units of one part."""
        return self.copies == 1 and len(self.parts) <= 1

    @property
    def copies(self) -> int:
        """Entries along `axis` of each unit."""
        return self.outer * self.inner

    @property
    def place(self) -> tuple[int, int, int]:
        """Where the units lie."""
        return self.axis, self.outer, self.inner


def carrying(space: int, axis: int = -1) -> Wire:
    """The units of one space."""
    return Wire(axis, parts=(((space, 1.0),),))


FIXED = Wire()
_SHARED = "share a weight with another layer"


@dataclass
class Draft:
    """A `Space` that still grows. `parts`: blocks that may be scaled independently."""

    kind: str
    units: int
    heads: int
    full: bool
    parts: int
    incoming: list[tuple[Term, ...]] = field(default_factory=list)
    outgoing: list[Term] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    broken: str | None = None
    reach: Reach = "everywhere"
    centred: int = 0
    centres: list[str] = field(default_factory=list)
    seen: bool = False

    def absorb(self, other: "Draft") -> None:
        """Become the union of both."""
        self.full &= other.full
        self.parts = gcd(self.parts, other.parts)
        self.incoming += other.incoming
        self.outgoing += other.outgoing
        self.norms += other.norms
        self.broken = self.broken or other.broken
        self.reach = "constant" if "constant" in (self.reach, other.reach) else "everywhere"
        self.centred = gcd(self.centred, other.centred)
        self.centres += other.centres
        self.seen |= other.seen

    def finished(self, unusable: dict[str, str]) -> Space:
        """The space, broken if one of its parameters has another use."""
        terms = [*(term for producer in self.incoming for term in producer), *self.outgoing]
        other = next((unusable[term.parameter] for term in terms if term.parameter in unusable), None)
        return Space(
            kind=self.kind,
            units=self.units,
            blocks=self.heads if self.full else self.parts,
            full=self.full,
            incoming=tuple(self.incoming),
            outgoing=tuple(self.outgoing),
            norms=tuple(dict.fromkeys(self.norms)),
            broken=self.broken or other,
            reach=self.reach,
            centred=0 if self.seen or other else self.centred,
            centres=tuple(dict.fromkeys(self.centres)),
        )


class Ledger:
    """All drafts, with a union-find over them, and which parameter serves which space on which side."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []
        self._parents: list[int] = []
        self._claims: dict[tuple[str, tuple[int, int] | None, int], tuple[tuple, tuple[Powers, ...]]] = {}
        self._uses: dict[tuple[str, tuple[int, int] | None], str] = {}
        self.unusable: dict[str, str] = {}

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def draft(self, space: int) -> Draft:
        """The draft that `space` has become part of."""
        return self._drafts[self._root(space)]

    def open(self, units: int, *, full: bool = True, kind: str = "units", heads: int = 1) -> int:
        """A new space."""
        self._drafts.append(Draft(kind, units, heads, full, units))
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def merge(self, left: int, right: int) -> None:
        """The units of both spaces are the same from now on."""
        left, right = sorted((self._root(left), self._root(right)))
        if left != right:
            self._drafts[left].absorb(self._drafts[right])
            self._parents[right] = left

    def spoil(self, spaces: Iterable[int], reason: str | None = None, *, shift: bool = True) -> None:
        """The units' scale is seen (if there is a `reason`), and so is what is added to them (if `shift`)."""
        for space in spaces:
            draft = self.draft(space)
            draft.broken = draft.broken or reason
            draft.seen |= shift

    def diagonal(self, wire: Wire, *, shift: bool = True) -> None:
        """Units may be scaled on the way, no longer mixed."""
        for space, _ in wire.degrees:
            self.draft(space).full = False
        self.spoil((space for space, _ in wire.degrees), shift=shift)

    def normalise(self, wire: Wire, name: str, parts: int) -> None:
        """A normalisation undoes any scaling of `parts` blocks of the units (0: of each by itself)."""
        for space, _ in wire.degrees:
            draft = self.draft(space)
            draft.full = False
            draft.parts = gcd(draft.parts, parts)
            draft.norms.append(name)

    def centre(self, wire: Wire, name: str, blocks: int, reach: Reach) -> None:
        """What is added to all units of a block goes unseen (blocks = 0: of each by itself)."""
        for part in wire.parts:
            for space, degree in part:
                draft = self.draft(space)
                draft.centred = gcd(draft.centred, blocks or draft.units)
                draft.centres.append(name)
                draft.reach = "constant" if "constant" in (draft.reach, reach) else "everywhere"
                draft.seen |= degree != 1 or len(part) > 1

    def same(self, wire: Wire) -> tuple[Powers, ...]:
        """The spaces of the wire's parts as they are now."""
        found = []
        for part in wire.parts:
            powers: dict[int, float] = {}
            for space, degree in part:
                powers[self._root(space)] = powers.get(self._root(space), 0.0) + degree
            found.append(tuple(sorted(powers.items())))
        return tuple(found)

    def sizes(self, wire: Wire) -> tuple[int, ...]:
        """Units of each of the wire's parts."""
        return tuple(self.draft(part[0][0]).units for part in wire.parts)

    def units(self, wire: Wire) -> int:
        """Units of all parts."""
        return sum(self.sizes(wire))

    def unify(self, left: Wire, right: Wire) -> bool:
        """Both wires carry the same units from now on; False, and nothing done, if they cannot."""
        if (left.place, self.sizes(left)) != (right.place, self.sizes(right)):
            return False
        unlike = [pair for pair in zip(self.same(left), self.same(right), strict=True) if pair[0] != pair[1]]
        if any(len(one) != 1 or len(two) != 1 or one[0][1] != two[0][1] for one, two in unlike):
            return False
        for one, two in unlike:
            self.merge(one[0][0], two[0][0])
        return True

    def use(self, name: str, how: str, rows: tuple[int, int] | None = None) -> None:
        """A parameter is used as `how`; of two kinds of use none can be undone by the other's neighbours."""
        packed = any(other == name and (known is None) != (rows is None) for other, known in self._uses)
        if packed or self._uses.setdefault((name, rows), how) != how:
            self.unusable[name] = _SHARED

    def _claim(self, term: Term, dim: int, wire: Wire, *, reads: bool) -> bool:
        """Register that `term` serves what `wire` carries; whether that is its first use.

        A parameter that is used again on the same side makes the spaces of both uses one; on the other side it spoils them.
        """
        parts = self.same(wire)
        degrees = [[degree for _, degree in part] for part in parts]
        key, claim = (term.parameter, term.rows, dim), (reads, term.split, self.sizes(wire), degrees)
        if key not in self._claims:
            self._claims[key] = claim, parts
            return True
        known, others = self._claims[key]
        pairs = zip(chain(*others), chain(*parts), strict=False)
        for (left, _), (right, _) in pairs if known == claim else ():
            self.merge(left, right)
        if known != claim:
            self.spoil((space for space, _ in chain(*others, *parts)), _SHARED)
        return False

    def write(self, space: int, terms: Iterable[tuple[Term, int]]) -> None:
        """A layer whose terms (each with the parameter's dimension that counts units) writes `space`."""
        fresh = tuple(term for term, dim in terms if self._claim(term, dim, carrying(space), reads=False))
        if fresh:
            self.draft(space).incoming.append(fresh)

    def read(self, wire: Wire, term: Term, dim: int) -> None:
        """`term` reads what `wire` carries (nothing, if it reads something that is no space)."""
        if self._claim(term, dim, wire, reads=True):
            ends = pairwise(accumulate(self.sizes(wire), initial=0))
            for powers, part in zip(wire.parts, ends, strict=True):
                for space, degree in powers:
                    self.draft(space).outgoing.append(replace(term, degree=degree, part=part if len(wire.parts) > 1 else None))
        self.spoil(space for space, _ in wire.degrees)

    def finish(self) -> tuple[Space, ...]:
        """All spaces that some parameter writes, in the order in which they were opened."""
        roots = [draft for i, draft in enumerate(self._drafts) if self._root(i) == i and draft.incoming]
        return tuple(draft.finished(self.unusable) for draft in roots)


def term(name: str, units: int, shape: tuple[int, ...], *, role: Role = "weight", rows: tuple[int, int] | None = None) -> Term:
    """The term of a parameter whose first dimension counts the units."""
    rest = 1
    for size in shape[1:]:
        rest *= size
    return Term(name, (1, 1, units, rest), rows, role=role)
