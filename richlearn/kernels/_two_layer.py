"""The traced NTK of a one-hidden-layer network, from two Gram matrices instead of a Jacobian."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.ELU, nn.Softplus)
_Parts = tuple[nn.Linear, nn.Module, nn.Linear]


def _is_composition(network: nn.Module, parts: _Parts, sample: Tensor) -> bool:
    """Whether the network returns what the parts return one after the other, untouched: seen on `sample`."""
    seen: list[tuple[tuple, Tensor]] = []

    def note(_: nn.Module, args: tuple, output: Tensor) -> None:
        seen.append((args, output))

    hooks = [part.register_forward_hook(note) for part in parts]
    try:
        output = network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    chain = [sample, *(result for _, result in seen)]
    passed_on = all(len(args) == 1 and args[0] is before for (args, _), before in zip(seen, chain[:-1], strict=True))
    return len(seen) == 3 and passed_on and output is chain[-1]


def two_layer_parts(network: nn.Module, x: Tensor) -> _Parts | None:
    """(first, activation, readout) where the network on inputs (n, d) is exactly such a chain in `layers`, else None."""
    layers = getattr(network, "layers", None)
    if x.ndim != 2 or not isinstance(layers, nn.Sequential) or len(layers) != 3:
        return None
    first, activation, readout = layers
    if type(first) is not nn.Linear or type(readout) is not nn.Linear or not isinstance(activation, _ELEMENTWISE):
        return None
    if getattr(activation, "inplace", False):
        return None  # its derivative cannot be taken at a leaf
    own = [parameter for part in (first, readout) for parameter in part.parameters()]
    alone = {id(parameter) for parameter in own} == {id(parameter) for parameter in network.parameters()}
    untied = len(own) == len({id(parameter) for parameter in own})
    parts = first, activation, readout
    return parts if alone and untied and _is_composition(network, parts, x[:1]) else None


def _derivative(activation: nn.Module, pre: Tensor) -> tuple[Tensor, Tensor]:
    """σ(z) and σ'(z), elementwise."""
    with torch.enable_grad():
        leaf = pre.detach().requires_grad_()
        post = activation(leaf)
        (slope,) = torch.autograd.grad(post.sum(), leaf)
    return post.detach(), slope


def traced_kernel(parts: _Parts, names: Mapping[Tensor, str], x: Tensor, x2: Tensor, rates: Mapping[str, float]) -> Tensor:
    """Σ_c Θ_cc(x, x'), shape (n, n'): (η_w X X'ᵀ + η_b) ∘ (D diag‖a_k‖² D'ᵀ) + c·(η_a H H'ᵀ + η_{b_a}).

    H = σ(XWᵀ + b) and D = σ' of the same, both (n, h); ‖a_k‖² sums over the c outputs.
    """
    first, activation, readout = parts

    def rate(parameter: Tensor | None) -> float:
        return 0.0 if parameter is None else rates.get(names[parameter], 1.0)

    hidden, slope = _derivative(activation, first(x))
    hidden2, slope2 = (hidden, slope) if x2 is x else _derivative(activation, first(x2))
    out_norms = readout.weight.detach().square().sum(0)
    into = (rate(first.weight) * (x @ x2.T)).add_(rate(first.bias)).mul_((slope * out_norms) @ slope2.T)
    out = (rate(readout.weight) * (hidden @ hidden2.T)).add_(rate(readout.bias))
    return into.add_(out, alpha=readout.out_features)
