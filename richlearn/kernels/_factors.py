"""From gradients of results to what each contraction keeps of a sample."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from richlearn.kernels._plan import Part, Unit
from richlearn.kernels._pooling import Pooling
from richlearn.kernels._survey import SurveyedUse
from richlearn.kernels._uses import ParameterUses, Use


@dataclass
class Workspace:
    """Memory that is used again: fresh pages cost more than most of the arithmetic."""

    _held: dict[object, Tensor] = field(default_factory=dict)

    def take(self, key: object, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An uninitialised tensor; what `key` had before is overwritten."""
        count = prod(shape)
        held = self._held.get(key)
        if held is None or held.numel() < count or held.dtype != like.dtype or held.device != like.device:
            held = self._held[key] = torch.empty(count, dtype=like.dtype, device=like.device)
        return held[:count].view(shape)


@dataclass
class Factor:
    """What a unit keeps of some samples: operands by part and the gradients, or the parameter gradient alone.

    Attributes:
        gradient: "gram": (n, m, position, feature), of a traced kernel (n, position, m, feature); else (n, m, element), of a traced kernel
            (n, m·element), of several parts one after the other; None of a head.
        operands: "gram" only; (n, position, fan-in), or integers (n, position), of which equal ones pair.
        held: of operands that are the same in every kernel, where they are held; see `Kept`.
    """

    gradient: Tensor | None
    operands: list[Tensor]
    held: tuple[Hashable, ...] = ()

    def __getitem__(self, samples: slice) -> "Factor":
        held = self.held and (*self.held, samples.start, samples.stop)
        return Factor(None if self.gradient is None else self.gradient[samples], [each[samples] for each in self.operands], held)

    @property
    def rows(self) -> Tensor:
        """The gradient of a unit that is no head."""
        assert self.gradient is not None
        return self.gradient

    @property
    def samples(self) -> int:
        """n."""
        return len(self.operands[0] if self.gradient is None else self.gradient)


@dataclass(frozen=True)
class Pass:
    """What one forward and one batched backward pass leave of n samples and m cotangents.

    Attributes:
        uses: of the parameters.
        gradients: by result, (m, …); of results in `poolings` those at the winners, (n, m, channel, place).
        poolings: behind results.
        cotangents: m.
        output: (n, c).
        kept: gives the patches of a convolution's input; see `Kept.patches`.
    """

    uses: ParameterUses
    gradients: Mapping[int, Tensor]
    poolings: Mapping[int, Pooling]
    cotangents: int
    output: Tensor
    kept: Callable[[str, int, Use, Callable[[], Tensor]], Tensor]

    @property
    def samples(self) -> int:
        """n."""
        return len(self.output)

    def none(self, *shape: int) -> Tensor:
        """Gradients (n, m, …) where none arrives."""
        return self.output.new_zeros(self.samples, self.cotangents, *shape)


def _by_axis(option: Any, axes: int) -> Any:
    """A convolution's option along each axis, given as one number, a sequence of one or of all; a padding's name is left."""
    if isinstance(option, str):
        return option
    return (option,) * axes if isinstance(option, int) else tuple(option) * (axes if len(option) == 1 else 1)


def _windows(value: Tensor, use: Use) -> Tensor:
    """`value` (n, channel, …) as a convolution sees it, a view (n, channel, position…, kernel…); faster than `F.unfold`, for any axes."""
    assert use.options is not None
    kernel = use.view.size[2:]
    stride, padding, dilation = (_by_axis(use.options[name], len(kernel)) for name in ("stride", "padding", "dilation"))
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in padding]
    if any(map(any, sides)):
        value = F.pad(value, [side for pair in reversed(sides) for side in pair])
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        value = value.unfold(axis, d * (k - 1) + 1, s)
    return value[(..., *(slice(None, None, d) for d in dilation))]


def _patches(use: Use, surveyed: SurveyedUse, samples: int) -> Tensor:
    """The patches that a convolution sees, (n, group, channel·kernel, position)."""
    operand, groups = use.operand, surveyed.groups
    assert operand is not None
    if surveyed.layout.positions > 1:
        operand = surveyed.layout.samples_first(operand).flatten(0, 1)
    windows = _windows(operand, use)
    axes = windows.ndim // 2 - 1
    by_kernel = windows.movedim(tuple(range(-axes, 0)), tuple(range(2, 2 + axes)))  # n·frame, channel, kernel…, position…
    patches = by_kernel.reshape(samples, -1, groups, by_kernel.shape[1 : 2 + axes].numel() // groups, by_kernel.shape[2 + axes :].numel())
    return patches[:, 0] if patches.shape[1] == 1 else patches.movedim(1, 3).flatten(3)


def _channels_last(gradient: Tensor, surveyed: SurveyedUse) -> Tensor:
    """Gradient of a result (m, …), samples on their axis, as (n, m, position, feature)."""
    return surveyed.layout.by_position(gradient, 1, channels=surveyed.kind == "conv").transpose(0, 1)


def _groups(surveyed: SurveyedUse, shape: torch.Size, samples: int, device: torch.device) -> Tensor:
    """Of a shift whose result has this `shape`, the number of each position's group."""
    _, *outer, _ = surveyed.layout.samples_first(torch.empty(shape, device="meta")).shape
    numbers = torch.arange(prod(surveyed.alignment[:-1]), device=device).view(surveyed.alignment[:-1])
    return numbers.expand(outer).flatten().expand(samples, -1)


def _operand(use: Use, surveyed: SurveyedUse, samples: int) -> Tensor:
    """The operand of a use in the Gram contraction."""
    if use.kind == "conv":
        patches = _patches(use, surveyed, samples)
        return patches.flatten(1, 2).transpose(1, 2)
    operand = surveyed.layout.samples_first(use.operand)  # type: ignore[arg-type]
    return operand.reshape(samples, -1, operand.shape[-1]) if use.kind == "linear" else operand.reshape(samples, -1)


def _conv_gradient(use: Use, surveyed: SurveyedUse, gradient: Tensor, seen: Pass) -> Tensor:
    samples = seen.samples
    patches = seen.kept(
        "by channel", surveyed.index, use, lambda: _patches(use, surveyed, samples)
    )  # n sample, g group, k channel·kernel, t position
    by_sample = surveyed.layout.samples_first(gradient, 1).transpose(0, 1)
    if surveyed.layout.positions > 1:  # (n, m, frame, channel, …): frames are positions
        by_sample = by_sample.movedim(2, 3)
    flat = by_sample.flatten(3)  # n, m, o channel, t
    groups = patches.shape[1]
    if groups == 1:
        return (flat.flatten(1, 2) @ patches[:, 0].transpose(1, 2)).view(samples, flat.shape[1], -1)
    grouped = flat.unflatten(2, (groups, -1)).transpose(1, 2)  # n, g, m, o, t
    product = grouped.flatten(2, 3) @ patches.transpose(2, 3)  # n, g, m·o, k
    return product.unflatten(2, (flat.shape[1], -1)).transpose(1, 2).flatten(2)


def _own_gradient(use: Use, surveyed: SurveyedUse, gradient: Tensor, seen: Pass) -> Tensor:
    """The gradient of the used view by one use, (n, m, element), elements in the view's order."""
    samples = seen.samples
    if use.kind == "conv":
        return _conv_gradient(use, surveyed, gradient, seen)
    if use.kind == "linear":  # n sample, m cotangent, t position, o feature, i fan-in
        rows, operand = _channels_last(gradient, surveyed), _operand(use, surveyed, samples)
        if rows.shape[2] == 1:
            return (rows[:, :, 0, :, None] * operand[:, None, 0, None, :]).flatten(2)
        return (rows.transpose(2, 3).flatten(1, 2) @ operand).view(samples, rows.shape[1], -1)
    if use.kind == "lookup":
        rows, indices = _channels_last(gradient, surveyed), _operand(use, surveyed, samples)
        table = rows.new_zeros(samples, rows.shape[1], use.view.size[0] + 1, rows.shape[3])  # the last row: no gradient
        indices = torch.where(indices < 0, use.view.size[0], indices)
        table.scatter_add_(2, indices[:, None, :, None].expand_as(rows), rows.contiguous())
        return table[:, :, :-1].flatten(2)
    by_sample = surveyed.layout.samples_first(gradient, 1).transpose(0, 1)
    if use.kind == "scale":
        by_sample = by_sample * surveyed.layout.samples_first(use.operand.expand(gradient.shape[1:]))[:, None]  # type: ignore[union-attr]
    summed = [axis + 2 for axis, length in enumerate(surveyed.alignment) if length == 1]
    return (by_sample.sum(summed) if summed else by_sample).reshape(samples, len(gradient), -1)


def _pooled_gradient(use: Use, surveyed: SurveyedUse, gradient: Tensor, seen: Pass) -> Tensor:
    """The same of a convolution or its bias, from the gradient at the pooling's winners, (n, m, o channel, s place)."""
    if use.kind == "shift":
        return gradient.sum(3)
    operand = use.operand
    assert operand is not None
    patches = seen.poolings[surveyed.edge].of_winners(  # n, o, s, k
        seen.kept("by place", surveyed.index, use, lambda: _windows(operand, use).movedim(1, 3).flatten(3))
    )
    return (gradient.transpose(1, 2) @ patches).transpose(1, 2).flatten(2)


def _reordered(value: Tensor, use: SurveyedUse, first: SurveyedUse) -> Tensor:
    """Elements in the order of the first use's view."""
    if use.view == first.view:
        return value
    place = use.view.indices().flatten().argsort()[first.view.indices().flatten().argsort().argsort()]
    return value[..., place.to(value.device)]


def part_gradient(part: Part, seen: Pass) -> Tensor:
    """The gradient of a part of a parameter, (n, m, element)."""
    total: Tensor | None = None
    for surveyed in part.uses:
        gradient = seen.gradients.get(surveyed.edge)
        if gradient is None:
            continue
        use = seen.uses.uses[surveyed.index]
        own = (_pooled_gradient if surveyed.edge in seen.poolings else _own_gradient)(use, surveyed, gradient, seen)
        own = _reordered(own, surveyed, part.uses[0])
        total = own if total is None else total + own
    return seen.none(part.size) if total is None else total


def gram_rows(unit: Unit, seen: Pass) -> Tensor:
    """Gradients of a unit's results, (n, m, position, feature), positions of all results one after the other."""
    found = []
    for surveyed in unit.parts[0].uses:
        gradient = seen.gradients.get(surveyed.edge)
        if gradient is None:
            found.append(seen.none(surveyed.positions, surveyed.features))
        else:
            found.append(_channels_last(gradient, surveyed))
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def at_active(unit: Unit, operands: list[Tensor], rows: Tensor) -> list[Tensor] | None:
    """Operands and gradients at the unit's active positions; None if a gradient arrives elsewhere.

    What is too small for a square to hold (1e-23 in float32) counts as none.
    """
    if rows.shape[2] != len(unit.active) + len(unit.idle):  # longer or shorter sequences than those surveyed
        return None
    if not unit.idle:
        return [*operands, rows]
    active, idle = _places(unit.active), _places(unit.idle)
    if bool(torch.linalg.vector_norm(rows[:, :, idle], dim=(2, 3)).any()):
        return None
    return [*(each[:, active] for each in operands), rows[:, :, active]]


def _places(positions: tuple[int, ...]) -> slice | list[int]:
    """An index of these positions, a view where they follow one another."""
    first, last = positions[0], positions[-1]
    return slice(first, last + 1) if last + 1 - first == len(positions) else list(positions)


def gram_operands(part: Part, seen: Pass) -> Tensor:
    """Operands of all uses of a part, positions one after the other; a shift has none, its groups of positions stand in their place."""
    found = [
        _groups(surveyed, seen.uses.shapes[surveyed.edge], seen.samples, seen.output.device)
        if surveyed.kind == "shift"
        else _operand(seen.uses.uses[surveyed.index], surveyed, seen.samples)
        for surveyed in part.uses
    ]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)
