"""The network of the phase portrait: one hidden layer."""

from typing import final

from richlearn.networks.mlp import MLP


@final
class TwoLayer(MLP):
    """f(x) = Aᵀσ(Wx), W ∈ R^{h×d}, A ∈ R^{h×c}, h = `width` (Kunin et al. 2024, section 5: h = 50, ReLU, no bias).

    The readout's parameter is Aᵀ (c, h), as PyTorch stores it.

    Raises:
        ParameterError: a size below 1 or an unknown activation.
    """

    def __init__(self, in_features: int, out_features: int, *, width: int = 50, activation: str = "relu", bias: bool = False) -> None:
        super().__init__(in_features, out_features, width=width, depth=1, activation=activation, bias=bias)
