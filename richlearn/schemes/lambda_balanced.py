"""λ-balanced initialisation of two-layer networks."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from richlearn.errors import NotApplicable
from richlearn.networks.structure import Pair
from richlearn.schemes._common import finite, only_pair, structure_of, zero
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.orthogonal import orthogonal
from richlearn.schemes.standard import Standard


def _factors(product: Tensor, lam: float, units: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A (h, c) and W (h, d) with AAᵀ − WWᵀ = λI and AᵀW = `product` (c, d), as far as its rank fits into h.

    With product = Q diag(p) Vᵀ and a random rotation R of the units: A = R diag(t) Qᵀ, W = R diag(s) Vᵀ, where ts = p and
    t² − s² = λ; the larger of t², s² is |λ|/2 + sqrt(λ²/4 + p²).
    """
    q, p, vt = torch.linalg.svd(product)
    p = nn.functional.pad(p, (0, max(0, units - len(p))))[:units]
    larger = (abs(lam) / 2 + (lam**2 / 4 + p**2).sqrt()).sqrt()
    smaller = torch.where(larger > 0, p / larger.clamp_min(torch.finfo(p.dtype).tiny), 0.0)
    t, s = (larger, smaller) if lam >= 0 else (smaller, larger)
    rotation = orthogonal(torch.Size((units, units)), generator)
    outputs, inputs = min(units, len(q)), min(units, len(vt))
    return (rotation[:, :outputs] * t[:outputs]) @ q.T[:outputs], (rotation[:, :inputs] * s[:inputs]) @ vt[:inputs]


@final
@dataclass(frozen=True)
class LambdaBalanced(Scheme):
    """Two-layer with Δ = AAᵀ − WWᵀ = λI_h, A ∈ R^{h×c}, W ∈ R^{h×d}; biases 0.

    Dominé et al. 2024, arXiv:2409.14623, definition of λ-balanced. The product AᵀW is the standard initialisation's (its
    best approximation of rank h), so that λ alone changes; a linear network keeps its function. Piecewise-linear
    networks get the same matrices, but at λ = 0 only where h ≤ min(c, d): beyond, A and W have less than h dimensions,
    with one output all units are collinear, and in exact arithmetic such units stay so for ever: what a run then finds
    is decided by rounding.

    Raises:
        ParameterError: λ is not finite.
        NotApplicable: h > c for λ > 0, h > d for λ < 0, h > min(c, d) for λ = 0 unless the network is linear; not two
            weight layers, or not positively homogeneous.
    """

    lam: float = 0.0

    def __post_init__(self) -> None:
        finite("lam", self.lam)

    def _check_shape(self, units: int, inputs: int, outputs: int, linear: bool) -> None:
        if self.lam == 0 and not linear and units > min(inputs, outputs):
            raise NotApplicable(
                f"`lambda_balanced` with λ = 0 needs at most min(c, d) hidden units unless the network is linear: beyond, units are "
                f"linearly dependent and only rounding parts them; got h = {units} > {min(inputs, outputs)}"
            )
        name, bound = ("outputs c", outputs) if self.lam > 0 else ("inputs d", inputs)
        if self.lam and units > bound:
            sign = ">" if self.lam > 0 else "<"
            raise NotApplicable(
                f"`lambda_balanced` with λ {sign} 0 needs at most as many hidden units h as {name}: Δ = λI has rank h; "
                f"got h = {units} > {bound}"
            )

    @torch.no_grad()
    def apply(self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None) -> Multipliers:
        """See `Scheme.apply`."""
        structure = structure_of(network, batch)
        pair = only_pair(network, structure, "lambda_balanced")
        w, a = self._dense(network, pair)
        linear = not any(isinstance(module, nn.ReLU | nn.LeakyReLU) for module in network.modules())
        self._check_shape(len(w), w.shape[1], len(a), linear)
        Standard().apply(network, generator)
        outgoing, incoming = _factors(a.double().cpu() @ w.double().cpu(), self.lam, len(w), generator)
        w.copy_(incoming)
        a.copy_(outgoing.T)
        zero(network, [*structure.biases, *(name for name in structure.readout if name != pair.outgoing)])
        return Multipliers()

    @staticmethod
    def _dense(network: nn.Module, pair: Pair) -> tuple[Tensor, Tensor]:
        w, a = network.get_parameter(pair.incoming), network.get_parameter(pair.outgoing)
        if w.ndim != 2 or a.shape[1] != len(w):
            names = f"`{pair.incoming}` and `{pair.outgoing}`"
            raise NotApplicable(f"`lambda_balanced` needs two matrices, {names} are convolutional or have positions between them")
        return w, a

    def truths(self) -> Truths:
        """The diagonal of Δ."""
        return Truths(delta=self.lam)
