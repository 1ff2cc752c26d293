"""What a network does with its parameters: found once, on two and on three samples, before any kernel is computed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from richlearn.errors import ParameterError, RichlearnError
from richlearn.kernels._footprint import counted
from richlearn.kernels._layout import FEW, MORE, Layout, close, layout_of
from richlearn.kernels._operations import BATCH_STATISTICS, HANDLERS, RANDOM
from richlearn.kernels._passes import State, attached, call, checked_gradients, state_of
from richlearn.kernels._pooling import Pooling, poolings
from richlearn.kernels._uses import ParameterUses, ParameterView

_TRIES = 16  # calls of a network that draws random numbers
_COTANGENTS = 3


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
    through: bool = False  # whether gradients go on to the operand

    @property
    def features(self) -> int:
        """Features of the result at one position; of what a shift or scale acts on, the last axis."""
        return self.view.size[0] if self.kind == "conv" else (self.shape or (1,))[-1]

    @property
    def work(self) -> int:
        """Multiply-adds of one sample's result."""
        return prod(self.shape) * (self.fan_in if self.kind in ("linear", "conv") else 1)

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
        signature: kind, parameter and size of each recorded use of a pass.
        same: result → the earlier result that always has the same gradient.
        active: result → positions at which a gradient arrives, features last (a read-out at the last position: one).
        pooled: result of a convolution that passes no gradient on, where only a maximum pooling sees it → elements of the latter's, of
            one sample.
        head: result that is the output itself, or −1.
        at_once: whether the gradients of several cotangents may be taken at once.
        outputs: c.
        result_sizes: elements of one sample's result, for each recorded result.
        forward: bytes that a forward pass holds of one sample, autograd's graph included; 0 if they could not be counted.
        backward: bytes that a backward pass holds besides, of one sample and one cotangent.
    """

    groups: tuple[tuple[SurveyedUse, ...], ...]
    fallback: Mapping[str, str]
    constant: frozenset[int]
    signature: tuple[tuple[str, str, tuple[int, ...]], ...]
    same: Mapping[int, int]
    active: Mapping[int, tuple[int, ...]]
    pooled: Mapping[int, int]
    head: int
    at_once: bool
    outputs: int
    result_sizes: tuple[int, ...]
    forward: int
    backward: int

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Results whose gradients are needed, each once."""
        return tuple(sorted({self.same.get(use.edge, use.edge) for group in self.groups for use in group}))


@dataclass(frozen=True)
class _Look:
    """One pass on a few samples."""

    output: Tensor
    uses: ParameterUses
    bytes: int  # held at most, but for the results that are kept to be looked at

    @property
    def size(self) -> float:
        """The largest number in any result: what rounding is measured by."""
        return max([float(value.abs().max()) for value in self.uses.results if value.numel()], default=0.0)


class _DifferentiatesItself(Exception):
    pass


def _look(network: nn.Module, state: State, x: Tensor, count: int, constant: frozenset[int]) -> _Look:
    few = x[torch.arange(count, device=x.device) % len(x)]

    def passed() -> tuple[Tensor, ParameterUses]:
        uses = ParameterUses(state.leaves, HANDLERS, constant=constant, keep_results=True)
        try:
            output = call(network, state, few, uses)
        except RuntimeError:  # by parameters that are cut off here
            if not (uses.differentiated and state.leaves):
                raise
            raise _DifferentiatesItself from None
        if uses.differentiated and state.leaves:
            raise _DifferentiatesItself
        return output, uses

    (output, uses), held = counted(passed)
    return _Look(output, uses, max(0, held - sum(value.nbytes for value in uses.results)))


def _looks(network: nn.Module, state: State, x: Tensor) -> tuple[_Look, _Look, frozenset[int]]:
    """Passes on two and on three samples, with those look-ups that have no sample axis as views."""
    constant: frozenset[int] = frozenset()
    while True:
        few, more = (_look(network, state, x, count, constant) for count in (FEW, MORE))
        kinds = [[(use.kind, use.view) for use in look.uses.uses] for look in (few, more)]
        if kinds[0] != kinds[1]:
            raise ParameterError("`network` uses other parameters for 2 samples than for 3: it has no kernel by sample")
        fixed = {number for edge, number in few.uses.expansions.items() if few.uses.results[edge].shape == more.uses.results[edge].shape}
        if not fixed:
            return few, more, constant
        constant |= fixed


def _streams(x: Tensor) -> Tensor:
    """The state of the random streams that a network may draw from."""
    return torch.cat([torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if x.is_cuda else [])])


def _check_deterministic(network: nn.Module, state: State, x: Tensor, few: _Look, constant: frozenset[int]) -> None:
    """Raise if the outputs of two samples change with the random numbers that the network draws; they need not at once."""
    for _ in range(_TRIES):
        if not close(_look(network, state, x, FEW, constant).output.detach(), few.output.detach(), few.size):
            raise ParameterError(RANDOM)


def _check_independent(network: nn.Module, few: _Look, more: _Look) -> None:
    """Raise unless the outputs of two samples stay the same with a third one beside them."""
    if few.output.shape[1:] == more.output.shape[1:] and close(few.output.detach(), more.output[:FEW].detach(), few.size):
        return
    raise ParameterError(
        f"the outputs of `{type(network).__name__}` for a sample change with the other samples of the batch; {BATCH_STATISTICS}"
    )


def _check_order(network: nn.Module, state: State, x: Tensor, more: _Look, constant: frozenset[int]) -> None:
    """Raise unless three samples in the opposite order have the same outputs: one may depend on those before it."""
    first = x[torch.arange(MORE, device=x.device) % len(x)]
    turned = call(network, state, first.flip(0), ParameterUses(state.leaves, HANDLERS, constant=constant)).detach().flip(0)
    if not close(turned, more.output.detach(), more.size):
        raise ParameterError(
            f"the outputs of `{type(network).__name__}` for a sample change with the samples before it: are they on the first axis?"
        )


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
        covered.append(
            SurveyedUse(
                index, use.edge, use.kind, use.view, layout, own, fan_in, aligned, (use.options or {}).get("groups", 1), use.through
            )
        )
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


def _random_gradients(look: _Look, edges: Sequence[GradientEdge]) -> list[Tensor | None]:
    """The gradients of `edges` for one random cotangent, the same in every call."""
    if not look.output.requires_grad or not edges:
        return [None] * len(edges)
    cotangent = torch.randn(look.output.shape, generator=torch.Generator().manual_seed(0)).to(look.output)
    return list(torch.autograd.grad(look.output, edges, cotangent, retain_graph=True, allow_unused=True))


def _at_once(look: _Look) -> tuple[bool, int]:
    """Whether several cotangents may be taken at once, and the bytes that one of them takes."""
    if not look.output.requires_grad or not look.uses.edges:
        return True, 0
    cotangents = torch.randn((_COTANGENTS, *look.output.shape), generator=torch.Generator().manual_seed(0)).to(look.output)
    (_, at_once), held = counted(lambda: checked_gradients(look.output, look.uses.edges, cotangents))
    return at_once, -(-held // _COTANGENTS)


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


def _active(gradients: list[Tensor | None], layouts: list[Layout | str], channels: Set[int]) -> dict[int, tuple[int, ...]]:
    """Positions at which a gradient is not 0 throughout; features are last, but those of the results `channels`."""
    found = {}
    for index, (gradient, layout) in enumerate(zip(gradients, layouts, strict=True)):
        if gradient is not None and isinstance(layout, Layout) and gradient.ndim > 1:
            by_position = layout.by_position(gradient, channels=index in channels)
            found[index] = tuple((by_position != 0).any(-1).any(0).nonzero().flatten().tolist())
    return found


def _pooled(look: _Look, covered: list[SurveyedUse], gradients: list[Tensor | None]) -> dict[int, int]:
    """Results that a pooling alone sees, of convolutions that pass no gradient on, with the elements of its result."""
    plain = [use for use in covered if use.kind == "conv" and use.groups == 1 and not use.through and use.layout == Layout(0)]
    found = poolings(look.output, {use.edge: look.uses.edges[use.edge] for use in plain})
    behind = _random_gradients(look, [pooling.edge for pooling in found.values()])
    return {
        edge: pooling.winners[0].numel()
        for (edge, pooling), gradient in zip(found.items(), behind, strict=True)
        if _is_all(pooling, gradient, gradients[edge])
    }


def _is_all(pooling: Pooling, behind: Tensor | None, gradient: Tensor | None) -> bool:
    """Whether a result's `gradient` is that at the winners and 0 elsewhere: a hook between may alter it, and is seen here only."""
    if behind is None or gradient is None:
        return False
    by_place = gradient.flatten(2)
    return close(torch.zeros_like(by_place).scatter_add_(2, pooling.winners, pooling.at_winners(behind[None])[:, 0]), by_place)


def signature(uses: ParameterUses) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Kind, parameter and size of each recorded use."""
    return tuple((use.kind, use.view.parameter, use.view.size) for use in uses.uses)


def survey(network: nn.Module, names: Set[str], x: Tensor) -> Survey:
    """Look at the network on two and on three samples (of `x`, repeated if there are fewer).

    Raises:
        ParameterError: a network that cannot be called on `x`, samples of a batch that depend on one another, outputs that
            are no tensor (n, …), or gradient checkpointing.
    """
    state, before = state_of(network, names), _streams(x)
    try:
        few, more, constant = _looks(network, state, x)
        if not torch.equal(_streams(x), before):
            _check_deterministic(network, state, x, few, constant)
    except _DifferentiatesItself:
        return replace(survey(network, frozenset(), x), fallback=dict.fromkeys(names, "the network differentiates itself"))
    except RichlearnError:
        raise
    except Exception as error:  # a network may raise anything on an input that is not meant for it
        what = f"{tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
        reason = next(iter(str(error).splitlines()), "")
        raise ParameterError(f"`{type(network).__name__}` cannot be called on inputs {what}: {type(error).__name__}: {reason}") from error
    _check_independent(network, few, more)
    _check_order(network, state, x, more, constant)
    layouts = [layout_of(a, b) for a, b in zip(few.uses.results, more.uses.results, strict=True)]
    covered, fallback = _surveyed(few, layouts)
    groups, refused = _grouped(covered)
    fallback |= refused | dict.fromkeys(attached(few.output, state.leaves), "it is used in an operation that is not covered")
    if fallback:  # once more without them
        rest = survey(network, names - fallback.keys(), x)
        return replace(rest, fallback={**fallback, **rest.fallback})
    found = _random_gradients(few, few.uses.edges)
    at_once, backward = _at_once(few)
    place = (few.output.grad_fn, few.output.output_nr)
    heads = [i for i, edge in enumerate(few.uses.edges) if (edge.node, edge.output_nr) == place]
    return Survey(
        groups=tuple(groups),
        fallback={},
        constant=constant,
        signature=signature(few.uses),
        same=_same(found),
        active=_active(found, layouts, {use.edge for use in covered if use.kind == "conv"}),
        pooled=_pooled(few, covered, found),
        head=heads[0] if heads else -1,
        at_once=at_once,
        outputs=few.output[0].numel(),
        result_sizes=tuple(value.numel() // FEW for value in few.uses.results),
        forward=-(-few.bytes // FEW),
        backward=-(-backward // FEW),
    )
