"""When to measure: log-spaced updates, as learning is fast early and slow late."""

import numpy as np


def log_times(steps: int, points_per_decade: int) -> list[int]:
    """0, then about `points_per_decade` updates a factor of ten from 1 to `steps`, both ends included.

    >>> log_times(100, 2)
    [0, 1, 3, 10, 32, 100]
    """
    count = max(2, round(np.log10(max(steps, 2)) * points_per_decade) + 1)
    return [0, *sorted({int(t) for t in np.rint(np.geomspace(1, steps, count))})]


def check_times(steps: int, every: int) -> list[int]:
    """0, every multiple of `every`, and `steps`.

    >>> check_times(10, 4)
    [0, 4, 8, 10]
    """
    return sorted({*range(0, steps, every), steps})
