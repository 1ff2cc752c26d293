"""The empirical neural tangent kernel and distances between kernels."""

from richlearn.kernels.distance import kernel_distance
from richlearn.kernels.empirical import empirical_ntk

__all__ = ["empirical_ntk", "kernel_distance"]
