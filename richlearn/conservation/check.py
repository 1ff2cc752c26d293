"""Whether laws hold, at any network and input: the contract of what `find_laws` finds and of what a network declares."""

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from richlearn.conservation.laws import Law

_TOLERANCE = 1e-9


def _exact(network: nn.Module) -> nn.Module:
    """A float64 copy whose normalisations have no ε to speak of (PyTorch refuses 0)."""
    network = copy.deepcopy(network).double()
    for module in network.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = 1e-30  # type: ignore[assignment]
    return network


def _call(network: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, shifted: bool) -> Tensor:
    """The outputs, up to what a softmax does not see if `shifted`; every call draws the same random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = functional_call(network, dict(parameters), (x,))
    return outputs.log_softmax(-1) if shifted else outputs


def _velocity(network: nn.Module, x: Tensor, rates: Mapping[str, float], shifted: bool, generator: Generator) -> dict[str, Tensor]:
    """θ̇_p = −η_p ∂L/∂θ_p for a loss with random derivatives by the outputs."""
    parameters = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    outputs = _call(network, parameters, x, shifted)
    slopes = torch.randn(outputs.shape, dtype=outputs.dtype, generator=generator)
    gradients = torch.autograd.grad(outputs, list(parameters.values()), slopes, allow_unused=True)
    found = zip(parameters.items(), gradients, strict=True)
    return {name: torch.zeros_like(p) if g is None else -rates.get(name, 1.0) * g for (name, p), g in found}


def _speed(law: Law, parameters: dict[str, Tensor], velocity: dict[str, Tensor], rates: Mapping[str, float]) -> float:
    """‖d value/dt‖ relative to ‖scale‖, in the time in which the law's parameters move by their own norm.

    Values are polynomials of degree 1 or 2, of which a central difference gives the exact derivative.
    """
    size, moved = (torch.cat([held[name].flatten() for name in law.parameters]).norm() for held in (parameters, velocity))
    if moved <= _TOLERANCE * torch.cat([speed.flatten() for speed in velocity.values()]).norm():
        return 0.0  # they do not move, but for rounding
    ends = ({name: parameters[name] + sign * size / moved * velocity[name] for name in law.parameters} for sign in (1, -1))
    after, before = (law.value(end, rates) for end in ends)
    return float((after - before).norm() / 2 / law.scale(parameters, rates).norm())


def _findings(law: Law, network: nn.Module, x: Tensor, rates: Mapping[str, float], generator: Generator) -> Iterator[str]:
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    shifted = law.kind == "softmax_shift"
    before = _call(network, parameters, x, shifted)
    after = _call(network, law.transform(parameters, generator), x, shifted)
    error = float((after - before).norm() / (1 + before.norm()))
    if not error < _TOLERANCE:
        yield f"`{law.name}` ({law.kind}): its transformation changes the outputs by {error:.2g} of 1 + their norm"
    speed = _speed(law, parameters, _velocity(network, x, rates, shifted, generator), rates)
    if not speed < _TOLERANCE:
        yield f"`{law.name}` ({law.kind}): gradient flow changes it at a relative speed of {speed:.2g}"


def check(
    network: nn.Module, laws: Sequence[Law], sample_input: Tensor, *, rates: Mapping[str, float] | None = None, seed: int = 0
) -> list[str]:
    """Findings against the laws of a network; empty if they hold.

    In float64, with ε → 0 in all normalisation modules, on `sample_input`: a random finite transformation of each law's
    symmetry leaves the outputs as they are (to 1e-9), and along gradient flow under a random loss, with the given rates,
    the time derivative of its value is 0 (to 1e-9 of its scale, in the time in which its parameters move by their norm).
    Parameters should be generic: at zero weights everything holds.

    Args:
        network: the network, not changed.
        laws: what `find_laws` found, or laws of your own.
        sample_input: a batch of inputs (n, …).
        rates: learning rates η_p by parameter name; 1 where absent.
        seed: of the random transformations and losses.
    """
    exact = _exact(network)
    x = sample_input.double() if sample_input.is_floating_point() else sample_input
    generator = torch.Generator().manual_seed(seed)
    return [finding for law in laws for finding in _findings(law, exact, x, rates or {}, generator)]
