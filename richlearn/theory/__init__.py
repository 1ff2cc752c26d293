"""Exact results on lazy and rich learning: float64, NumPy arrays or tensors in and out, no training code.

`docs/theory.md` has each result with its function, its conditions and the figure that checks it.
"""

from richlearn.theory._isotropic import isotropic_layers, isotropic_pair
from richlearn.theory.conserved import conserved_quantity, unit_scale
from richlearn.theory.deep_linear import (
    deep_bias_minimiser,
    deep_bias_potential,
    deep_conserved,
    deep_kernel,
    deep_tangent_matrix,
    isotropic_tangent_matrix,
    readout_norm,
)
from richlearn.theory.hyperboloid import flow_field, hyperboloid
from richlearn.theory.implicit_bias import (
    bias_magnitude,
    bias_minimiser,
    bias_potential,
    bias_potential_gradient,
    hyperbolic_entropy,
    hyperbolic_entropy_gradient,
)
from richlearn.theory.infinite_width import Kernels, relu_kernels
from richlearn.theory.isotropic_linear import BalancedLinear, Blocks, isotropic_blocks, isotropic_velocity, singular_values_at
from richlearn.theory.partition import Region, partition
from richlearn.theory.piecewise_linear import (
    UnitVelocities,
    activation_matrix,
    early_directions,
    piecewise_kernel,
    reduced_flow,
    unit_residuals,
    unit_tangent_matrices,
    unit_velocities,
)
from richlearn.theory.single_neuron import SingleNeuron, Stages
from richlearn.theory.two_layer_linear import conserved_matrix, regime_by_shape, shape_of, tangent_matrix, tangent_matrix_of_units
from richlearn.theory.unit_delta import Moments, UnitDelta, pytorch_default_moments

__all__ = [
    "BalancedLinear",
    "Blocks",
    "Kernels",
    "Moments",
    "Region",
    "SingleNeuron",
    "Stages",
    "UnitDelta",
    "UnitVelocities",
    "activation_matrix",
    "bias_magnitude",
    "bias_minimiser",
    "bias_potential",
    "bias_potential_gradient",
    "conserved_matrix",
    "conserved_quantity",
    "deep_bias_minimiser",
    "deep_bias_potential",
    "deep_conserved",
    "deep_kernel",
    "deep_tangent_matrix",
    "early_directions",
    "flow_field",
    "hyperbolic_entropy",
    "hyperbolic_entropy_gradient",
    "hyperboloid",
    "isotropic_blocks",
    "isotropic_layers",
    "isotropic_pair",
    "isotropic_tangent_matrix",
    "isotropic_velocity",
    "partition",
    "piecewise_kernel",
    "pytorch_default_moments",
    "readout_norm",
    "reduced_flow",
    "regime_by_shape",
    "relu_kernels",
    "shape_of",
    "singular_values_at",
    "tangent_matrix",
    "tangent_matrix_of_units",
    "unit_residuals",
    "unit_scale",
    "unit_tangent_matrices",
    "unit_velocities",
]
