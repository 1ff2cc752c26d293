"""Networks: plain `nn.Module`s built as `(in_features, out_features, *, ...)`, without training code."""

from richlearn.networks.linear import Linear
from richlearn.networks.mlp import ACTIVATIONS, MLP
from richlearn.networks.structure import Layer, Pair, Structure, find
from richlearn.networks.transformer import Transformer
from richlearn.networks.two_layer import TwoLayer

__all__ = ["ACTIVATIONS", "MLP", "Layer", "Linear", "Pair", "Structure", "Transformer", "TwoLayer", "find"]
