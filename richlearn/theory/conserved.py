"""The conserved quantity of a homogeneous hidden unit."""

from jaxtyping import Float
from torch import Tensor


def squared_norms(
    incoming: Float[Tensor, "unit *into"], outgoing: Float[Tensor, "out unit *rest"]
) -> tuple[Float[Tensor, " unit"], Float[Tensor, " unit"]]:
    """‖incoming weights‖² and ‖outgoing weights‖² of each unit, shapes (h, …) and (c, h, …) to two (h,), in float64."""
    into = incoming.detach().double().flatten(1).square().sum(1)
    return into, outgoing.detach().double().transpose(0, 1).flatten(1).square().sum(1)


def _bias_part(bias: Tensor, rate_in: float, rate_out: float, rate_bias: float) -> Tensor:
    return rate_out * rate_in / rate_bias * bias.detach().double().square()


def conserved_quantity(
    incoming: Float[Tensor, "unit *into"],
    outgoing: Float[Tensor, "out unit *rest"],
    *,
    bias: Float[Tensor, " unit"] | None = None,
    rate_in: float = 1.0,
    rate_out: float = 1.0,
    rate_bias: float = 1.0,
) -> Float[Tensor, " unit"]:
    """δ_k = η_w‖out_k‖² − η_a‖in_k‖² − (η_aη_w/η_b) b_k², constant under gradient flow for units homogeneous of degree 1.

    Kunin et al. 2024, section 3; δ > 0 is upstream (the earlier layer learns faster), δ < 0 downstream.

    Args:
        incoming: weights W into the units, (h, …).
        outgoing: weights A out of the units, (c, h, …).
        bias: b of the units, (h,); it counts as an incoming weight.
        rate_in, rate_out, rate_bias: learning rates η_w, η_a, η_b of the three.

    Returns:
        δ, shape (h,), float64.

    >>> import torch
    >>> conserved_quantity(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]]), rate_in=10.0).tolist()
    [15.0]
    """
    into, out = squared_norms(incoming, outgoing)
    delta = rate_in * out - rate_out * into
    return delta if bias is None else delta - _bias_part(bias, rate_in, rate_out, rate_bias)


def unit_scale(
    incoming: Float[Tensor, "unit *into"],
    outgoing: Float[Tensor, "out unit *rest"],
    *,
    bias: Float[Tensor, " unit"] | None = None,
    rate_in: float = 1.0,
    rate_out: float = 1.0,
    rate_bias: float = 1.0,
) -> Float[Tensor, " unit"]:
    """κ_k = η_w‖out_k‖² + η_a‖in_k‖² + (η_aη_w/η_b) b_k² ≥ |δ_k|, shape (h,): the scale against which a drift of δ is read.

    Kunin et al. 2024, section 4; arguments as in `conserved_quantity`.
    """
    into, out = squared_norms(incoming, outgoing)
    scale = rate_in * out + rate_out * into
    return scale if bias is None else scale + _bias_part(bias, rate_in, rate_out, rate_bias)
