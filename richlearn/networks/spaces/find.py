"""The spaces of hidden units of any network: one forward pass is watched."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

# The imports register what is known of the operations.
from richlearn.networks.spaces import attention, layers, pointwise  # noqa: F401
from richlearn.networks.spaces.ledger import FIXED, Wire
from richlearn.networks.spaces.space import Space
from richlearn.networks.spaces.walk import Stop, Walk, tensors

_SIDES = (*range(1, 65), 96, 128, 224, 256)


@dataclass(frozen=True)
class Spaces:
    """What `find_spaces` saw: the spaces in order of use, and what stopped it before the end (then there are none)."""

    spaces: tuple[Space, ...]
    stopped: str | None = None


def _made_up(network: nn.Module) -> Iterator[Tensor]:
    """Inputs that the network may take, by its first weight layer."""
    owners = (module for module in network.modules() if any(p.ndim > 1 for p in module.parameters(recurse=False)))
    first = next(owners, None)
    if isinstance(first, nn.Linear):
        yield torch.zeros(2, first.in_features)
    elif isinstance(first, nn.Embedding):
        yield from (torch.zeros(2, length, dtype=torch.long) for length in _SIDES[1:33])
    elif isinstance(first, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        yield from (torch.zeros(2, first.in_channels, *[side] * len(first.kernel_size)) for side in _SIDES)


def _results(walk: Walk, output: object, softmax: bool) -> None:
    """The outputs are seen as they are; a softmax behind them does not see what is added to all."""
    for tensor in tensors(output):
        wire = walk.carried(tensor) or FIXED
        walk.spoil(wire, "are the network's output", shift=not softmax or not wire.plain or wire.axis != -1)
        walk.ledger.centre(wire, "softmax", 1, "everywhere")


def _watched(network: nn.Module, sample: Tensor, softmax: bool) -> Spaces:
    parameters = {name: p.detach().clone().requires_grad_(p.is_floating_point()) for name, p in network.named_parameters()}
    buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    reference = next(iter(parameters.values()))
    sample = sample.detach().to(reference.device, reference.dtype if sample.is_floating_point() else sample.dtype)
    walk = Walk(parameters, buffers)
    walk.tag(sample, Wire())
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), walk:
        output = functional_call(network, (parameters, buffers), (sample,))
    _results(walk, output, softmax)
    if trained:  # a network without any gradient is a copy to look at
        frozen = dict.fromkeys(parameters.keys() - trained, "share a frozen weight")
        walk.ledger.unusable.update(frozen)
    return Spaces(walk.ledger.finish())


def find_spaces(network: nn.Module, sample_input: Tensor | None = None, *, loss: Literal["cross_entropy"] | None = None) -> Spaces:
    """The spaces of hidden units of a network in the mode it is in (training or evaluation).

    The network is called once, on `sample_input` or, without one, on zeros of a shape that it takes; nothing of it
    changes. What holds is known for inputs of that shape. Operations that are not known spoil the units they take; a
    decision on values or a tensor of unseen origin ends the search.

    Args:
        network: any module.
        sample_input: a batch of inputs.
        loss: `cross_entropy` if a softmax over the last axis of the outputs (the classes) follows.
    """
    reason = f"it was not called: give `find_laws` a `sample_input`, no input of `{type(network).__name__}` could be guessed"
    for sample in _made_up(network) if sample_input is None else [sample_input]:
        try:
            return _watched(network, sample, loss == "cross_entropy")
        except Stop as stop:
            return Spaces((), str(stop))
        except Exception as error:  # a network may raise anything on an input that is not meant for it
            if sample_input is not None:
                lines = str(error).splitlines()
                reason = f"calling it raised {type(error).__name__}: {lines[0] if lines else ''}"
    return Spaces((), reason)
