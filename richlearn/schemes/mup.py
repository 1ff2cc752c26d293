"""Maximal Update Parametrisation."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.networks.structure import Layer
from richlearn.schemes._common import normal, optimizer_name, positive, redraw, separate, structure_of
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers


@final
@dataclass(frozen=True)
class MuP(Scheme):
    """µP relative to a base width, at which it is W ~ N(0, 1/fan_in) with one learning rate for all.

    Yang et al. 2022, "Tensor programs V", arXiv:2203.03466, table 3 (Yang & Hu 2021 for SGD). With r = width/base_width
    of a layer, m its variance × fan_in, and lr, ε the factors on learning rate and Adam's ε:

        |                    | m   | SGD lr | Adam lr | Adam ε |
        | first layer        | 1   | r      | 1       | 1/r    |
        | biases before last | -   | r      | 1       | 1/r    |
        | norms' gains       | -   | r      | 1       | 1/r    |
        | hidden layers      | 1   | 1      | 1/r     | 1/r    |
        | readout            | 1/r | 1/r    | 1/r     | 1      |
        | readout bias       | -   | 1      | 1       | 1      |

    All widths are measured against `base_width`, so a feed-forward layer of four times the width has r = 4 at base width.
    A hidden layer of unlike widths has r_out/r_in under SGD, 1/r_in under Adam, and 1/r_out for ε. ε is not in the
    table: it follows the size of the gradient. Weight decay is multiplied by 1/lr, so that lr·decay stays independent
    of width, as in the authors' package. Biases start at 0, lookup tables at N(0, 1).

    Args:
        base_width: the width at which the learning rate was or would be tuned.

    Raises:
        ParameterError: `base_width` is not positive.
        NotApplicable: first layer and readout are one weight.
    """

    base_width: float = 64

    def __post_init__(self) -> None:
        positive("base_width", self.base_width)

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        adaptive = optimizer_name(optimizer) != "sgd"
        structure = structure_of(network, batch)
        separate(network, structure, "mup")
        redraw(network, generator, lambda shape, source: normal(shape, source) / shape[1:].numel() ** 0.5, structure)
        lr: dict[str, float] = {}
        eps: dict[str, float] = {}
        for layer in structure.layers:
            weight = network.get_parameter(layer.weight)
            inputs, outputs = self._ratios(weight, layer)
            if layer.weight in structure.readout:
                weight.div_(inputs**0.5)
                lr[layer.weight] = 1 / inputs
                continue
            small_gradients = [name for name in (layer.weight, layer.bias) if name is not None]
            lr |= dict.fromkeys(small_gradients, 1.0 if adaptive else outputs)
            eps |= dict.fromkeys(small_gradients, 1 / outputs)
            if layer.weight not in structure.first:
                lr[layer.weight] = 1 / inputs if adaptive else outputs / inputs
        for name, vector in network.named_parameters():
            if vector.ndim == 1 and name not in lr and name not in structure.readout:
                lr[name], eps[name] = 1.0 if adaptive else len(vector) / self.base_width, self.base_width / len(vector)
        return Multipliers(lr, {name: 1 / factor for name, factor in lr.items()}, eps if adaptive else {})

    def _ratios(self, weight: Tensor, layer: Layer) -> tuple[float, float]:
        """Inputs and outputs of the layer in units of the base width; a lookup table's rows are its inputs."""
        outputs = weight.shape[1] if layer.lookup else len(weight)
        if layer.weight.endswith("in_proj_weight"):
            outputs //= 3  # attention packs queries, keys and values
        return weight.shape[1] / self.base_width, outputs / self.base_width
