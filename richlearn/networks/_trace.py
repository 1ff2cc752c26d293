"""In what order a network uses its modules, and whether it is a plain chain of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Trace:
    """`calls`: module names in order of call. `chain`: the leaf modules if f is their plain composition, else empty."""

    calls: tuple[str, ...]
    chain: tuple[str, ...]


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


def _composition(links: list[tuple[str, tuple, object]], sample: Tensor, output: object) -> tuple[str, ...]:
    """The names of `links` (name, arguments, result) if each takes exactly what the one before it returned."""
    carried: object = sample
    for _, arguments, result in links:
        if len(arguments) != 1 or arguments[0] is not carried:
            return ()
        carried = result
    return tuple(name for name, _, _ in links) if carried is output else ()


def trace(network: nn.Module, sample: Tensor) -> Trace:
    """Call the network once and note which modules it uses."""
    sample = as_input(network, sample)
    calls: list[str] = []
    links: list[tuple[str, tuple, object]] = []
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda _m, _a, name=name: calls.append(name)))
        if not any(True for _ in module.children()):
            hooks.append(module.register_forward_hook(lambda _m, args, out, name=name: links.append((name, args, out))))
    try:
        with undisturbed(network):
            output = network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return Trace(tuple(calls), _composition(links, sample, output))


def guess(network: nn.Module) -> Trace:
    """The trace without a sample: on zeros if the first layer is an `nn.Linear`, else by order of registration."""
    names = [name for name, _ in network.named_modules()]
    owners = (module for module in network.modules() if any(p.ndim > 1 for p in module.parameters(recurse=False)))
    if isinstance(first := next(owners, None), nn.Linear):
        try:
            return trace(network, torch.zeros(1, first.in_features))
        except Exception:  # the network takes another kind of input: the order of registration serves
            return Trace(tuple(names), ())
    sequential = all(isinstance(m, nn.Sequential) or not list(m.children()) for m in network.modules())
    leaves = (name for name, module in network.named_modules() if not isinstance(module, nn.Sequential))
    return Trace(tuple(names), tuple(leaves) if sequential else ())
