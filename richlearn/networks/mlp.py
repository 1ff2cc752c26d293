"""The fully connected network: an ordinary chain of linear layers and activations."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import Tensor, nn

from richlearn.errors import ParameterError, nearest

LEAKY_SLOPE = 0.01
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
    "linear": nn.Identity,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def at_least_one(name: str, value: object) -> int:
    """`value` if it is a whole number of at least 1; `ParameterError` names the argument `name` otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"`{name}` must be a whole number of at least 1, got {value!r}")
    return value


def _activation(name: object) -> Callable[[], nn.Module]:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ParameterError(f"unknown `activation` {name!r}; {nearest(str(name), ACTIVATIONS)}")
    return ACTIVATIONS[name]


class MLP(nn.Module):
    """f(x) = W_{D+1} σ(W_D … σ(W_1 x + b_1) … + b_D) + b_{D+1}, D = `depth` hidden layers of one width.

    `self.layers` is the whole computation: weight layer, activation, weight layer, … (`nn.Identity` for `linear`, so
    that parameter names are the same under every activation: `layers.0.weight`, `layers.2.weight`, …).

    Args:
        in_features: input dimension d.
        out_features: number of outputs c.
        width: units of every hidden layer.
        depth: number of hidden layers D.
        activation: `relu`, `leaky_relu` (slope 0.01, PyTorch's default), `linear`, `gelu` or `tanh`.
        bias: whether every layer has a bias.

    Raises:
        ParameterError: a size below 1 or an unknown activation.
    """

    def __init__(
        self, in_features: int, out_features: int, *, width: int = 64, depth: int = 3, activation: str = "relu", bias: bool = True
    ) -> None:
        super().__init__()
        self.in_features = at_least_one("in_features", in_features)
        self.out_features = at_least_one("out_features", out_features)
        self.width = at_least_one("width", width)
        self.depth = at_least_one("depth", depth)
        make_activation = _activation(activation)
        self.activation = activation
        sizes = [in_features, *[width] * depth, out_features]
        chain = [module for d, c in pairwise(sizes) for module in (nn.Linear(d, c, bias=bias), make_activation())]
        self.layers = nn.Sequential(*chain[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, c) of the inputs (n, d)."""
        return self.layers(x)

    def stacked_forward(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (members, n, c) of a stack on shared inputs (n, d), from parameters with a leading member dimension.

        The function that `torch.func.vmap` over `forward` gives, in the layout that a processor likes: all members' first
        layers are one matrix product, and samples stay the contiguous dimension throughout.
        """
        hidden: Tensor | None = None
        for index, module in enumerate(self.layers):
            if not isinstance(module, nn.Linear):
                hidden = module(hidden)
                continue
            weight = parameters[f"layers.{index}.weight"]
            hidden = (weight.flatten(0, 1) @ inputs.T).unflatten(0, weight.shape[:2]) if hidden is None else weight @ hidden
            if module.bias is not None:
                hidden = hidden + parameters[f"layers.{index}.bias"][:, :, None]
        assert hidden is not None
        return hidden.transpose(1, 2)
