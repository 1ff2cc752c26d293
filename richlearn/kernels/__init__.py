"""The empirical neural tangent kernel of any network, distances between kernels, and what a kernel says of learning."""

from richlearn.kernels.alignment import kernel_alignment
from richlearn.kernels.distance import kernel_distance
from richlearn.kernels.empirical import empirical_ntk, estimated_ntk, layer_ntks
from richlearn.kernels.ntk import TangentKernel
from richlearn.kernels.spectrum import effective_rank, eigenspace_overlap, participation_ratio

__all__ = [
    "TangentKernel",
    "effective_rank",
    "eigenspace_overlap",
    "empirical_ntk",
    "estimated_ntk",
    "kernel_alignment",
    "kernel_distance",
    "layer_ntks",
    "participation_ratio",
]
