"""torchmetrics `Metric`s of feature learning, each usable alone: `update(network)` at initialisation, then whenever you like."""

from richlearn.metrics.conserved import ConservationLaws, ConservedQuantity, conserved_quantities
from richlearn.metrics.kernel import KernelDistance, KernelVelocity
from richlearn.metrics.parameters import ParameterDistance
from richlearn.metrics.patterns import ActivationHammingDistance, activation_patterns, pattern_parity
from richlearn.metrics.spectrum import EffectiveRank, EigenspaceOverlap, KernelAlignment
from richlearn.metrics.threshold import StepsToThreshold

__all__ = [
    "ActivationHammingDistance",
    "ConservationLaws",
    "ConservedQuantity",
    "EffectiveRank",
    "EigenspaceOverlap",
    "KernelAlignment",
    "KernelDistance",
    "KernelVelocity",
    "ParameterDistance",
    "StepsToThreshold",
    "activation_patterns",
    "conserved_quantities",
    "pattern_parity",
]
