"""What theory says of a network's whole run, from its weights at the start, and the callback that compares a run with it."""

from richlearn.predictions.balanced_linear import BalancedLinearRun
from richlearn.predictions.base import Prediction, Setting, Weights
from richlearn.predictions.deep_linear import DeepLinearRun
from richlearn.predictions.monitor import PredictionMonitor
from richlearn.predictions.piecewise_linear import PiecewiseLinearRun
from richlearn.predictions.single_neuron import ImplicitBias, SingleNeuronRun

__all__ = [
    "BalancedLinearRun",
    "DeepLinearRun",
    "ImplicitBias",
    "PiecewiseLinearRun",
    "Prediction",
    "PredictionMonitor",
    "Setting",
    "SingleNeuronRun",
    "Weights",
]
