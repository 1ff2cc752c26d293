"""torchmetrics `Metric`s of feature learning, each usable alone: `update(network)` at initialisation, then whenever you like."""

from richlearn.metrics.conserved import ConservedQuantity, conserved_quantities
from richlearn.metrics.kernel import KernelDistance
from richlearn.metrics.parameters import ParameterDistance
from richlearn.metrics.patterns import ActivationHammingDistance, activation_patterns
from richlearn.metrics.threshold import StepsToThreshold

__all__ = [
    "ActivationHammingDistance",
    "ConservedQuantity",
    "KernelDistance",
    "ParameterDistance",
    "StepsToThreshold",
    "activation_patterns",
    "conserved_quantities",
]
