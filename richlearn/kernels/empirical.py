"""The empirical neural tangent kernel of an ordinary network."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from richlearn.errors import ParameterError
from richlearn.kernels._two_layer import traced_kernel, two_layer_parts

_CHUNK = 64  # samples whose Jacobians are alive at once


def _jacobians(network: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """∂f(x_i)/∂θ_p of each sample, per parameter (n, c, size)."""
    frozen = {name: value.detach() for name, value in (*network.named_parameters(), *network.named_buffers())}

    def output(trained: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(network, {**frozen, **trained}, (sample[None],))[0]

    jacobian = vmap(jacrev(output), (None, 0), chunk_size=_CHUNK)(parameters, x)
    return {name: value.flatten(2) for name, value in jacobian.items()}


def _contract(first: Tensor, second: Tensor, outputs: str) -> Tensor:
    if outputs == "trace":
        return first.flatten(1) @ second.flatten(1).T
    return first.flatten(0, 1) @ second.flatten(0, 1).T


def empirical_ntk(
    network: nn.Module,
    x: Shaped[Tensor, "sample *input"],
    x2: Shaped[Tensor, "sample2 *input"] | None = None,
    *,
    outputs: Literal["full", "trace"] = "full",
    rates: Mapping[str, float] | None = None,
) -> Float[Tensor, "row column"]:
    """Θ(x, x') = Σ_p η_p ∂f(x)/∂θ_p ∂f(x')/∂θ_p (Kunin et al. 2024, eq. 1; Jacot et al. 2018).

    Args:
        network: maps (n, …) to (n, c); only parameters that require gradients, or all if none does, enter the sum.
        x: n probe inputs.
        x2: n' probe inputs; `x` if absent.
        outputs: "full" keeps output pairs, row = sample·c + output; "trace" sums over equal outputs. They give
            different kernel distances where c > 1: say which you use.
        rates: η_p by parameter name; 1 where absent.

    Returns:
        (n·c, n'·c) or (n, n'), in the network's dtype.

    Raises:
        ParameterError: an unknown value of `outputs`, or a rate of a parameter that the network does not have.
    """
    if outputs not in ("full", "trace"):
        raise ParameterError(f'`outputs` must be "full" or "trace", got {outputs!r}')
    named, rates = dict(network.named_parameters()), rates or {}
    if unknown := set(rates) - set(named):
        raise ParameterError(f"`rates` names parameters that the network does not have: {sorted(unknown)}")
    other = x if x2 is None else x2
    trained = {name: p.detach() for name, p in named.items() if p.requires_grad} or {n: p.detach() for n, p in named.items()}
    with torch.no_grad():
        parts = two_layer_parts(network, x) if len(trained) == len(named) else None
        if parts is not None and (outputs == "trace" or parts[2].out_features == 1):
            return traced_kernel(parts, {p: name for name, p in named.items()}, x, other, rates)
        first = _jacobians(network, trained, x)
        second = first if other is x else _jacobians(network, trained, other)
        return sum(
            (rates.get(name, 1.0) * _contract(first[name], second[name], outputs) for name in trained),
            start=next(iter(first.values())).new_zeros(()),
        )
