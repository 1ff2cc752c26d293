"""The traced NTK of a one-hidden-layer network, from two Gram matrices instead of a Jacobian."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def two_layer_parts(network: nn.Module) -> tuple[nn.Linear, nn.Module, nn.Linear] | None:
    """(first, activation, readout) where `network` is exactly such a chain in `layers`, else None."""
    layers = getattr(network, "layers", None)
    if not isinstance(layers, nn.Sequential) or len(layers) != 3 or len(list(network.parameters())) != len(list(layers.parameters())):
        return None
    first, activation, readout = layers
    if type(first) is nn.Linear and type(readout) is nn.Linear and not list(activation.parameters()):
        return first, activation, readout
    return None


def _derivative(activation: nn.Module, pre: Tensor) -> tuple[Tensor, Tensor]:
    """σ(z) and σ'(z), elementwise."""
    with torch.enable_grad():
        leaf = pre.detach().requires_grad_()
        post = activation(leaf)
        (slope,) = torch.autograd.grad(post.sum(), leaf)
    return post.detach(), slope


def traced_kernel(
    parts: tuple[nn.Linear, nn.Module, nn.Linear], names: Mapping[nn.Parameter, str], x: Tensor, x2: Tensor, rates: Mapping[str, float]
) -> Tensor:
    """Σ_c Θ_cc(x, x'), shape (n, n'): (η_w X X'ᵀ + η_b) ∘ (D diag‖a_k‖² D'ᵀ) + c·(η_a H H'ᵀ + η_{b_a}).

    H = σ(XWᵀ + b) and D = σ' of the same, both (n, h); ‖a_k‖² sums over the c outputs.
    """
    first, activation, readout = parts

    def rate(parameter: nn.Parameter | None) -> float:
        return 0.0 if parameter is None else rates.get(names[parameter], 1.0)

    hidden, slope = _derivative(activation, first(x))
    hidden2, slope2 = (hidden, slope) if x2 is x else _derivative(activation, first(x2))
    out_norms = readout.weight.detach().square().sum(0)
    into = (rate(first.weight) * (x @ x2.T)).add_(rate(first.bias)).mul_((slope * out_norms) @ slope2.T)
    out = (rate(readout.weight) * (hidden @ hidden2.T)).add_(rate(readout.bias))
    return into.add_(out, alpha=readout.out_features)
