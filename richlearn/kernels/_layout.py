"""Where the samples are in a tensor, seen by comparing it for two and for three samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

FEW, MORE = 2, 3
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}  # of the largest activation: rounding, not another function


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

    def by_position(self, value: Tensor, lead: int = 0, *, channels: bool = False) -> Tensor:
        """`value` as (lead axes, sample, position, feature); features are its last axis, or its `channels`, as a convolution has them."""
        by_sample = self.samples_first(value, lead)
        if by_sample.ndim <= lead + 2:
            return by_sample.unsqueeze(lead + 1)
        if channels:
            by_sample = by_sample.movedim(lead + 1 + (self.positions > 1), -1)
        return by_sample.flatten(lead + 1, -2)


def layout_of(few: Tensor, more: Tensor) -> Layout | str:
    """The layout of a result from its values on 2 and on 3 samples, or why there is none."""
    axes = [axis for axis, (a, b) in enumerate(zip(few.shape, more.shape, strict=False)) if a != b]
    if few.ndim != more.ndim or len(axes) != 1 or few.shape[axes[0]] * MORE != more.shape[axes[0]] * FEW:
        return "it is used on values without a sample axis" if not axes else "the samples lie on no single axis there"
    (axis,) = axes
    positions = few.shape[axis] // FEW
    if positions == 1:
        same = close(few, more.narrow(axis, 0, FEW))
        return Layout(axis) if same else "the samples are not in the order of the probe there"
    candidates = [Layout(axis, positions, sample_major) for sample_major in (True, False)]
    fits = [each for each in candidates if close(each.samples_first(few), each.samples_first(more)[:FEW])]
    return fits[0] if len(fits) == 1 else "samples and positions are merged there beyond telling apart"


def close(first: Tensor, second: Tensor, scale: float | None = None) -> bool:
    """Equal up to rounding; not-a-numbers are equal to anything."""
    if not first.numel():
        return True
    difference = (first - second).abs()
    size = torch.maximum(first.abs().max(), torch.tensor(scale or 0.0, dtype=first.dtype, device=first.device))
    return not bool((difference > _TOLERANCE.get(first.dtype, 1e-2) * size).any())
