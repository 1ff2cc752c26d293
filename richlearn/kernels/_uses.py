"""Which operations of a forward pass use which parameters, seen while the pass runs.

A covered operation computes with the parameter *detached*, and what is needed for its gradient is noted: its other operand
and the place of its result in the graph of autograd. Whatever use remains attached to a parameter afterwards is not covered,
and found by walking the graph: no use can be missed silently.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

_DIFFERENTIATING = frozenset((torch.autograd.grad, torch.autograd.backward, Tensor.backward))

_VIEWS = {
    f"{name}Backward"  # of autograd's nodes: operations whose gradient is the same elements in another order
    for name in (
        *("Alias", "AsStrided", "Diagonal", "Expand", "NumpyT", "Permute", "ReshapeAlias", "Select", "Slice", "Split"),
        *("SplitWithSizes", "Squeeze", "T", "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "View"),
    )
}


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
        through: whether gradients go on to the operand.
    """

    kind: str
    view: ParameterView
    operand: Tensor | None
    edge: int
    options: Mapping[str, Any] | None = None
    through: bool = False


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
        handlers: by function, what is done in its place: handler(self, function, *arguments).
        constant: which look-ups and expansions, in order of their calls, have no sample axis: they are views then.
        keep_results: keep a copy of every result (of a survey's tiny batch).
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        handlers: Mapping[Callable, Callable],
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
        self._handlers, self._constant, self._keep = handlers, constant, keep_results
        self._names = {value.untyped_storage().data_ptr(): name for name, value in parameters.items() if value.numel()}
        self.differentiated = False  # the network takes gradients itself: detached parameters would be missed there
        self._leaves = {id(value) for value in parameters.values()}
        self._operands: list[tuple[Tensor, int]] = []
        self._expanded = 0
        self._root: Tensor | None = None
        self._level = forward_ad._current_level  # the caller's

    def transformed(self) -> bool:
        """Whether the network is in a transform of `torch.func` or in forward mode, with derivatives of its own."""
        return torch._C._are_functorch_transforms_active() or forward_ad._current_level > self._level

    @property
    def overwritten(self) -> bool:
        """Whether an operand has been changed in place since it was used."""
        return any(operand._version != version for operand, version in self._operands)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.differentiated |= func in _DIFFERENTIATING
        handler = self._handlers.get(func) if torch.is_grad_enabled() else None
        return func(*args, **(kwargs or {})) if handler is None else handler(self, func, *args, **(kwargs or {}))

    def view_of(self, tensor: object) -> ParameterView | None:
        """Which part of a parameter `tensor` is, or None."""
        if not isinstance(tensor, Tensor) or not tensor.requires_grad or not tensor.is_floating_point() or not self._untouched(tensor):
            return None
        name = self._names.get(tensor.untyped_storage().data_ptr())
        return name and ParameterView(name, tuple(tensor.shape), tensor.stride(), tensor.storage_offset())  # type: ignore[return-value]

    def _untouched(self, tensor: Tensor) -> bool:
        """Whether `tensor` is a parameter or nothing but a view of one, with its gradient and no other."""
        node = tensor.grad_fn
        if node is None:
            return id(tensor) in self._leaves
        if tensor._backward_hooks or not tensor._is_view():
            return False
        while node is not None and node.name().rstrip("0123456789") in _VIEWS:
            node = node.next_functions[0][0]
        return id(getattr(node, "variable", None)) in self._leaves

    def note(
        self, result: Tensor, *uses: tuple[str, ParameterView | None, Tensor | None], options: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Record uses (kind, view, operand) that give `result`; what the operation shall return."""
        if self.transformed():
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
                through = operand is not None and operand.requires_grad
                self.uses.append(Use(kind, view, self._kept(operand), len(self.edges), options, through))
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
