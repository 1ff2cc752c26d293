"""What PyTorch's multi-head attention does to the units that pass through it, and to those inside its heads."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from richlearn.networks.spaces.layers import read, written
from richlearn.networks.spaces.ledger import FIXED, Wire, carrying, term
from richlearn.networks.spaces.space import Term
from richlearn.networks.spaces.walk import Call, Walk, operation

Given = Callable[[str], Any]  # a named argument of the call, None where it was left out
_SIGNATURE = signature(F.multi_head_attention_forward)


def _projections(given: Given, width: int) -> list[tuple[Tensor, tuple[int, int] | None, tuple[int, int]]]:
    """The weights of query, key and value: the parameter, the rows of it that are meant, and the rows of the packed bias."""
    places = [(i * width, (i + 1) * width) for i in range(3)]
    if given("use_separate_proj_weight"):
        return [(given(f"{letter}_proj_weight"), None, place) for letter, place in zip("qkv", places, strict=True)]
    return [(given("in_proj_weight"), place, place) for place in places]


def _inside(walk: Walk, given: Given, width: int, side: int) -> list[tuple[Term, int]]:
    """Terms, with the dimension that counts units, of the query (0), the key (1) or the value (2) as the heads see them."""
    weight, rows, place = _projections(given, width)[side]
    terms = [(term(str(walk.name(weight)), width, weight.shape, rows=rows), 0)]
    walk.ledger.use(str(walk.name(weight)), "layer", rows)
    if given("in_proj_bias") is not None:
        walk.ledger.use(str(walk.name(given("in_proj_bias"))), "bias", place)
        terms.append((Term(str(walk.name(given("in_proj_bias"))), (1, 1, width, 1), place, role="bias"), 0))
    extra = {1: given("bias_k"), 2: given("bias_v")}.get(side)
    if extra is not None:
        walk.ledger.use(str(walk.name(extra)), "token")
        terms.append((Term(str(walk.name(extra)), (1, 1, width, 1), role="bias"), 2))
    return terms


def _heads(walk: Walk, given: Given, width: int) -> None:
    """Scores see only W_Qᵀ W_K of each head, results only W_O W_V: any invertible matrix may stand between."""
    ledger, out = walk.ledger, given("out_proj_weight")
    readers = {"query_key": _inside(walk, given, width, 1), "value_output": [(Term(str(walk.name(out)), (1, len(out), width, 1)), 1)]}
    for (kind, reading), side in zip(readers.items(), (0, 2), strict=True):
        space = ledger.open(width, kind=kind, heads=given("num_heads"))
        ledger.write(space, _inside(walk, given, width, side))
        for reader, dim in reading:
            ledger.read(carrying(space), reader, dim)


def _key_bias(walk: Walk, given: Given, width: int) -> None:
    """A key bias adds the same to every score of a query: softmax does not see it. Keys of another origin would."""
    if given("in_proj_bias") is None or given("bias_k") is not None or given("add_zero_attn"):
        return
    draft = walk.ledger.draft(walk.ledger.open(width, kind="key_bias"))
    draft.incoming.append(tuple(term for term, _ in _inside(walk, given, width, 1)))
    draft.broken, draft.centred, draft.reach, draft.centres = "have no scale of their own", width, "constant", ["softmax"]


def _given(call: Call) -> Given:
    arguments = _SIGNATURE.bind(*call.args, **call.kwargs).arguments
    return lambda name: arguments.get(name)


@operation("multi_head_attention_forward")
def attention(walk: Walk, call: Call) -> list[Wire] | Wire:
    """softmax(QᵀK/√d) V of each head, and the output projection."""
    given = _given(call)
    weights = [weight for weight, _, _ in _projections(given, 0)] + [given("out_proj_weight")]
    biases = [given(name) for name in ("in_proj_bias", "bias_k", "bias_v", "out_proj_bias") if given(name) is not None]
    masks = [given(name) for name in ("key_padding_mask", "attn_mask")]
    known = all(walk.name(tensor) for tensor in weights + biases) and not any(
        walk.name(m) or (walk.carried(m) or FIXED).degrees for m in masks
    )
    if not known or given("static_k") is not None or given("static_v") is not None:
        return walk.unknown(call)
    width = given("embed_dim_to_check")
    for (weight, rows, _), name in zip(_projections(given, width), ("query", "key", "value"), strict=True):
        inputs = weight.shape[1]
        read(walk, given(name), -1, Term(str(walk.name(weight)), (1, width, inputs, 1), rows), 1, inputs)
    _heads(walk, given, width)
    _key_bias(walk, given, width)
    out, bias = given("out_proj_weight"), given("out_proj_bias")
    walk.ledger.use(str(walk.name(out)), "layer")
    terms = [(term(str(walk.name(out)), len(out), out.shape), 0)]
    if bias is not None:
        walk.ledger.use(str(walk.name(bias)), "bias")
        terms.append((term(str(walk.name(bias)), len(out), (len(out),), role="bias"), 0))
    return [written(walk, -1, terms), FIXED]
