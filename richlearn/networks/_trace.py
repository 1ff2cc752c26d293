"""In what order a network uses its modules."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Trace:
    """`calls`: module names in order of call."""

    calls: tuple[str, ...]


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and the random stream as it was: a trace leaves nothing behind."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def as_input(network: nn.Module, sample: Tensor) -> Tensor:
    """`sample` on the network's device, and in its dtype unless it holds indices."""
    reference = next(network.parameters())
    return sample.to(reference.device, reference.dtype if sample.is_floating_point() else sample.dtype)


def trace(network: nn.Module, sample: Tensor) -> Trace:
    """Call the network once and note which modules it uses."""
    sample = as_input(network, sample)
    calls: list[str] = []
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda _m, _a, name=name: calls.append(name)))
    try:
        with undisturbed(network):
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return Trace(tuple(calls))


def guess(network: nn.Module) -> Trace:
    """The trace without a sample: on zeros if the first layer is an `nn.Linear`, else by order of registration."""
    names = [name for name, _ in network.named_modules()]
    owners = (module for module in network.modules() if any(p.ndim > 1 for p in module.parameters(recurse=False)))
    if isinstance(first := next(owners, None), nn.Linear):
        try:
            return trace(network, torch.zeros(1, first.in_features))
        except Exception:  # the network takes another kind of input: the order of registration serves
            return Trace(tuple(names))
    return Trace(tuple(names))
