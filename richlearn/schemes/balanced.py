"""The standard initialisation with every unit balanced."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable
from richlearn.networks.structure import Pair
from richlearn.schemes._common import homogeneous, structure_of
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.standard import Standard

TOLERANCE = 1e-6
MAX_SWEEPS = 10_000


def _rescale(pair: Pair, parameters: dict[str, Tensor]) -> float:
    """Make ‖in_k‖ = ‖out_k‖ for every unit that has both; returns max |δ_k|/(‖in_k‖² + ‖out_k‖²) from before."""
    incoming, outgoing = pair.squared_norms(parameters)
    alive = (incoming > 0) & (outgoing > 0)
    factor = torch.where(alive, (outgoing / incoming) ** 0.25, 1.0)
    parameters[pair.incoming].mul_(factor.view(-1, *[1] * (parameters[pair.incoming].ndim - 1)))
    if pair.bias is not None:
        parameters[pair.bias].mul_(factor)
    pair.by_unit(parameters[pair.outgoing], len(factor)).div_(factor[:, None])
    imbalance = torch.where(alive, (outgoing - incoming).abs() / (outgoing + incoming), 0.0)
    return float(imbalance.max())


def balance(pairs: tuple[Pair, ...], parameters: dict[str, Tensor]) -> None:
    """Sweep over the pairs, in place, until every δ_k is below 1e-6 of its unit's squared norm.

    Raises:
        NotApplicable: no balanced point is reached.
    """
    for _ in range(MAX_SWEEPS):
        if max([_rescale(pair, parameters) for pair in pairs]) < TOLERANCE:
            return
    raise NotApplicable(f"`balanced` did not reach δ = 0 to {TOLERANCE} within {MAX_SWEEPS} sweeps over {len(pairs)} hidden layers")


@final
@dataclass(frozen=True)
class Balanced(Scheme):
    """Standard, then each hidden unit is rescaled, w_k ← s_k w_k, a_k ← a_k/s_k, to δ_k = 0; the function stays.

    Its bias counts as an incoming weight. Layers share weights, so sweeps are repeated to 1e-6 (relative); a unit
    without incoming or without outgoing weight is left alone. δ is the one of equal learning rates.

    Raises:
        NotApplicable: a hidden layer is not positively homogeneous (GELU, tanh, normalisation).
    """

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        pairs = homogeneous(network, structure_of(network, batch), "balanced")
        Standard().apply(network, generator)
        parameters = dict(network.named_parameters())
        names = {name for pair in pairs for name in (pair.incoming, pair.bias, pair.outgoing) if name is not None}
        copies = {name: parameters[name].double().clone() for name in names}
        balance(pairs, copies)
        for name, values in copies.items():
            parameters[name].copy_(values)
        return Multipliers()

    def truths(self) -> Truths:
        """δ_k = 0, and the function of the standard initialisation."""
        return Truths(delta=0.0, same_function_as=Standard())
