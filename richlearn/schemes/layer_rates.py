"""Unbalance by learning rates instead of scales."""

from dataclasses import dataclass, fields
from typing import final

from torch import Generator, Tensor, nn

from richlearn.schemes._common import positive, separate, structure_of
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.standard import Standard


@final
@dataclass(frozen=True)
class LayerRates(Scheme):
    """Standard, with the learning rate × `first`, `hidden` and `readout` in these layers, their biases included.

    δ_k = η_w‖out_k‖² − η_a‖in_k‖² moves with the rates (Kunin et al. 2024, section 2). For a transformer `first` is the
    ratio η_E/η_W of its embeddings (AlquBoj et al. 2025, arXiv:2505.15624). Other parameters (norms) keep factor 1.

    Raises:
        ParameterError: a factor is not positive.
        NotApplicable: first layer and readout are one weight.
    """

    first: float = 1.0
    hidden: float = 1.0
    readout: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            positive(field.name, getattr(self, field.name))

    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        separate(network, structure, "layer_rates")
        Standard().apply(network, generator)
        first_biases = {layer.bias for layer in structure.layers if layer.weight in structure.first}
        rates = dict.fromkeys((*(layer.weight for layer in structure.layers), *structure.biases), self.hidden)
        rates |= {name: self.first for name in (*structure.first, *first_biases) if name is not None}
        rates |= dict.fromkeys(structure.readout, self.readout)
        return Multipliers(lr=rates)

    def truths(self) -> Truths:
        """The function of the standard initialisation."""
        return Truths(same_function_as=Standard())
