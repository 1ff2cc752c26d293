"""What weight layers and normalisations do to the units that pass through them."""

from math import prod
from typing import Any

from torch import Tensor

from richlearn.networks.spaces.ledger import FIXED, Wire, carrying, term
from richlearn.networks.spaces.space import Role, Term
from richlearn.networks.spaces.walk import Call, Walk, operation


def read(walk: Walk, value: Any, axis: int, reader: Term, dim: int, channels: int) -> None:
    """`reader` weighs the `channels` entries of a tensor along `axis`; reader.split is that of a tensor without units."""
    wire = walk.carried(value)
    if wire is None and (name := walk.name(value)):
        walk.ledger.unusable.setdefault(name, f"share a weight with the input of `{reader.parameter}`")
    units = walk.ledger.units(wire) if wire else 0
    groups, before, _, rest = reader.split
    fits = wire is not None and units > 0 and wire.axis == axis and units * wire.copies == channels and units % groups == 0
    if not fits or wire is None or (groups > 1 and not wire.plain):
        walk.spoil(wire or FIXED, f"reach `{reader.parameter}` unevenly")
        walk.ledger.read(FIXED, reader, dim)
        return
    if groups > 1:
        walk.ledger.diagonal(wire)
    split = (groups, before * wire.outer, units // groups, rest * wire.inner)
    walk.ledger.read(wire, Term(reader.parameter, split, reader.rows, role=reader.role), dim)


def written(walk: Walk, axis: int, terms: list[tuple[Term, int]], *, full: bool = True) -> Wire:
    """New units that these terms write."""
    space = walk.ledger.open(terms[0][0].units, full=full)
    walk.ledger.write(space, terms)
    return carrying(space, axis)


def layer(walk: Walk, call: Call, axis: int, groups: int) -> Wire:
    """A linear layer or a convolution: f(x, weight, bias), outputs × inputs × kernel."""
    x: Any = call.args[0]
    weight, bias = call.get(1, "weight"), call.get(2, "bias")
    name, bias_name = walk.name(weight), walk.name(bias)
    if name is None or (bias is not None and bias_name is None):
        return walk.unknown(call)
    walk.ledger.use(name, "layer")
    outputs, inputs, *kernel = weight.shape
    read(walk, x, axis, Term(name, (groups, outputs // groups, inputs, prod(kernel))), 1, inputs * groups)
    terms = [(term(name, outputs, weight.shape), 0)]
    if bias_name is not None:
        walk.ledger.use(bias_name, "bias")
        terms.append((term(bias_name, outputs, (outputs,), role="bias"), 0))
    return written(walk, axis, terms, full=groups == 1)


@operation("linear")
def linear(walk: Walk, call: Call) -> Wire:
    """W x + b over the last axis."""
    return layer(walk, call, -1, 1) if call.get(1, "weight").ndim == 2 else walk.unknown(call)


@operation("conv1d", "conv2d", "conv3d")
def convolution(walk: Walk, call: Call) -> Wire:
    """A convolution over the last d axes, in groups."""
    return layer(walk, call, -int(call.name[4]) - 1, call.get(6, "groups", 1))


@operation("matmul", "__matmul__", "mm")
def product(walk: Walk, call: Call) -> Wire:
    """x @ W with a parameter W (inputs, outputs); any other product is unknown."""
    x, weight = call.args[0], call.get(1, "other")
    name = walk.name(weight)
    if name is None or weight.ndim != 2 or walk.carried(x) is None:
        return walk.unknown(call)
    walk.ledger.use(name, "product")
    inputs, outputs = weight.shape
    read(walk, x, -1, Term(name, (1, 1, inputs, outputs)), 0, inputs)
    return written(walk, -1, [(Term(name, (1, inputs, outputs, 1)), 1)])


@operation("embedding")
def embedding(walk: Walk, call: Call) -> Wire:
    """Rows of a table; a frozen or renormalised row, or scaled gradients, are no symmetry."""
    weight = call.get(1, "weight")
    name, padding = walk.name(weight), call.get(2, "padding_idx")
    if name is None or padding not in (None, -1) or call.get(3, "max_norm") is not None or call.get(5, "scale_grad_by_freq"):
        return walk.unknown(call)
    walk.ledger.use(name, "table")
    rows, units = weight.shape
    return written(walk, -1, [(Term(name, (1, rows, units, 1)), 1)])


def affine(walk: Walk, call: Call, axis: int, first: int) -> Wire:
    """Gain and shift behind a normalisation; `first`: the axis that their first dimension belongs to."""
    given: list[tuple[Any, Role]] = [(call.kwargs.get("weight"), "gain"), (call.kwargs.get("bias"), "bias")]
    found: list[tuple[str | None, Tensor, Role]] = [(walk.name(p), p, role) for p, role in given if isinstance(p, Tensor)]
    if any(name is None for name, _, _ in found):
        return walk.unknown(call)
    terms: list[tuple[Term, int]] = []
    for name, parameter, role in found:
        walk.ledger.use(str(name), role)
        place = axis - first
        shape = parameter.shape
        split = (1, prod(shape[:place]), shape[place], prod(shape[place + 1 :]))
        terms.append((Term(str(name), split, role=role), place))
    return written(walk, axis, terms, full=False) if terms else FIXED


def _channelwise(walk: Walk, call: Call, batch_statistics: bool, parts: int) -> Wire:
    """A normalisation of the channels (axis 1), in `parts` blocks (0: each by itself)."""
    x: Tensor = call.args[0]
    wire, axis = walk.carried(x) or FIXED, 1 - x.ndim
    if not batch_statistics or wire.axis != axis or (parts and not wire.plain):
        walk.spoil(wire, f"reach `{call.name}`" + ("" if batch_statistics else " with fixed statistics"))
    elif wire.degrees:
        walk.ledger.normalise(wire, call.name, parts)
        walk.ledger.centre(wire, call.name, parts, "everywhere" if parts and x.ndim == 2 else "constant")
    return affine(walk, call, axis, axis)


@operation("batch_norm")
def batch_norm(walk: Walk, call: Call) -> Wire:
    """Each channel is centred and scaled over the batch, or by running statistics."""
    return _channelwise(walk, call, bool(call.get(5, "training")) or call.get(1, "running_mean") is None, 0)


@operation("instance_norm")
def instance_norm(walk: Walk, call: Call) -> Wire:
    """Each channel of each sample is centred and scaled over its places."""
    return _channelwise(walk, call, bool(call.get(5, "use_input_stats", True)), 0)


@operation("group_norm")
def group_norm(walk: Walk, call: Call) -> Wire:
    """Blocks of channels of each sample are centred and scaled."""
    return _channelwise(walk, call, True, call.get(1, "num_groups"))


@operation("layer_norm", "rms_norm")
def layer_norm(walk: Walk, call: Call) -> Wire:
    """The last axes of each sample are scaled, and centred by layer norm."""
    wire, axes = walk.carried(call.args[0]) or FIXED, len(call.get(1, "normalized_shape"))
    inside = -wire.axis <= axes and len(wire.parts) <= 1
    if not inside:
        walk.spoil(wire, f"reach `{call.name}`")
    else:
        walk.ledger.normalise(wire, call.name, 1)
        if call.name == "layer_norm":
            walk.ledger.centre(wire, call.name, 1, "everywhere" if axes == 1 and wire.copies == 1 else "constant")
        else:
            walk.ledger.spoil(space for space, _ in wire.degrees)
    return affine(walk, call, wire.axis if inside and wire.degrees else -axes, -axes)
