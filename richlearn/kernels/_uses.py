"""Which operations of a forward pass use which parameters, seen while the pass runs.

A covered operation computes with the parameter *detached*, and what is needed for its gradient is noted: its other operand
and the place of its result in the graph of autograd. Whatever use remains attached to a parameter afterwards is not covered,
and found by walking the graph: no use can be missed silently.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from richlearn.errors import ParameterError

BATCH_STATISTICS = "it normalises with the statistics of the batch, so no sample has a gradient of its own: call `network.eval()` first"


@dataclass(frozen=True)
class ParameterView:
    """A parameter or a part of it (transposed, a slice, a head's rows): where its elements lie in the parameter's storage."""

    parameter: str
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def transposed(self) -> "ParameterView":
        """The same two-dimensional part with its axes exchanged."""
        return ParameterView(self.parameter, self.size[::-1], self.stride[::-1], self.offset)

    def indices(self) -> Tensor:
        """Index of each element within the storage, of shape `size`."""
        extent = 1 + sum((length - 1) * step for length, step in zip(self.size, self.stride, strict=True))
        return torch.arange(self.offset, self.offset + extent).as_strided(self.size, self.stride, 0)


@dataclass(frozen=True)
class Use:
    """One use of a parameter: `kind` and `operand` say how its gradient follows from the gradient of the operation's result.

    Attributes:
        kind: "linear" (operand (…, in)), "conv" (operand: the input), "lookup" (operand: indices), "scale" (result =
            operand ∘ view, broadcast) or "shift" (result = … + view, broadcast).
        view: what is used.
        operand: the other operand, detached.
        edge: index of the result among the recorded results.
        options: of a convolution: stride, padding, dilation, groups.
    """

    kind: str
    view: ParameterView
    operand: Tensor | None
    edge: int
    options: Mapping[str, Any] | None = None


class _Rooted(torch.autograd.Function):
    """The identity; makes a result that no gradient would reach an inner node of the graph, which may be overwritten in place."""

    @staticmethod
    def forward(ctx, root: Tensor, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, gradient


class ParameterUses(TorchFunctionMode):
    """Records the covered uses of `parameters` (leaves that require gradients) while it is active.

    Args:
        parameters: by name.
        constant: which look-ups and expansions, in order of their calls, have no sample axis: they are views then.
        keep_results: keep a copy of every result (of a survey's tiny batch).
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        constant: frozenset[int] = frozenset(),
        keep_results: bool = False,
    ) -> None:
        super().__init__()
        self.uses: list[Use] = []
        self.edges: list[GradientEdge] = []
        self.shapes: list[torch.Size] = []
        self.results: list[Tensor] = []
        self.expansions: dict[int, int] = {}  # edge of a look-up or an expansion → its number
        self._constant, self._keep = constant, keep_results
        self._names = {value.untyped_storage().data_ptr(): name for name, value in parameters.items() if value.numel()}
        self.differentiated = False  # the network takes gradients itself: detached parameters would be missed there
        self._operands: list[tuple[Tensor, int]] = []
        self._expanded = 0
        self._root: Tensor | None = None

    @property
    def overwritten(self) -> bool:
        """Whether an operand has been changed in place since it was used."""
        return any(operand._version != version for operand, version in self._operands)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.differentiated |= func in _DIFFERENTIATING
        handler = _HANDLERS.get(func) if torch.is_grad_enabled() else None
        return func(*args, **(kwargs or {})) if handler is None else handler(self, func, *args, **(kwargs or {}))

    def view_of(self, tensor: object) -> ParameterView | None:
        """Which part of a parameter `tensor` is, or None."""
        if not isinstance(tensor, Tensor) or not tensor.requires_grad or tensor.is_sparse:
            return None
        name = self._names.get(tensor.untyped_storage().data_ptr())
        return name and ParameterView(name, tuple(tensor.shape), tensor.stride(), tensor.storage_offset())  # type: ignore[return-value]

    def note(self, result: Tensor, *uses: tuple[str, ParameterView | None, Tensor | None], options: Mapping[str, Any] | None = None) -> Tensor:
        """Record uses (kind, view, operand) that give `result`; what the operation shall return."""
        if torch._C._functorch.is_functorch_wrapped_tensor(result):
            self.differentiated = True
            return result
        if result._is_view():  # overwritten in place, a view would change its place in the graph
            result = torch.ops.aten._unsafe_view(result, result.shape)
        if not result.requires_grad:
            if self._root is None:
                self._root = torch.zeros((), device=result.device, requires_grad=True)
            result = _Rooted.apply(self._root, result)
        for kind, view, operand in uses:
            if view is not None:
                self.uses.append(Use(kind, view, self._kept(operand), len(self.edges), options))
        self.edges.append(get_gradient_edge(result))
        self.shapes.append(result.shape)
        if self._keep:
            self.results.append(result.detach().clone())
        return result

    def _kept(self, operand: Tensor | None) -> Tensor | None:
        if operand is None:
            return None
        operand = operand.detach()
        self._operands.append((operand, operand._version))
        return operand

    def expansion(self) -> tuple[bool, int]:
        """Whether the look-up or expansion at hand is constant, and its number."""
        self._expanded += 1
        return self._expanded - 1 in self._constant, self._expanded - 1


def _cut(tensor: Any, view: ParameterView | None) -> Any:
    return tensor if view is None else tensor.detach()


def _linear(uses: ParameterUses, func: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    w, b = uses.view_of(weight), uses.view_of(bias)
    if w is None and b is None:
        return func(input, weight, bias)
    return uses.note(func(input, _cut(weight, w), _cut(bias, b)), ("linear", w, input), ("shift", b, None))


def _matmul(uses: ParameterUses, func: Callable, input: Any, other: Any, **kwargs: Any) -> Tensor:
    view = uses.view_of(other)
    if view is None or other.ndim != 2 or input.ndim < 2 or kwargs:
        return func(input, other, **kwargs)
    return uses.note(func(input, other.detach()), ("linear", view.transposed(), input))


def _conv(uses: ParameterUses, func: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:  # fmt: skip
    w, b = uses.view_of(weight), uses.view_of(bias)
    rest = (stride, padding, dilation, groups)
    if (w is None and b is None) or input.ndim != weight.ndim:
        return func(input, weight, bias, *rest)
    result = func(input, _cut(weight, w), _cut(bias, b), *rest)
    options = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=True))
    aligned = None if b is None else uses.view_of(bias.view(-1, *[1] * (weight.ndim - 2)))  # type: ignore[union-attr]
    return uses.note(result, ("conv", w, input), ("shift", aligned, None), options=options)


def _embedding(uses: ParameterUses, func: Callable, input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None, *rest: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    view = uses.view_of(weight)
    if view is None or max_norm is not None or weight.ndim != 2:
        return func(input, weight, padding_idx, max_norm, *rest, **kwargs)
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


def _normalise(uses: ParameterUses, plain: Callable[[], Tensor], full: Callable[[Any, Any], Tensor], channels: int, weight: Any, bias: Any) -> Tensor:  # fmt: skip
    """A normalisation: result = x̂ ∘ weight + bias. `channels`: axes behind the one that weight and bias belong to."""
    w, b = uses.view_of(weight), uses.view_of(bias)
    if w is None and b is None:
        return full(weight, bias)
    result = full(_cut(weight, w), _cut(bias, b))
    if channels:
        w, b = (view and uses.view_of(value.view(-1, *[1] * channels)) for view, value in ((w, weight), (b, bias)))
    operand = None
    if w is not None:
        with torch.no_grad():
            operand = plain()
    return uses.note(result, ("scale", w, operand), ("shift", b, None))


def _layer_norm(uses, func, input, normalized_shape, weight=None, bias=None, eps=1e-5, *rest):
    return _normalise(
        uses, lambda: func(input, normalized_shape, None, None, eps), lambda w, b: func(input, normalized_shape, w, b, eps), 0, weight, bias
    )


def _rms_norm(uses, func, input, normalized_shape, weight=None, eps=None):
    return _normalise(
        uses, lambda: func(input, normalized_shape, None, eps), lambda w, _: func(input, normalized_shape, w, eps), 0, weight, None
    )


def _group_norm(uses, func, input, num_groups, weight=None, bias=None, eps=1e-5, *rest):
    return _normalise(
        uses, lambda: func(input, num_groups, None, None, eps), lambda w, b: func(input, num_groups, w, b, eps), input.ndim - 2, weight, bias
    )


def _batch_norm(uses, func, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, *rest):
    if training or running_mean is None:
        raise ParameterError(f"the network has a batch normalisation in training mode: {BATCH_STATISTICS}")

    def call(w: Any, b: Any) -> Tensor:
        return func(input, running_mean, running_var, w, b, False, momentum, eps)

    return _normalise(uses, lambda: call(None, None), call, input.ndim - 2, weight, bias)


def _instance_norm(uses, func, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5, *rest):  # fmt: skip
    def call(w: Any, b: Any) -> Tensor:
        return func(input, None if use_input_stats else running_mean, None if use_input_stats else running_var, w, b, use_input_stats, momentum, eps)

    return _normalise(uses, lambda: call(None, None), call, input.ndim - 2, weight, bias)


def _attention(uses, func, query, key, value, embed_dim, heads, in_weight, in_bias, bias_k, bias_v, zero_attn, dropout, out_weight, out_bias, training=True, key_padding_mask=None, need_weights=True, attn_mask=None, use_separate_proj_weight=False, q_proj_weight=None, k_proj_weight=None, v_proj_weight=None, static_k=None, static_v=None, average_attn_weights=True, is_causal=False):  # fmt: skip
    """`nn.MultiheadAttention` by its projections; forms beyond the common one stay attached, hence are not covered."""
    rare = (bias_k, bias_v, static_k, static_v, key_padding_mask)
    if any(each is not None for each in rare) or zero_attn or (dropout and training) or query.ndim != 3:
        return func(
            query, key, value, embed_dim, heads, in_weight, in_bias, bias_k, bias_v, zero_attn, dropout, out_weight, out_bias, training,
            key_padding_mask, need_weights, attn_mask, use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, static_k,
            static_v, average_attn_weights, is_causal,
        )  # fmt: skip
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_weight.chunk(3)
    biases = (None, None, None) if in_bias is None else in_bias.chunk(3)
    projected = [_linear(uses, F.linear, *each) for each in zip((query, key, value), weights, biases, strict=True)]
    # (position, sample, feature) → (sample, head, position, feature of the head)
    q, k, v = (each.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for each in projected)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if attn_mask is not None:
        mask = attn_mask.unflatten(0, (-1, heads)) if attn_mask.ndim == 3 else attn_mask
        scores = scores.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    shares = scores.softmax(-1)
    mixed = _linear(uses, F.linear, (shares @ v).permute(2, 0, 1, 3).flatten(2), out_weight, out_bias)
    return mixed, (shares.mean(1) if average_attn_weights else shares) if need_weights else None


def _methods(*names: str) -> tuple[Callable, ...]:
    found = (getattr(owner, name, None) for owner in (torch, Tensor) for name in names)
    return tuple(each for each in found if each is not None)


_DIFFERENTIATING = frozenset((torch.autograd.grad, torch.autograd.backward, Tensor.backward))
_HANDLERS: dict[Callable, Callable] = {
    F.linear: _linear,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.multi_head_attention_forward: _attention,
    **dict.fromkeys((torch.conv1d, torch.conv2d), _conv),
    **dict.fromkeys(_methods("matmul", "__matmul__", "mm"), _matmul),
    **dict.fromkeys(_methods("add", "__add__", "__radd__", "add_", "__iadd__"), _add),
    **dict.fromkeys(_methods("mul", "multiply", "__mul__", "__rmul__"), _mul),
    **dict.fromkeys(_methods("expand", "expand_as", "broadcast_to", "repeat"), _expand),
}
