"""The operations whose use of parameters is covered: what each notes, and how it is computed with the parameter cut off.

Handlers have the signature (uses, function, *its arguments) and return what the function would.
"""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.kernels._uses import ParameterUses, ParameterView

BATCH_STATISTICS = "it normalises with the statistics of the batch, so no sample has a gradient of its own: call `network.eval()` first"
RANDOM = "the network draws random numbers (dropout in training mode), so it has no one kernel: call `network.eval()` first"
_ATTENTION = inspect.signature(F.multi_head_attention_forward)


def _cut(tensor: Any, view: ParameterView | None) -> Any:
    return tensor if view is None else tensor.detach()


def _linear(uses: ParameterUses, func: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    w, b = uses.view_of(weight), uses.view_of(bias)
    if (w is None and b is None) or weight.ndim != 2:
        return func(input, weight, bias)
    return uses.note(func(input, _cut(weight, w), _cut(bias, b)), ("linear", w, input), ("shift", b, None))


def _matmul(uses: ParameterUses, func: Callable, input: Any, *others: Any, **kwargs: Any) -> Tensor:
    view = uses.view_of(others[0]) if others and not kwargs else None
    if view is None or others[0].ndim != 2 or input.ndim < 2:
        return func(input, *others, **kwargs)
    (other,) = others
    return uses.note(func(input, other.detach()), ("linear", view.transposed(), input))


_CONV = ("stride", "padding", "dilation", "groups")


def _conv(
    uses: ParameterUses, func: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None, *given: Any, **named: Any
) -> Tensor:
    w, b = uses.view_of(weight), uses.view_of(bias)
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | dict(zip(_CONV, given, strict=False)) | named
    rest = tuple(options[name] for name in _CONV)
    if (w is None and b is None) or input.ndim != weight.ndim:
        return func(input, weight, bias, *rest)
    result = func(input, _cut(weight, w), _cut(bias, b), *rest)
    aligned = None if b is None else uses.view_of(bias.view(-1, *[1] * (weight.ndim - 2)))  # type: ignore[union-attr]
    return uses.note(result, ("conv", w, input), ("shift", aligned, None), options=options)


def _embedding(
    uses: ParameterUses, func: Callable, input: Tensor, weight: Tensor, padding_idx: int | None = None, *rest: Any, **named: Any
):
    view = uses.view_of(weight)
    renormalised = named.get("max_norm", rest[0] if rest else None) is not None
    if view is None or renormalised or weight.ndim != 2:
        return func(input, weight, padding_idx, *rest, **named)
    constant, number = uses.expansion()
    if constant:
        return _rows(input, weight) if padding_idx is None else func(input, weight, padding_idx)
    indices = input
    if padding_idx is not None:  # this row gets no gradient
        indices = torch.where(input == padding_idx % len(weight), -1, input)
    uses.expansions[len(uses.edges)] = number
    return uses.note(func(input, weight.detach()), ("lookup", view, indices))


def _rows(indices: Tensor, weight: Tensor) -> Tensor:
    """`weight[indices]` as a view where the indices are consecutive (a table of positions)."""
    flat = indices.flatten()
    if len(flat) and torch.equal(flat, torch.arange(int(flat[0]), int(flat[0]) + len(flat), device=flat.device)):
        return weight.narrow(0, int(flat[0]), len(flat)).view(*indices.shape, weight.shape[1])
    return weight[indices]


def _expand(uses: ParameterUses, func: Callable, input: Tensor, *sizes: Any, **kwargs: Any) -> Tensor:
    view = uses.view_of(input)
    if view is None:
        return func(input, *sizes, **kwargs)
    constant, number = uses.expansion()
    if constant:
        return func(input, *sizes, **kwargs)
    result = func(input.detach(), *sizes, **kwargs).clone()
    uses.expansions[len(uses.edges)] = number
    return uses.note(result, ("shift", view, None))


def _add(uses: ParameterUses, func: Callable, input: Any, other: Any, **kwargs: Any) -> Tensor:
    if func in _IN_PLACE and input._is_view():  # the network may go on with what it is a view of
        return func(input, other, **kwargs)
    return _broadcast(uses, "shift", func, input, other, kwargs)


def _mul(uses: ParameterUses, func: Callable, input: Any, other: Any, **kwargs: Any) -> Tensor:
    return _broadcast(uses, "scale", func, input, other, kwargs)


def _broadcast(uses: ParameterUses, kind: str, func: Callable, input: Any, other: Any, kwargs: dict[str, Any]) -> Tensor:
    """input ∘ other, exactly one of them a view of a parameter and the other a tensor of full size."""
    first, second = uses.view_of(input), uses.view_of(other)
    if (first is None) == (second is None) or kwargs or not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return func(input, other, **kwargs)
    factor = other if second is None else input
    if factor.is_floating_point() is False or torch.broadcast_shapes(input.shape, other.shape) != factor.shape:
        return func(input, other)
    operand = None if kind == "shift" else factor
    return uses.note(func(_cut(input, first), _cut(other, second)), (kind, first or second, operand))


def _normalise(uses: ParameterUses, call: Callable[[Any, Any], Tensor], channels: int, weight: Any, bias: Any) -> Tensor:
    """A normalisation, call(weight, bias) = x̂ ∘ weight + bias. `channels`: axes behind the one that these belong to."""
    w, b = uses.view_of(weight), uses.view_of(bias)
    if w is None and b is None:
        return call(weight, bias)
    result = call(_cut(weight, w), _cut(bias, b))
    if channels:
        w, b = (view and uses.view_of(value.view(-1, *[1] * channels)) for view, value in ((w, weight), (b, bias)))
    operand = None
    if w is not None:
        with torch.no_grad():
            operand = call(None, None)
    return uses.note(result, ("scale", w, operand), ("shift", b, None))


def _layer_norm(uses, func, input, normalized_shape, weight=None, bias=None, eps=1e-5, *rest):
    return _normalise(uses, lambda w, b: func(input, normalized_shape, w, b, eps), 0, weight, bias)


def _rms_norm(uses, func, input, normalized_shape, weight=None, eps=None):
    return _normalise(uses, lambda w, _: func(input, normalized_shape, w, eps), 0, weight, None)


def _group_norm(uses, func, input, num_groups, weight=None, bias=None, eps=1e-5, *rest):
    return _normalise(uses, lambda w, b: func(input, num_groups, w, b, eps), input.ndim - 2, weight, bias)


def _batch_norm(uses, func, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, *rest):
    if running_mean is None:
        raise ParameterError(
            "the network has a batch normalisation without running statistics, so no sample has a gradient of its own:"
            " give it `track_running_stats=True`"
        )
    if training:
        raise ParameterError(f"the network has a batch normalisation in training mode: {BATCH_STATISTICS}")
    mean, variance = (value.view(-1, *[1] * (input.ndim - 2)) for value in (running_mean, running_var))

    def call(w: Tensor | None, b: Tensor | None) -> Tensor:
        """In operations whose gradients are products; torch's own also sums over samples what nobody asks for."""
        result = (input - mean) * ((variance + eps).rsqrt() * (1.0 if w is None else w.view_as(mean)))
        return (result if b is None else result + b.view_as(mean)).to(input.dtype)

    return _normalise(uses, call, input.ndim - 2, weight, bias)


def _instance_norm(uses, func, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, *rest, **named):
    statistics = (None, None) if use_input_stats else (running_mean, running_var)  # a forward pass shall not move them
    return _normalise(uses, lambda w, b: func(input, *statistics, w, b, use_input_stats, *rest, **named), input.ndim - 2, weight, bias)


def _attention(uses, func, *given, **named):
    """`nn.MultiheadAttention` by its projections; forms beyond the common one stay attached, hence are not covered."""
    bound = _ATTENTION.bind(*given, **named)
    bound.apply_defaults()
    a = SimpleNamespace(**bound.arguments)
    if a.dropout_p and a.training:
        raise ParameterError(RANDOM)
    rare = (a.bias_k, a.bias_v, a.static_k, a.static_v, a.key_padding_mask)
    if any(each is not None for each in rare) or a.add_zero_attn or a.query.ndim != 3 or (a.is_causal and a.attn_mask is None):
        return func(*given, **named)
    separate = a.use_separate_proj_weight
    weights = (a.q_proj_weight, a.k_proj_weight, a.v_proj_weight) if separate else a.in_proj_weight.chunk(3)
    biases = (None, None, None) if a.in_proj_bias is None else a.in_proj_bias.chunk(3)
    # (sample, position, feature), as `batch_first` has them: what lies otherwise is copied again for every cotangent. The network
    # may go on to overwrite its own, as torch's attention lets it.
    layout = torch.contiguous_format
    by_sample = {id(each): each.transpose(0, 1).clone(memory_format=layout) for each in (a.query, a.key, a.value)}
    inputs = (by_sample[id(each)] for each in (a.query, a.key, a.value))  # often all three are one
    projected = [_linear(uses, F.linear, *each) for each in zip(inputs, weights, biases, strict=True)]
    # → (sample, head, position, feature of the head)
    q, k, v = (each.unflatten(-1, (a.num_heads, -1)).transpose(1, 2) for each in projected)
    mask = _additive(a.attn_mask, a.num_heads, q)
    if mask is not None and not a.need_weights:  # a row that sees nothing gives 0 there
        weights, attended = None, F.scaled_dot_product_attention(q, k, v, mask)
    else:  # the scores are scaled: of short sequences they are fewer than queries and keys
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = (scores if mask is None else scores + mask).softmax(-1)
        attended = weights @ v
    merged = attended.transpose(1, 2).flatten(2)
    result = _linear(uses, F.linear, merged, a.out_proj_weight, a.out_proj_bias).transpose(0, 1)
    if weights is None or not a.need_weights:
        return result, None
    return result, weights.mean(1) if a.average_attn_weights else weights


def _additive(mask: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """A mask of `nn.MultiheadAttention`, True where nothing is seen, as what is added to the scores."""
    if mask is None:
        return None
    mask = mask.unflatten(0, (-1, heads)) if mask.ndim == 3 else mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf")) if mask.dtype == torch.bool else mask


class _Sloped(torch.autograd.Function):
    """An elementwise function whose slope is computed once, and not for each cotangent anew."""

    @staticmethod
    def forward(ctx, input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        leaf = input.detach().requires_grad_()
        with torch.enable_grad():
            value = function(leaf)
        ctx.save_for_backward(*torch.autograd.grad(value, leaf, torch.ones_like(value)))
        return value.detach()

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def _smooth(uses: ParameterUses, func: Callable, input: Tensor, *rest: Any, **named: Any) -> Tensor:
    """An activation whose own backward pass computes exponentials or error functions."""
    in_place = named.get("inplace") or any(each is True for each in rest)
    if in_place or not input.requires_grad or uses.transformed():
        return func(input, *rest, **named)
    return _Sloped.apply(input, lambda leaf: func(leaf, *rest, **named))


def _dropout(uses, func, input, p=0.5, training=True, inplace=False):
    if training and p > 0:
        raise ParameterError(RANDOM)
    return func(input, p, training, inplace)


def _methods(*names: str) -> tuple[Callable, ...]:
    found = (getattr(owner, name, None) for owner in (torch, Tensor) for name in names)
    return tuple(each for each in found if each is not None)


_IN_PLACE = frozenset(_methods("add_", "__iadd__"))
HANDLERS: dict[Callable, Callable] = {
    F.linear: _linear,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.multi_head_attention_forward: _attention,
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout), _dropout),
    **dict.fromkeys((torch.conv1d, torch.conv2d), _conv),
    **dict.fromkeys(_methods("matmul", "__matmul__", "mm"), _matmul),
    **dict.fromkeys(_methods("add", "__add__", "__radd__", "add_", "__iadd__"), _add),
    **dict.fromkeys(_methods("mul", "multiply", "__mul__", "__rmul__"), _mul),
    **dict.fromkeys(_methods("expand", "expand_as", "broadcast_to", "repeat"), _expand),
}
# For several cotangents; no network that differentiates itself may meet them, as a slope has none of its own.
SLOPES: dict[Callable, Callable] = dict.fromkeys((F.gelu, F.silu, F.mish, F.softplus, F.elu, F.celu, F.selu), _smooth)
