"""Forward and backward passes that record uses of parameters and leave the network as it was."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, disable_saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from richlearn.errors import ParameterError
from richlearn.kernels._layout import close
from richlearn.kernels._uses import ParameterUses

_CHECKPOINTED = "checkpointing computes parts of the network again while gradients are taken, with other parameters than the kernel's"


@dataclass(frozen=True)
class State:
    """Parameters and buffers for one call: gradients are taken of `leaves`, everything else is constant."""

    leaves: dict[str, Tensor]
    rest: dict[str, Tensor]

    def all(self) -> dict[str, Tensor]:
        """For `functional_call`; buffers are copies, so that a forward pass leaves the network's own alone."""
        return {**self.leaves, **{name: value.clone() if value.numel() else value for name, value in self.rest.items()}}


def state_of(network: nn.Module, names: Set[str], values: Mapping[str, Tensor] | None = None) -> State:
    """Leaves for the parameters `names`, all else detached; `values` replaces the network's own parameters and buffers.

    Without any leaf the parameters require gradients all the same: the network may differentiate itself by what depends on them.
    """
    values = values or {}
    parameters = {name: values.get(name, p) for name, p in network.named_parameters()}
    buffers = {name: values.get(name, buffer) for name, buffer in network.named_buffers()}
    storages = [value.untyped_storage().data_ptr() for value in parameters.values()]
    copied = len(set(storages)) < len(storages)  # parameters are told apart by their storage
    copied |= any(value.is_inference() for value in parameters.values())  # of which no gradient can be taken
    leaves = {name: (parameters[name].clone() if copied else parameters[name]).detach().requires_grad_() for name in names}
    frozen = {name: (value.clone() if copied else value).detach() for name, value in parameters.items() if name not in names}
    for value in frozen.values():
        value.requires_grad_(not names and value.is_floating_point())
    return State(leaves, {**frozen, **buffers})


def _as_written(network: nn.Module) -> AbstractContextManager:
    """Compiled modules run as they were written, operation by operation; there are none where nothing has loaded the compiler."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    kind = torch._dynamo.OptimizedModule
    compiled = any(isinstance(module, kind) or module._compiled_call_impl is not None for module in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def called(network: nn.Module, state: State, x: Tensor) -> object:
    """What the network returns for a copy of `x`.

    Raises:
        ParameterError: gradient checkpointing where the graph's tensors must be its own.
    """
    try:
        with _as_written(network):
            return functional_call(network, state.all(), (x.clone(),))
    except RuntimeError as error:
        if _CHECKPOINTED in str(error):
            raise ParameterError(f"`network` uses gradient checkpointing: switch it off, a kernel needs none; {_CHECKPOINTED}") from None
        raise


def call(network: nn.Module, state: State, x: Tensor, uses: ParameterUses) -> Tensor:
    """The outputs (n, c) with the graph that leads to the recorded uses."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), disable_saved_tensors_hooks(_CHECKPOINTED), uses:
        output = called(network, state, x)
    if uses.overwritten:
        raise ParameterError(
            f"`{type(network).__name__}` overwrites a layer's input in place before its gradient is taken: it cannot be trained"
        )
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(x):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"`{type(output).__name__}`"
        raise ParameterError(f"`network` must return one tensor (n, …) for inputs (n, …), got {found} for {len(x)} samples")
    if not output.is_floating_point():
        raise ParameterError(f"`network` must return real numbers, got {output.dtype}")
    if not output[0].numel():
        raise ParameterError(f"`network` must return at least one number for each sample, got shape {tuple(output.shape)}")
    with torch.enable_grad():
        return output if output.ndim == 2 else output.reshape(len(output), -1)


def nodes(output: Tensor) -> Iterator[Node]:
    """Each node of the graph that leads to `output`, once."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def attached(output: Tensor, leaves: Mapping[str, Tensor]) -> set[str]:
    """Names of the leaves that the graph of `output` still reaches.

    Raises:
        ParameterError: reentrant checkpointing.
    """
    by_storage = {value.untyped_storage().data_ptr(): name for name, value in leaves.items() if value.numel()}
    found = set()
    for node in nodes(output):
        if node.name() == "CheckpointFunctionBackward":  # reentrant: its parameters are hidden from the graph
            raise ParameterError(f"`network` uses gradient checkpointing: switch it off, a kernel needs none; {_CHECKPOINTED}")
        variable = getattr(node, "variable", None)
        if variable is not None and (name := by_storage.get(variable.untyped_storage().data_ptr())):
            found.add(name)
    return found


Inputs = Sequence[Tensor] | Sequence[GradientEdge]
Gradients = list[Tensor | None]  # None where the output does not depend on an input


def _at_once(output: Tensor, inputs: Inputs, cotangents: Tensor) -> Gradients:
    """Gradients (m, …) of `inputs` for m cotangents, by `vmap`: `is_grads_batched` loops over them in a convolution, norm or softmax."""
    reached: list[bool] = []

    def pulled_back(cotangent: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(output, inputs, cotangent, retain_graph=True, allow_unused=True)
        reached[:] = [each is not None for each in found]
        return [each for each in found if each is not None]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # it advises to tell PyTorch's developers
        found = iter(torch.func.vmap(pulled_back)(cotangents))
    return [next(found) if each else None for each in reached]


def _one_by_one(output: Tensor, inputs: Inputs, cotangents: Tensor) -> Gradients:
    """The same, one cotangent at a time: right for whatever can be trained."""
    rows = [torch.autograd.grad(output, inputs, each, retain_graph=True, allow_unused=True) for each in cotangents]
    return [_stacked(column) for column in zip(*rows, strict=True)]


def _stacked(column: Sequence[Tensor | None]) -> Tensor | None:
    like = next((each for each in column if each is not None), None)
    return None if like is None else torch.stack([torch.zeros_like(like) if each is None else each for each in column])


def _agree(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return close(first[-1], second[-1])


def checked_gradients(output: Tensor, inputs: Inputs, cotangents: Tensor) -> tuple[Gradients, bool]:
    """Gradients (m, …) of `inputs` for m cotangents, and whether they may be taken at once.

    Not every operation can, and of one (`torch.cdist`) all cotangents but the first come out wrong: the last is looked at.
    """
    last = _one_by_one(output, inputs, cotangents[-1:])
    if len(cotangents) == 1:
        return last, True
    with suppress(RuntimeError):
        found = _at_once(output, inputs, cotangents)
        if all(map(_agree, found, last)):
            return found, True
    return _one_by_one(output, inputs, cotangents), False


def gradients(output: Tensor, inputs: Sequence[GradientEdge], cotangents: Tensor, *, at_once: bool) -> Gradients:
    """Gradients (m, …) of `inputs` for m cotangents (m, n, c)."""
    if len(cotangents) == 1:
        found = torch.autograd.grad(output, inputs, cotangents[0], allow_unused=True)
        return [each if each is None else each[None] for each in found]
    return (_at_once if at_once else _one_by_one)(output, inputs, cotangents)
