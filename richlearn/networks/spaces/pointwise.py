"""What activations, sums, products, pooling and rearrangements do to the units that pass through them."""

from dataclasses import replace
from itertools import accumulate, chain
from math import prod
from typing import Any

import torch
from torch import Tensor

from richlearn.networks.spaces.layers import written
from richlearn.networks.spaces.ledger import FIXED, Wire, carrying
from richlearn.networks.spaces.space import Term
from richlearn.networks.spaces.walk import Call, Walk, operation, tensors


def wire_of(walk: Walk, value: Any) -> Wire | None:
    """What a tensor carries; a parameter that is used as a value writes units along its last axis that is longer than 1."""
    if (name := walk.name(value)) is None:
        return walk.carried(value)
    shape = tuple(value.shape)
    place = max((i for i, size in enumerate(shape) if size > 1), default=len(shape) - 1)
    if place < 0:
        walk.ledger.unusable.setdefault(name, "share a scalar parameter")
        return FIXED
    walk.ledger.use(name, "value")
    split = (1, prod(shape[:place]), shape[place], prod(shape[place + 1 :]))
    return written(walk, place - len(shape), [(Term(name, split, role="bias"), place)])


@operation("contiguous", "clone", "neg", "positive", "to", "type_as", "float", "double", "half", "bfloat16")
def linear_map(walk: Walk, call: Call) -> Wire:
    """Nothing, or a change of sign or precision."""
    if not call.out.is_floating_point():
        return walk.unknown(call)
    return wire_of(walk, call.args[0]) or FIXED


_BOUNDS = {
    **dict.fromkeys(("clamp", "clip"), ("min", "max")),
    **dict.fromkeys(("threshold", "_threshold"), ("threshold", "value")),
    **dict.fromkeys(("maximum", "minimum"), ("other",)),
    **{"clamp_min": ("min",), "clamp_max": ("max",)},
}


def _is_zero(walk: Walk, bound: Any) -> bool:
    """Whether it is 0 and stays so."""
    if isinstance(bound, Tensor) and (walk.name(bound) or walk.carried(bound) or id(bound) in walk.buffers):
        return False
    return not torch.as_tensor(bound).any()


@operation("relu", "leaky_relu", "rrelu", "abs", "prelu", *_BOUNDS)
def homogeneous(walk: Walk, call: Call) -> Wire:
    """σ(c x) = c σ(x) for c > 0, entry by entry: what an entry is compared with must be 0."""
    wire = walk.carried(call.args[0])
    bounds = [call.get(i + 1, bound) for i, bound in enumerate(_BOUNDS.get(call.name, ()))]
    if wire is None or not all(bound is None or _is_zero(walk, bound) for bound in bounds):
        return walk.unknown(call)
    if call.name == "prelu" and (name := walk.name(call.get(1, "weight"))):
        walk.ledger.unusable.setdefault(name, "share a weight with `prelu`")
    walk.ledger.diagonal(wire)
    return wire


@operation("pow", "square", "sqrt")
def power(walk: Walk, call: Call) -> Wire:
    """x^p scales with the power p."""
    wire = walk.carried(call.args[0])
    exponent = {"square": 2.0, "sqrt": 0.5}.get(call.name) or call.get(1, "exponent")
    if wire is None or not isinstance(exponent, int | float) or exponent <= 0:
        return walk.unknown(call)
    walk.ledger.diagonal(wire)
    return replace(wire, parts=tuple(tuple((space, degree * exponent) for space, degree in part) for part in wire.parts))


@operation("softmax", "log_softmax")
def softmax(walk: Walk, call: Call) -> Wire:
    """Over the units: what is added to all of them is not seen, their scale is."""
    wire, axis = walk.carried(call.args[0]), call.get(1, "dim")
    if wire is None or not wire.degrees or axis not in (wire.axis, wire.axis + call.args[0].ndim) or not wire.plain:
        return walk.unknown(call)
    walk.spoil(wire, f"reach `{call.name}`", shift=False)
    walk.ledger.centre(wire, "softmax", 1, "everywhere")
    return FIXED


@operation("dropout", "dropout1d", "dropout2d", "dropout3d")
def dropout(walk: Walk, call: Call) -> Wire:
    """A random gain in training, nothing in evaluation."""
    wire = walk.carried(call.args[0])
    if wire is None:
        return walk.unknown(call)
    if call.get(2, "training", True) and call.get(1, "p", 0.5) > 0:
        walk.ledger.diagonal(wire)
    return wire


@operation("add", "sub", "__rsub__")
def add(walk: Walk, call: Call) -> Wire:
    """x ± y: both keep their units if they are the same ones; anything else that is added shows their scale."""
    left, right = (wire_of(walk, value) for value in (call.args[0], call.get(1, "other")))
    if left and right and left.degrees and right.degrees:
        if walk.ledger.unify(left, right):
            return left
        return walk.unknown(call)
    wire = next((wire for wire in (left, right) if wire and wire.degrees), FIXED)
    walk.spoil(wire, "are added to something that does not scale with them", shift=False)
    return wire


def _gain(walk: Walk, wire: Wire, value: Tensor) -> Wire | None:
    """A parameter that multiplies units, one factor an entry; None if it is no such thing."""
    name, units = str(walk.name(value)), walk.ledger.units(wire)
    axis = wire.axis if wire.degrees else -1
    if value.ndim < -axis or value.shape[axis] != value.numel() or (wire.degrees and value.numel() != units * wire.copies):
        return None
    walk.ledger.use(name, "factor")
    if wire.degrees:
        walk.ledger.diagonal(wire)
    walk.ledger.read(wire, Term(name, (1, wire.outer, units, wire.inner), role="gain"), -2)
    return written(walk, axis, [(Term(name, (1, 1, value.numel(), 1), role="gain"), 0)], full=False)


def _joint(walk: Walk, left: Wire, right: Wire) -> Wire | None:
    """The product of two sets of units, entry by entry."""
    if (left.place, walk.ledger.sizes(left)) != (right.place, walk.ledger.sizes(right)):
        return None
    for wire in (left, right):
        walk.ledger.diagonal(wire)
    both = replace(left, parts=tuple(one + two for one, two in zip(left.parts, right.parts, strict=True)))
    return replace(left, parts=walk.ledger.same(both))


@operation("mul", "multiply")
def multiply(walk: Walk, call: Call) -> Wire:
    """A number keeps units; a parameter is a gain; what does not depend on the units scales each entry by itself."""
    left, right = call.args[0], call.get(1, "other")
    if walk.name(left) and not walk.name(right):
        left, right = right, left
    wire = walk.carried(left)
    if walk.name(right) and not walk.name(left):
        return (wire is not None and _gain(walk, wire, right)) or walk.unknown(call)
    other = walk.carried(right)
    if wire and other and wire.degrees and other.degrees:
        return _joint(walk, wire, other) or walk.unknown(call)
    kept = next((w for w in (wire, other) if w and w.degrees), FIXED)
    if walk.name(left) or walk.name(right):
        return walk.unknown(call)
    if any(isinstance(value, Tensor) and value.ndim > 0 for value in (left, right) if walk.carried(value) is not kept):
        walk.ledger.diagonal(kept)
    return kept


@operation("div", "true_divide", "__truediv__")
def divide(walk: Walk, call: Call) -> Wire:
    """x / y where y carries no units."""
    left, right = call.args[0], call.get(1, "other")
    wire, other = walk.carried(left), walk.carried(right)
    if wire is None or walk.name(right) or (other and other.degrees):
        return walk.unknown(call)
    if isinstance(right, Tensor) and right.ndim > 0:
        walk.ledger.diagonal(wire)
    return wire


def _over_places(walk: Walk, call: Call, places: int) -> Wire | None:
    wire = walk.carried(call.args[0])
    if wire is None or (wire.degrees and -wire.axis <= places):
        return None
    walk.ledger.spoil(space for space, _ in wire.degrees)
    return wire


@operation(*(f"{kind}_pool{d}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)))
def pool(walk: Walk, call: Call) -> Wire:
    """Means keep any mixing of the channels, maxima only their positive scales."""
    wire = _over_places(walk, call, int(call.name[-2]))
    if wire is None:
        return walk.unknown(call)
    if "max" in call.name:
        walk.ledger.diagonal(wire)
    return wire


@operation("pad")
def pad(walk: Walk, call: Call) -> Wire:
    """More places, zero or copies of others."""
    zero = call.get(2, "mode", "constant") != "constant" or not call.get(3, "value")
    return (zero and _over_places(walk, call, len(call.get(1, "pad")) // 2)) or walk.unknown(call)


@operation("interpolate")
def interpolate(walk: Walk, call: Call) -> Wire:
    """Other places, each a mean of given ones."""
    return _over_places(walk, call, call.args[0].ndim - 2) or walk.unknown(call)


def _labels(walk: Walk, wire: Wire, like: Tensor) -> Tensor:
    """An array of the shape of `like` in which every entry holds the index of its unit."""
    line = torch.arange(walk.ledger.units(wire), device=like.device).repeat_interleave(wire.inner).repeat(wire.outer)
    return line.view(-1, *[1] * (-wire.axis - 1)).expand(like.shape).contiguous()


def _placed(walk: Walk, labels: Tensor, wire: Wire) -> Wire | None:
    """Where the units lie now, read off their labels."""
    units = walk.ledger.units(wire)
    for axis in range(-1, -labels.ndim - 1, -1) if labels.numel() else ():  # without samples every order looks right
        line = labels.movedim(axis, 0).flatten(1)[:, 0]
        inner = max(1, int((line == 0).cumprod(0).sum()))
        outer, rest = divmod(len(line), units * inner)
        placed = replace(wire, axis=axis, outer=outer, inner=inner)
        if not rest and torch.equal(labels, _labels(walk, placed, labels)):
            return placed
    return None


def _places(walk: Walk, wire: Wire, like: Tensor) -> Tensor:
    """An array of the shape of `like` in which the entries of all units at one place hold the index of that place."""
    units, axis = walk.ledger.units(wire), like.ndim + wire.axis
    before, after = like.shape[:axis], like.shape[axis + 1 :]
    places = torch.arange(like.numel() // units, device=like.device).view(*before, wire.outer, 1, wire.inner, *after)
    return places.expand(*before, wire.outer, units, wire.inner, *after).reshape(like.shape).contiguous()


def _together(walk: Walk, wire: Wire, places: Tensor) -> bool:
    """Whether the units still lie beside others of their place, as mixing or adding to all of them asks for."""
    split = places.unflatten(wire.axis, (wire.outer, walk.ledger.units(wire), wire.inner))
    return bool((split == split.narrow(wire.axis - 1, 0, 1)).all())


def _moved(walk: Walk, call: Call, wires: list[Wire], outcomes: list[list[Tensor]]) -> list[Wire] | Wire:
    """The wires of the results, if every outcome of the labels agrees on them."""
    found = [[_placed(walk, labels, wires[0]) for labels in outcome] for outcome in outcomes]
    if any(wire is None for outcome in found for wire in outcome) or any(outcome != found[0] for outcome in found):
        return walk.unknown(call)
    placed = [wire for wire in found[0] if wire is not None]
    if any(wire.copies != 1 for wire in (*placed, *wires)):
        walk.ledger.spoil(space for space, _ in wires[0].degrees)
    return placed


_REARRANGEMENTS = (
    *("view", "reshape", "flatten", "ravel", "unflatten", "transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T"),
    *("mT", "squeeze", "unsqueeze", "__getitem__", "select", "narrow", "expand", "repeat", "unbind", "chunk", "split", "tensor_split"),
    *("index_select", "roll", "flip", "tile"),
)


@operation(*_REARRANGEMENTS)
def rearrange(walk: Walk, call: Call) -> list[Wire] | Wire:
    """Entries change their places: the same is done to labels of the units, to see where these go."""
    others = [tensor for tensor in tensors((call.args[1:], call.kwargs)) if walk.name(tensor) or walk.carried(tensor)]
    wire = None if others else wire_of(walk, call.args[0])
    if wire is None or not wire.degrees:
        return walk.unknown(call)
    labels, places = (
        list(tensors(call.func(array(walk, wire, call.args[0]), *call.args[1:], **call.kwargs))) for array in (_labels, _places)
    )
    moved = _moved(walk, call, [wire], [labels])
    if isinstance(moved, list) and not all(_together(walk, *pair) for pair in zip(moved, places, strict=True)):
        walk.ledger.diagonal(wire)
    return moved


def _beside(walk: Walk, value: Tensor, wire: Wire | None, like: Wire) -> Wire | None:
    """What lies beside the units of `like`; what carries none lies there as units that nothing may scale."""
    if wire and wire.degrees:
        return wire
    count, rest = divmod(value.shape[like.axis], like.copies) if value.ndim >= -like.axis else (0, 1)
    if rest or not count:
        return None
    space = walk.ledger.open(count)
    walk.ledger.spoil([space], "are joined with something that does not scale with them")
    return replace(like, parts=carrying(space).parts)


@operation("cat", "concat", "concatenate", "stack")
def join(walk: Walk, call: Call) -> list[Wire] | Wire:
    """Tensors side by side: any units along their own axis, the same ones along another."""
    parts, options = list(call.get(0, "tensors")), {key: value for key, value in call.kwargs.items() if key != "tensors"}
    given = [wire_of(walk, part) for part in parts]
    first = next((wire for wire in given if wire and wire.degrees), None)
    found = [_beside(walk, part, wire, first) for part, wire in zip(parts, given, strict=True)] if first else []
    wires = [wire for wire in found if wire]
    if not wires or len(wires) < len(parts):
        return walk.unknown(call)
    labels = [_labels(walk, wire, part) for wire, part in zip(wires, parts, strict=True)]
    starts = accumulate((walk.ledger.units(wire) for wire in wires), initial=0)
    distinct = [array + start for array, start in zip(labels, starts, strict=False)]
    row = replace(wires[0], parts=tuple(chain.from_iterable(wire.parts for wire in wires)))
    row = _placed(walk, call.func(distinct, *call.args[1:], **options), row)
    if row and all(wire.axis == row.axis for wire in wires):
        return row
    if not all(walk.ledger.unify(wires[0], wire) for wire in wires):
        return walk.unknown(call)
    return _moved(walk, call, wires, [[call.func(labels, *call.args[1:], **options)]])


@operation("mean", "sum", "amax", "amin")
def reduce(walk: Walk, call: Call) -> list[Wire] | Wire:
    """A sum, mean, or largest entry over places."""
    wire, dims = walk.carried(call.args[0]), call.get(1, "dim")
    if wire is None or not wire.degrees or dims is None or dims == ():
        return walk.unknown(call)
    if call.name.startswith("a"):
        walk.ledger.diagonal(wire)
    labels, keep = _labels(walk, wire, call.args[0]), bool(call.get(2, "keepdim", False))
    return _moved(walk, call, [wire], [[labels.amin(dims, keep)], [labels.amax(dims, keep)]])
