"""δ of every hidden unit, and how far it has drifted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from richlearn.errors import NotApplicable
from richlearn.metrics._base import DistanceFromStart
from richlearn.networks.structure import Pair, find
from richlearn.theory import conserved_quantity, unit_scale


def homogeneous_pairs(network: nn.Module) -> tuple[Pair, ...]:
    """The pairs of weight layers whose hidden units have a δ.

    Raises:
        NotApplicable: there are none.
    """
    if not (pairs := find(network).pairs):
        raise NotApplicable(f"`{type(network).__name__}` has no two weight layers joined by a homogeneous activation, so no δ")
    return pairs


def conserved_quantities(
    network: nn.Module, rates: Mapping[str, float] | None = None, pairs: Sequence[Pair] | None = None
) -> tuple[Tensor, Tensor]:
    """δ and κ of every hidden unit between two weight layers that a homogeneous activation joins, two (units,) float64 tensors.

    Args:
        network: any network.
        rates: learning rates η_p by parameter name; 1 where absent.
        pairs: what `homogeneous_pairs(network)` found, if that is known already.

    Raises:
        NotApplicable: the network has no such pair.
    """
    named, rates = dict(network.named_parameters()), rates or {}
    deltas, scales = [], []
    for pair in homogeneous_pairs(network) if pairs is None else pairs:
        into = named[pair.incoming]
        out = pair.by_unit(named[pair.outgoing], len(into))
        given: dict[str, Any] = {"rate_in": rates.get(pair.incoming, 1.0), "rate_out": rates.get(pair.outgoing, 1.0)}
        if pair.bias is not None:
            given |= {"bias": named[pair.bias], "rate_bias": rates.get(pair.bias, 1.0)}
        deltas.append(conserved_quantity(into, out, **given))
        scales.append(unit_scale(into, out, **given))
    return torch.cat(deltas), torch.cat(scales)


class ConservedQuantity(DistanceFromStart):
    """Drift ‖δ_t − δ₀‖₂/‖κ₀‖₂ of the per-unit conserved quantity δ (Kunin et al. 2024, section 3); 0 under gradient flow.

    κ_k = η_w‖out_k‖² + η_a‖in_k‖² gives the scale, so that balanced units (δ = 0) have a drift as well. `delta` holds
    the current value of each unit for histograms.

    Args:
        rates: learning rates η_p by parameter name; 1 where absent.
    """

    def __init__(self, *, rates: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rates = dict(rates or {})
        self._pairs: tuple[Pair, ...] | None = None

    @property
    def delta(self) -> Tensor:
        """δ of each unit at the last update, shape (units,), float64."""
        self.require_seen()
        return self.current[0]

    def observe(self, network: nn.Module) -> Tensor:
        self._pairs = self._pairs or homogeneous_pairs(network)
        return torch.stack(conserved_quantities(network, self.rates, self._pairs))

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        return (current[0] - reference[0]).norm() / reference[1].norm()
