"""What a network does with its parameters: found once, on two and on three samples, before any kernel is computed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, disable_saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from richlearn.errors import ParameterError
from richlearn.kernels._uses import BATCH_STATISTICS, ParameterUses, ParameterView

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}  # of the largest activation: rounding, not another function
_FEW, _MORE = 2, 3
_CHECKPOINTED = "checkpointing computes parts of the network again while gradients are taken, with other parameters than the kernel's"


@dataclass(frozen=True)
class Layout:
    """Where the samples are in a result: along `axis`, alone or together with `positions` positions of each sample."""

    axis: int
    positions: int = 1
    sample_major: bool = True

    def samples_first(self, value: Tensor, lead: int = 0) -> Tensor:
        """`value` (lead axes, …) with the sample axis moved behind the `lead` axes; merged positions become an axis of their own."""
        axis = self.axis + lead
        if self.positions == 1:
            return value.movedim(axis, lead)
        parts = (-1, self.positions) if self.sample_major else (self.positions, -1)
        return value.unflatten(axis, parts).movedim(axis + (not self.sample_major), lead)


@dataclass(frozen=True)
class SurveyedUse:
    """A use without its tensors: `index` among the recorded uses, `edge` among the recorded results."""

    index: int
    edge: int
    kind: str
    view: ParameterView
    layout: Layout
    shape: tuple[int, ...]  # of one sample's result, samples first: (positions…, features)
    fan_in: int  # rows of the operand per position, bias not counted
    alignment: tuple[int, ...]  # of the view, broadcast against `shape`
    groups: int = 1  # of a convolution

    @property
    def features(self) -> int:
        """Features of the result at one position; of what a shift or scale acts on, the last axis."""
        return self.view.size[0] if self.kind == "conv" else self.shape[-1]

    @property
    def positions(self) -> int:
        """Places within a sample at which the parameter acts."""
        return prod(self.shape) // max(self.features, 1)


@dataclass(frozen=True)
class Survey:
    """What there is to compute.

    Attributes:
        groups: uses of one part of a parameter; the parts of different groups are disjoint.
        fallback: parameters whose Jacobian is taken instead, with the reason.
        constant: see `ParameterUses`.
        count: recorded uses of a pass.
        same: result → the earlier result that always has the same gradient.
        active: result → at how many positions a gradient arrives, features last (a read-out at the last position: one).
        head: result that is the output itself, or −1.
        outputs: c.
        result_sizes: elements of one sample's result, for each recorded result.
    """

    groups: tuple[tuple[SurveyedUse, ...], ...]
    fallback: Mapping[str, str]
    constant: frozenset[int]
    count: int
    same: Mapping[int, int]
    active: Mapping[int, int]
    head: int
    outputs: int
    result_sizes: tuple[int, ...]

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Results whose gradients are needed, each once."""
        return tuple(sorted({self.same.get(use.edge, use.edge) for group in self.groups for use in group}))


@dataclass(frozen=True)
class State:
    """Parameters and buffers for one call: `leaves` require gradients, everything else is constant."""

    leaves: dict[str, Tensor]
    rest: dict[str, Tensor]

    def all(self) -> dict[str, Tensor]:
        """For `functional_call`; buffers are copies, so that a forward pass leaves the network's own alone."""
        return {**self.leaves, **{name: value.clone() if value.numel() else value for name, value in self.rest.items()}}


def state_of(network: nn.Module, names: Set[str], values: Mapping[str, Tensor] | None = None) -> State:
    """Leaves for the parameters `names`, all else detached; `values` replaces the network's own parameters."""
    parameters = {**dict(network.named_parameters()), **(values or {})}
    leaves = {name: parameters[name].detach().requires_grad_() for name in names}
    frozen = {name: value.detach() for name, value in parameters.items() if name not in names}
    return State(leaves, {**frozen, **dict(network.named_buffers())})


def _called(network: nn.Module, state: State, x: Tensor) -> object:
    try:
        return functional_call(network, state.all(), (x.clone(),))
    except RuntimeError as error:
        if _CHECKPOINTED in str(error):
            raise ParameterError(f"`network` uses gradient checkpointing: switch it off, a kernel needs none; {_CHECKPOINTED}") from None
        raise


def call(network: nn.Module, state: State, x: Tensor, uses: ParameterUses) -> Tensor:
    """The outputs (n, c) with the graph that leads to the recorded uses."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), disable_saved_tensors_hooks(_CHECKPOINTED), uses:
        output = _called(network, state, x)
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(x):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"`{type(output).__name__}`"
        raise ParameterError(f"`network` must return one tensor (n, …) for inputs (n, …), got {found} for {len(x)} samples")
    if not output.is_floating_point():
        raise ParameterError(f"`network` must return real numbers, got {output.dtype}")
    with torch.enable_grad():
        return output if output.ndim == 2 else output.reshape(len(output), -1)


def _nodes(output: Tensor) -> Iterator[torch.autograd.graph.Node]:
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def attached(output: Tensor, leaves: Mapping[str, Tensor]) -> set[str]:
    """Names of the leaves that the graph of `output` still reaches.

    Raises:
        ParameterError: reentrant checkpointing.
    """
    by_storage = {value.untyped_storage().data_ptr(): name for name, value in leaves.items() if value.numel()}
    found = set()
    for node in _nodes(output):
        if node.name() == "CheckpointFunctionBackward":  # reentrant: its parameters are hidden from the graph
            raise ParameterError(f"`network` uses gradient checkpointing: switch it off, a kernel needs none; {_CHECKPOINTED}")
        variable = getattr(node, "variable", None)
        if variable is not None and (name := by_storage.get(variable.untyped_storage().data_ptr())):
            found.add(name)
    return found


def _layout(few: Tensor, more: Tensor) -> Layout | str:
    """The layout of a result from its values on 2 and on 3 samples, or why there is none."""
    axes = [axis for axis, (a, b) in enumerate(zip(few.shape, more.shape, strict=False)) if a != b]
    if few.ndim != more.ndim or len(axes) != 1 or few.shape[axes[0]] * _MORE != more.shape[axes[0]] * _FEW:
        return "it is used on values without a sample axis" if not axes else "the samples lie on no single axis there"
    (axis,) = axes
    positions = few.shape[axis] // _FEW
    if positions == 1:
        return Layout(axis)
    candidates = [Layout(axis, positions, sample_major) for sample_major in (True, False)]
    fits = [each for each in candidates if _close(each.samples_first(few), each.samples_first(more)[:_FEW])]
    return fits[0] if len(fits) == 1 else "samples and positions are merged there beyond telling apart"


def _close(first: Tensor, second: Tensor, scale: float | None = None) -> bool:
    """Equal up to rounding; not-a-numbers are equal to anything."""
    difference = (first - second).abs()
    size = torch.maximum(first.abs().max(), torch.tensor(scale or 0.0, dtype=first.dtype, device=first.device))
    return not bool((difference > _TOLERANCE.get(first.dtype, 1e-2) * size).any())


@dataclass(frozen=True)
class _Look:
    """One pass on a few samples."""

    output: Tensor
    uses: ParameterUses


def _look(network: nn.Module, state: State, x: Tensor, count: int, constant: frozenset[int]) -> _Look:
    few = x[torch.arange(count, device=x.device) % len(x)]
    uses = ParameterUses(state.leaves, constant=constant, keep_results=True)
    output = call(network, state, few, uses)
    if uses.overwritten:
        raise ParameterError(f"`{type(network).__name__}` overwrites a layer's input in place before its gradient is taken: it cannot be trained")
    return _Look(output, uses)


def _looks(network: nn.Module, state: State, x: Tensor) -> tuple[_Look, _Look, frozenset[int]]:
    """Passes on two and on three samples, with those look-ups that have no sample axis as views."""
    constant: frozenset[int] = frozenset()
    while True:
        few, more = (_look(network, state, x, count, constant) for count in (_FEW, _MORE))
        kinds = [[(use.kind, use.view) for use in look.uses.uses] for look in (few, more)]
        if kinds[0] != kinds[1]:
            raise ParameterError("`network` uses other parameters for 2 samples than for 3: it has no kernel by sample")
        fixed = {
            number for edge, number in few.uses.expansions.items() if few.uses.results[edge].shape == more.uses.results[edge].shape
        }
        if not fixed:
            return few, more, constant
        constant |= fixed


def _check_independent(network: nn.Module, few: _Look, more: _Look) -> None:
    """Raise unless the outputs of two samples stay the same with a third one beside them."""
    scale = max([float(value.abs().max()) for value in few.uses.results if value.numel()], default=0.0)
    if few.output.shape[1:] == more.output.shape[1:] and _close(few.output.detach(), more.output[:_FEW].detach(), scale):
        return
    training = [name for name, module in network.named_modules() if module.training and isinstance(module, nn.modules.dropout._DropoutNd)]
    reason = (
        f"it draws random numbers (`{training[0]}` in training mode): call `network.eval()` first" if training else BATCH_STATISTICS
    )
    raise ParameterError(f"the outputs of `{type(network).__name__}` for a sample change with the other samples of the batch; {reason}")


def _alignment(use_kind: str, view: ParameterView, layout: Layout, shape: torch.Size) -> tuple[int, ...] | None:
    """The size of a broadcast view against one sample's result, samples first; None where it varies along the samples."""
    if use_kind not in ("scale", "shift"):
        return ()
    size = (*[1] * (len(shape) - len(view.size)), *view.size)
    if size[layout.axis] != 1 or any(s not in (1, length) for s, length in zip(size, shape, strict=True)):
        return None
    rest = size[: layout.axis] + size[layout.axis + 1 :]
    if layout.positions == 1:
        return rest
    return (*rest[: layout.axis], 1, *rest[layout.axis :])


def _surveyed(look: _Look, layouts: list[Layout | str]) -> tuple[list[SurveyedUse], dict[str, str]]:
    """The uses that the engine covers, and the parameters that it does not, with the reason."""
    covered, refused = [], {}
    for index, use in enumerate(look.uses.uses):
        layout, shape = layouts[use.edge], look.uses.shapes[use.edge]
        if isinstance(layout, str):
            refused[use.view.parameter] = layout
            continue
        aligned = _alignment(use.kind, use.view, layout, shape)
        last = layout.axis == len(shape) - 1 and use.kind in ("linear", "lookup")
        if aligned is None or last or (use.kind == "conv" and layout.axis != 0):
            refused[use.view.parameter] = "it acts along the sample axis"
            continue
        own = tuple(layout.samples_first(look.uses.results[use.edge]).shape[1:])
        fan_in = prod(use.view.size[1:]) if use.kind in ("linear", "conv") else 1
        covered.append(SurveyedUse(index, use.edge, use.kind, use.view, layout, own, fan_in, aligned, (use.options or {}).get("groups", 1)))
    return covered, refused


def _grouped(uses: list[SurveyedUse]) -> tuple[list[tuple[SurveyedUse, ...]], dict[str, str]]:
    """Uses of equal parts together; parts that overlap otherwise are refused."""
    parts: dict[str, dict[object, list[SurveyedUse]]] = defaultdict(lambda: defaultdict(list))
    refused: dict[str, str] = {}
    for use in uses:
        mark = _elements(use.view)
        if mark is None:
            refused[use.view.parameter] = "one of its elements is used several times in one operation"
        parts[use.view.parameter][mark].append(use)
    for name, found in parts.items():
        if len(found) > 1 and name not in refused and _overlap([group[0].view for group in found.values()]):
            refused[name] = "parts of it that overlap are used in different ways"
    return [tuple(group) for found in parts.values() for group in found.values()], refused


def _elements(view: ParameterView) -> object | None:
    """A mark that equals another view's if and only if both have the same elements; None if one element occurs twice."""
    count = 1
    for length, step in sorted(zip(view.size, view.stride, strict=True), key=lambda pair: pair[1]):
        if length > 1 and step != count:
            break
        count *= length
    else:
        return view.offset, count  # a block without gaps, in whatever order
    flat = view.indices().flatten().sort().values
    return None if bool((flat[1:] == flat[:-1]).any()) else flat.numpy().tobytes()


def _overlap(views: list[ParameterView]) -> bool:
    return len(torch.cat([view.indices().flatten() for view in views]).unique()) < sum(view.indices().numel() for view in views)


def _random_gradients(look: _Look) -> list[Tensor | None]:
    """The gradients of all results for one random cotangent."""
    if not look.output.requires_grad or not look.uses.edges:
        return [None] * len(look.uses.edges)
    cotangent = torch.randn(look.output.shape, generator=torch.Generator().manual_seed(0)).to(look.output)
    return list(torch.autograd.grad(look.output, look.uses.edges, cotangent, retain_graph=True, allow_unused=True))


def _same(gradients: list[Tensor | None]) -> dict[int, int]:
    """Results whose gradients are one and the same tensor: result → the first such one."""
    first: dict[tuple, int] = {}
    same = {}
    for index, gradient in enumerate(gradients):
        if gradient is not None:
            earlier = first.setdefault((gradient.data_ptr(), gradient.shape, gradient.stride()), index)
            if earlier != index:
                same[index] = earlier
    return same


def _active(gradients: list[Tensor | None], layouts: list[Layout | str]) -> dict[int, int]:
    """Positions (features last) at which a gradient is not 0 throughout."""
    found = {}
    for index, (gradient, layout) in enumerate(zip(gradients, layouts, strict=True)):
        if gradient is not None and isinstance(layout, Layout) and gradient.ndim > 1:
            by_position = layout.samples_first(gradient).flatten(1, -2) if gradient.ndim > 2 or layout.positions > 1 else gradient[:, None]
            found[index] = int((by_position != 0).any(-1).any(0).sum())
    return found


def gradients(output: Tensor, uses: ParameterUses, edges: tuple[int, ...], cotangents: Tensor) -> list[Tensor | None]:
    """Gradients (m, …) of the results `edges` for m cotangents (m, n, c); None where the output does not depend on a result."""
    inputs: list[GradientEdge] = [uses.edges[edge] for edge in edges]
    if len(cotangents) == 1:
        found = torch.autograd.grad(output, inputs, cotangents[0], allow_unused=True)
        return [each if each is None else each[None] for each in found]
    try:
        return list(torch.autograd.grad(output, inputs, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=True))
    except RuntimeError:  # a custom function without a batching rule: one cotangent at a time
        rows = [torch.autograd.grad(output, inputs, each, retain_graph=True, allow_unused=True) for each in cotangents]
        return [None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True)]


def survey(network: nn.Module, names: Set[str], x: Tensor) -> Survey:
    """Look at the network on two and on three samples (of `x`, repeated if there are fewer).

    Raises:
        ParameterError: samples of a batch that depend on one another, outputs that are no tensor (n, …), or gradient
            checkpointing.
    """
    state = state_of(network, names)
    few, more, constant = _looks(network, state, x)
    if few.uses.differentiated and names:
        return replace(survey(network, frozenset(), x), fallback=dict.fromkeys(names, "the network differentiates itself"))
    _check_independent(network, few, more)
    layouts = [_layout(a, b) for a, b in zip(few.uses.results, more.uses.results, strict=True)]
    covered, fallback = _surveyed(few, layouts)
    groups, refused = _grouped(covered)
    fallback |= refused | dict.fromkeys(attached(few.output, state.leaves), "it is used in an operation that is not covered")
    if fallback:  # once more without them
        rest = survey(network, names - fallback.keys(), x)
        return replace(rest, fallback={**fallback, **rest.fallback})
    found = _random_gradients(few)
    place = (few.output.grad_fn, few.output.output_nr)
    heads = [i for i, edge in enumerate(few.uses.edges) if (edge.node, edge.output_nr) == place]
    return Survey(
        groups=tuple(groups),
        fallback={},
        constant=constant,
        count=len(few.uses.uses),
        same=_same(found),
        active=_active(found, layouts),
        head=heads[0] if heads else -1,
        outputs=few.output[0].numel(),
        result_sizes=tuple(value.numel() // _FEW for value in few.uses.results),
    )
