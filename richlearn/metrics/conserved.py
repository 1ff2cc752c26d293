"""What gradient flow conserves, and how far it has drifted: δ of every hidden unit, and all laws of a network."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from richlearn.conservation import Laws, ScalingLaw, find_laws
from richlearn.conservation.finder import Loss
from richlearn.errors import NotApplicable, UsageError
from richlearn.kernels._request import checked_rates
from richlearn.metrics._base import DistanceFromStart
from richlearn.networks.structure import Pair, find


def homogeneous_pairs(network: nn.Module) -> tuple[Pair, ...]:
    """The pairs of weight layers whose hidden units have a δ.

    Raises:
        NotApplicable: there are none.
    """
    if not (pairs := find(network).pairs):
        raise NotApplicable(f"`{type(network).__name__}` has no two weight layers joined by a homogeneous activation, so no δ")
    return pairs


def unit_laws(network: nn.Module, sample_input: Tensor | None = None) -> tuple[ScalingLaw, ...]:
    """The laws whose units can each be rescaled by itself: those that have a δ.

    Raises:
        NotApplicable: there are none.
    """
    found = find_laws(network, sample_input)
    laws = tuple(law for law in found.of("rescaling", "linear") if isinstance(law, ScalingLaw))
    if not laws:
        reason = f": {found.why}" if found.why else ""
        raise NotApplicable(f"`{type(network).__name__}` has no two weight layers joined by a homogeneous activation, so no δ{reason}")
    return laws


def _detached(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def _rates(network: nn.Module, rates: Mapping[str, float] | None) -> Mapping[str, float]:
    """`rates`, none of which is 0: what does not train with the rest takes part in no law."""
    if still := sorted(name for name, rate in checked_rates(network, rates).items() if rate == 0):
        raise NotApplicable(f"the learning rate of `{still[0]}` is 0, so nothing that it takes part in is conserved")
    return rates or {}


def conserved_quantities(
    network: nn.Module, rates: Mapping[str, float] | None = None, laws: Sequence[ScalingLaw] | None = None
) -> tuple[Tensor, Tensor]:
    """δ and κ of every hidden unit between weight layers that a homogeneous activation joins, two (units,) float64 tensors.

    Args:
        network: any network.
        rates: learning rates η_p by parameter name; 1 where absent.
        laws: what `unit_laws(network)` found, if that is known already.

    Raises:
        NotApplicable: the network has no such layers, or a rate is 0.
        ParameterError: a rate is no number, negative, or of a parameter that the network does not have.
    """
    rates = _rates(network, rates)
    named, laws = _detached(network), unit_laws(network) if laws is None else laws
    return torch.cat([law.delta(named, rates) for law in laws]), torch.cat([law.kappa(named, rates) for law in laws])


class ConservedQuantity(DistanceFromStart):
    """Drift ‖δ_t − δ₀‖₂/‖κ₀‖₂ of the per-unit conserved quantity δ (Kunin et al. 2024, section 3); 0 under gradient flow.

    κ_k = η_w‖out_k‖² + η_a‖in_k‖² gives the scale, so that balanced units (δ = 0) have a drift as well. `delta` holds
    the current value of each unit for histograms. `ConservationLaws` measures every law of a network.

    Args:
        rates: learning rates η_p by parameter name; 1 where absent.
        sample_input: a batch of inputs, for networks whose input cannot be guessed.
    """

    def __init__(self, *, rates: Mapping[str, float] | None = None, sample_input: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rates = dict(rates or {})
        self._sample = sample_input
        self._laws: tuple[ScalingLaw, ...] | None = None

    @property
    def delta(self) -> Tensor:
        """δ of each unit at the last update, shape (units,), float64."""
        self.require_seen()
        return self.current[0]

    def observe(self, network: nn.Module) -> Tensor:
        self._laws = self._laws or unit_laws(network, self._sample)
        return torch.stack(conserved_quantities(network, self.rates, self._laws))

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        return (current[0] - reference[0]).norm() / reference[1].norm()


class ConservationLaws(DistanceFromStart):
    """The largest drift ‖value_t − value₀‖/‖scale₀‖ over all conservation laws of a network; 0 under gradient flow.

    `table()` has them one by one. Laws in front of a normalisation hold exactly for ε = 0 only. They are found at the first
    update, in the mode (training or evaluation) that the network then is in.

    Args:
        rates: learning rates η_p by parameter name; 1 where absent.
        sample_input: a batch of inputs, for networks whose input cannot be guessed.
        loss: `cross_entropy` adds the laws of a softmax behind the outputs.
    """

    def __init__(
        self, *, rates: Mapping[str, float] | None = None, sample_input: Tensor | None = None, loss: Loss | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rates = dict(rates or {})
        self._sample = sample_input
        self._loss: Loss | None = loss
        self._laws: Laws | None = None

    @property
    def laws(self) -> Laws:
        """What was found at the first update."""
        if self._laws is None:
            raise UsageError(f"`{type(self).__name__}` has seen no network yet: call `update(network)` at initialisation first")
        return self._laws

    def find(self, network: nn.Module) -> Laws:
        """Find the laws of `network` in its present mode; the first update does, where this was not called before.

        Raises:
            NotApplicable: it conserves nothing.
        """
        found = find_laws(network, self._sample, loss=self._loss)
        if not found:
            raise NotApplicable(found.why)
        self._laws = found
        return found

    def observe(self, network: nn.Module) -> Tensor:
        """All values, then ‖scale‖ of each law, in one float64 vector."""
        laws, named, rates = self._laws or self.find(network), _detached(network), _rates(network, self.rates)
        scales = [law.scale(named, rates).norm() for law in laws]
        return torch.cat([*(law.value(named, rates).flatten() for law in laws), torch.stack(scales)])

    def _norms(self, values: Tensor) -> Tensor:
        """The norm of each law's part of the observed values."""
        return torch.stack([part.norm() for part in values[: -len(self.laws)].split([law.size for law in self.laws])])

    def _drifts(self, reference: Tensor, current: Tensor) -> Tensor:
        moved = self._norms(current - reference)
        return torch.where(moved == 0, 0.0, moved / reference[-len(self.laws) :])

    def compare(self, reference: Tensor, current: Tensor) -> Tensor:
        return self._drifts(reference, current).max()

    def table(self) -> pd.DataFrame:
        """A row per law: name, kind, count of conserved numbers, norm of their initial value, drift.

        Raises:
            UsageError: nothing has been observed yet.
        """
        self.require_seen()
        columns = {
            "name": [law.name for law in self.laws],
            "kind": [law.kind for law in self.laws],
            "count": [law.count for law in self.laws],
            "initial": self._norms(self.reference).tolist(),
            "drift": self._drifts(self.reference, self.current).tolist(),
        }
        return pd.DataFrame(columns)
