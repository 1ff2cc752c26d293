"""The conserved quantity of a homogeneous hidden unit."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, from_numpy

from richlearn.theory._arrays import has_tensor


def _tensor(value: Any) -> Tensor | None:
    return value if value is None or isinstance(value, Tensor) else from_numpy(np.array(value, dtype=np.float64))


def _arrays_too(function: Callable) -> Callable:
    """`function`, written for tensors, for NumPy arrays too: it returns an array where it was given no tensor."""

    @functools.wraps(function)
    def wrapped(incoming: Any, outgoing: Any, *, bias: Any = None, **rates: float) -> Any:
        found = function(_tensor(incoming), _tensor(outgoing), bias=_tensor(bias), **rates)
        return found if has_tensor((incoming, outgoing, bias)) else found.numpy()

    return wrapped


def squared_norms(
    incoming: Float[Tensor, "unit *into"], outgoing: Float[Tensor, "out unit *rest"]
) -> tuple[Float[Tensor, " unit"], Float[Tensor, " unit"]]:
    """‖incoming weights‖² and ‖outgoing weights‖² of each unit, shapes (h, …) and (c, h, …) to two (h,), in float64."""
    into = incoming.detach().double().flatten(1).square().sum(1)
    return into, outgoing.detach().double().transpose(0, 1).flatten(1).square().sum(1)


def _bias_part(bias: Tensor, rate_in: float, rate_out: float, rate_bias: float) -> Tensor:
    return rate_out * rate_in / rate_bias * bias.detach().double().square()


@_arrays_too
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
        incoming: weights W into the units, (h, …), a tensor or a NumPy array, as the others.
        outgoing: weights A out of the units, (c, h, …).
        bias: b of the units, (h,); it counts as an incoming weight.
        rate_in, rate_out, rate_bias: learning rates η_w, η_a, η_b of the three.

    Returns:
        δ, shape (h,), float64; a NumPy array if no argument is a tensor.

    >>> import torch
    >>> conserved_quantity(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]]), rate_in=10.0).tolist()
    [15.0]
    """
    into, out = squared_norms(incoming, outgoing)
    delta = rate_in * out - rate_out * into
    return delta if bias is None else delta - _bias_part(bias, rate_in, rate_out, rate_bias)


@_arrays_too
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
