"""The two scales of the modular-arithmetic experiments: of the embeddings, and of the logits."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.schemes._common import positive, separate, structure_of
from richlearn.schemes._parametrisation import equivalent_multipliers
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.standard import Standard


@final
@dataclass(frozen=True)
class EmbeddingScale(Scheme):
    """Standard, then the embedding tables (else the first layer's weight) ÷ α, and the logits × τ.

    Kunin et al. 2024, figures 6d and 12. The logits are multiplied as the readout's weight and bias at τ times their size, with
    the multipliers under which they train as if a factor τ followed them; the base rate ÷ τ² is the protocol's
    (`lr_rule: inverse_tau_squared`). Neither scale keeps the function: behind a residual sum attention and normalisation see α.

    Raises:
        ParameterError: α or τ is not positive.
        NotApplicable: first layer and readout are one weight.
    """

    alpha: float = 1.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)
        positive("tau", self.tau)

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        separate(network, structure, "embedding_scale")
        Standard().apply(network, generator)
        for name in structure.first:
            network.get_parameter(name).div_(self.alpha)
        for name in structure.readout:
            network.get_parameter(name).mul_(self.tau)
        return equivalent_multipliers(dict.fromkeys(structure.readout, self.tau), optimizer)
