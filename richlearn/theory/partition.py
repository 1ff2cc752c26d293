"""How the hidden units of a piecewise linear network cut a square of inputs into regions."""

from dataclasses import dataclass

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, finite, has_tensor, positive, to_torch

_NOISE = 1e-12  # corners this close to a line, in units of the square, lie on it


@dataclass(frozen=True, eq=False)
class Region:
    """A convex polygon in which the active units stay the same.

    Attributes:
        vertices: its corners, counter-clockwise, (m, 2).
        pattern: which units are active, (h,), bool.
        colour: the number of active units modulo 2.
    """

    vertices: Array
    pattern: Array
    colour: int


def _halves(polygon: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a polygon (m, 2) above and below a line, from the signed distances (m,) of its corners."""
    following, after = np.roll(polygon, -1, axis=0), np.roll(heights, -1)
    crossed = heights * after < 0
    share = np.where(crossed, heights, 0.0) / np.where(crossed, heights - after, 1.0)
    points = np.stack([polygon, polygon + share[:, None] * (following - polygon)], axis=1).reshape(-1, 2)
    above, below = (np.stack([keep, crossed], axis=1).reshape(-1) for keep in (heights >= 0, heights <= 0))
    return points[above], points[below]


def _cut(polygons: list[np.ndarray], active: np.ndarray, unit: int, normal: np.ndarray, offset: float, noise: float) -> np.ndarray:
    """Cut `polygons`, in place, along normalᵀx + offset = 0; the patterns (R, h) with the column of the unit filled in."""
    starts = np.cumsum([0, *(len(each) for each in polygons[:-1])])
    heights = np.concatenate(polygons) @ normal + offset
    heights[np.abs(heights) <= noise] = 0.0
    lowest, highest = np.minimum.reduceat(heights, starts), np.maximum.reduceat(heights, starts)
    active[:, unit] = highest > 0
    both = np.flatnonzero((lowest < 0) & (highest > 0))
    for index in both:
        start = starts[index]
        polygons[index], below = _halves(polygons[index], heights[start : start + len(polygons[index])])
        polygons.append(below)
    others = active[both]
    others[:, unit] = False
    return np.concatenate([active, others])


def partition(w: ArrayLike, biases: ArrayLike | None = None, *, extent: float = 1.0) -> list[Region]:
    """The regions into which the lines w_kᵀx + b_k = 0 cut the square [−extent, extent]².

    Units k are active where w_kᵀx + b_k > 0. Without redundant units (no w_k = 0, no two equal lines, parallel **or antiparallel**
    w_k) neighbours differ in one unit, so colours are those of a map in two colours. Kunin et al. 2024, section 4.

    Args:
        w: weights, (h, 2); one of 0 cuts nothing, and is active if b_k > 0.
        biases: b, (h,); 0 if absent.
        extent: half the side of the square, > 0.

    Returns:
        the regions, in no particular order; they share corners and overlap nowhere.

    Raises:
        ParameterError: `w` is not (h, 2), `biases` is not (h,), `extent` is not positive, or something is not finite.

    >>> [region.pattern.tolist() for region in partition([[1.0, 0.0], [0.0, 1.0]])]
    [[True, True], [False, True], [True, False], [False, False]]
    """
    tensors = has_tensor((w, biases))
    w, half = finite("w", w), float(positive("extent", extent))
    if w.ndim != 2 or w.shape[1] != 2:
        raise ParameterError(f"`w` must have shape (h, 2), got {w.shape}")
    offsets = np.zeros(len(w)) if biases is None else finite("biases", biases)
    if offsets.shape != (len(w),):
        raise ParameterError(f"`biases` must have shape ({len(w)},), got {offsets.shape}")
    polygons = [half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])]
    active = np.zeros((1, len(w)), dtype=bool)
    for unit, (weights, offset) in enumerate(zip(w, offsets, strict=True)):
        scale = np.abs(weights).max()
        length = np.hypot(*(weights / scale)) if scale > 0 else 1.0
        with np.errstate(over="ignore"):
            normal, distance = weights / (scale or 1.0) / length, float(offset / (scale or 1.0) / length)
        active = _cut(polygons, active, unit, normal, distance, _NOISE * half * (scale > 0))
    shown = to_torch if tensors else lambda array: array
    return [Region(shown(each), shown(pattern), int(pattern.sum() % 2)) for each, pattern in zip(polygons, active, strict=True)]
