"""Deep linear networks; one hidden unit is the paper's single neuron."""

from typing import final

from richlearn.networks.mlp import MLP


@final
class Linear(MLP):
    """f(x) = W_{D+1} W_D … W_1 x, D = `depth` hidden layers; width 1 and depth 1 is f(x) = a·wᵀx (Kunin et al. 2024, eq. 1).

    Raises:
        ParameterError: a size below 1.
    """

    def __init__(self, in_features: int, out_features: int, *, width: int = 1, depth: int = 1, bias: bool = False) -> None:
        super().__init__(in_features, out_features, width=width, depth=depth, activation="linear", bias=bias)
