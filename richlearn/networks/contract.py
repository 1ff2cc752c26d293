"""What every network must do to be trained by the suite, checked on the suite's own and on a user's."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from richlearn.errors import RichlearnError
from richlearn.networks.structure import find
from richlearn.seeds import global_stream

SHAPES = ((6, 3), (5, 1))
SAMPLES = 4
Build = Callable[[int, int], nn.Module]


def _build(network: Build, inputs: int, outputs: int, seed: int = 0) -> nn.Module:
    with global_stream(torch.Generator().manual_seed(seed)):
        return network(inputs, outputs)


def _same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(left.parameters(), right.parameters(), strict=True))


def _call(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x)


def _probe(module: nn.Module, inputs: int, outputs: int) -> Tensor:
    """Inputs (n, in_features): normal numbers in the network's dtype, or tokens 0 … out_features + 1 if it says `takes_tokens`."""
    source = torch.Generator().manual_seed(1)
    if getattr(module, "takes_tokens", False):
        return torch.randint(outputs + 2, (SAMPLES, inputs), generator=source)
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    return torch.randn(SAMPLES, inputs, dtype=dtype, generator=source)


def _construction(network: Build, inputs: int, outputs: int) -> Iterator[str]:
    module = _build(network, inputs, outputs)
    if not list(module.parameters()):
        yield "it has no parameters"
    elif not _same(module, _build(network, inputs, outputs)):
        yield "two networks built under one torch seed differ: draw from torch's global stream only"
    elif not all(parameter.requires_grad for parameter in module.parameters()):
        yield "some parameters do not require a gradient"
    else:
        find(module)


def _forward(network: Build, inputs: int, outputs: int) -> Iterator[str]:
    module = _build(network, inputs, outputs)
    x = _probe(module, inputs, outputs)
    first = _call(module, x)
    if first.shape != (SAMPLES, outputs):
        yield f"inputs of shape ({SAMPLES}, {inputs}) must give outputs ({SAMPLES}, {outputs}), got {tuple(first.shape)}"
    if not torch.equal(first, _call(module, x)):
        yield "two calls on the same inputs differ: the forward pass must be deterministic (no dropout, no noise)"


def _float64(network: Build, inputs: int, outputs: int) -> Iterator[str]:
    module = _build(network, inputs, outputs).double()
    y = module(_probe(module, inputs, outputs))
    if y.dtype != torch.float64:
        yield f"in float64 it returns {y.dtype}: create constants in the dtype of the inputs"
    y.square().sum().backward()
    if all(parameter.grad is None for parameter in module.parameters()):
        yield "no parameter gets a gradient"


def _stack(network: Build, inputs: int, outputs: int) -> Iterator[str]:
    members = [_build(network, inputs, outputs, seed).double() for seed in range(3)]
    x = _probe(members[0], inputs, outputs)
    expected = torch.stack([_call(member, x) for member in members])
    state = stack_module_state([_build(network, inputs, outputs, seed).double() for seed in range(3)])
    with torch.no_grad():
        stacked = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(*state)
    if not torch.allclose(stacked, expected, rtol=1e-10, atol=1e-12):
        yield "a stack of three (`torch.func.functional_call` under `vmap`) gives other outputs than one by one"


_CHECKS = {"construction": _construction, "forward pass": _forward, "float64": _float64, "stacking": _stack}


def check(network: Build) -> list[str]:
    """Findings about a network class (or any callable `(in_features, out_features)`); empty when it keeps the contract.

    Built as `network(in_features, out_features)`, deterministic; inputs (n, in_features) → outputs (n, out_features);
    float64 throughout; a finite number of parameters with gradients; the same outputs in a stack as alone. A network with an
    attribute `takes_tokens = True` is given whole numbers 0 … out_features + 1, any other floating-point inputs.
    """
    findings: list[str] = []
    for inputs, outputs in SHAPES:
        for name, run in _CHECKS.items():
            where = f"{name}, in_features={inputs}, out_features={outputs}: "
            try:
                findings += [where + finding for finding in run(network, inputs, outputs)]
            except RichlearnError as error:
                findings.append(f"{where}{error}")
            except Exception as error:  # a user's own code may raise anything
                findings.append(f"{where}{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return findings
