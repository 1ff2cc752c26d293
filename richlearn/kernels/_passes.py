"""Forward and backward passes that record uses of parameters and leave the network as it was."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, disable_saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from richlearn.errors import ParameterError
from richlearn.kernels._uses import ParameterUses

_CHECKPOINTED = "checkpointing computes parts of the network again while gradients are taken, with other parameters than the kernel's"


@dataclass(frozen=True)
class State:
    """Parameters and buffers for one call: `leaves` require gradients, everything else is constant."""

    leaves: dict[str, Tensor]
    rest: dict[str, Tensor]

    def all(self) -> dict[str, Tensor]:
        """For `functional_call`; buffers are copies, so that a forward pass leaves the network's own alone."""
        return {**self.leaves, **{name: value.clone() if value.numel() else value for name, value in self.rest.items()}}


def state_of(network: nn.Module, names: Set[str], values: Mapping[str, Tensor] | None = None) -> State:
    """Leaves for the parameters `names`, all else detached; `values` replaces the network's own parameters."""
    parameters = {**dict(network.named_parameters()), **(values or {})}
    storages = [value.untyped_storage().data_ptr() for value in parameters.values()]
    shared = len(set(storages)) < len(storages)  # parameters are told apart by their storage
    leaves = {name: (parameters[name].clone() if shared else parameters[name]).detach().requires_grad_() for name in names}
    frozen = {name: value.detach() for name, value in parameters.items() if name not in names}
    return State(leaves, {**frozen, **dict(network.named_buffers())})


def _called(network: nn.Module, state: State, x: Tensor) -> object:
    try:
        return functional_call(network, state.all(), (x.clone(),))
    except RuntimeError as error:
        if _CHECKPOINTED in str(error):
            raise ParameterError(f"`network` uses gradient checkpointing: switch it off, a kernel needs none; {_CHECKPOINTED}") from None
        raise


def call(network: nn.Module, state: State, x: Tensor, uses: ParameterUses) -> Tensor:
    """The outputs (n, c) with the graph that leads to the recorded uses."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), disable_saved_tensors_hooks(_CHECKPOINTED), uses:
        output = _called(network, state, x)
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(x):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"`{type(output).__name__}`"
        raise ParameterError(f"`network` must return one tensor (n, …) for inputs (n, …), got {found} for {len(x)} samples")
    if not output.is_floating_point():
        raise ParameterError(f"`network` must return real numbers, got {output.dtype}")
    with torch.enable_grad():
        return output if output.ndim == 2 else output.reshape(len(output), -1)


def _nodes(output: Tensor) -> Iterator[torch.autograd.graph.Node]:
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
    for node in _nodes(output):
        if node.name() == "CheckpointFunctionBackward":  # reentrant: its parameters are hidden from the graph
            raise ParameterError(f"`network` uses gradient checkpointing: switch it off, a kernel needs none; {_CHECKPOINTED}")
        variable = getattr(node, "variable", None)
        if variable is not None and (name := by_storage.get(variable.untyped_storage().data_ptr())):
            found.add(name)
    return found


def batched(output: Tensor, inputs: Sequence[Tensor] | Sequence[GradientEdge], cotangents: Tensor) -> list[Tensor | None]:
    """Gradients (m, …) of `inputs` for m cotangents; None where the output does not depend on one."""
    reached: list[bool] = []

    def pulled_back(cotangent: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(output, inputs, cotangent, retain_graph=True, allow_unused=True)
        reached[:] = [each is not None for each in found]
        return [each for each in found if each is not None]

    try:  # `is_grads_batched` would loop over the cotangents in most operations
        found = iter(torch.func.vmap(pulled_back)(cotangents))
    except RuntimeError:  # a custom function without a batching rule: one cotangent at a time
        found = map(torch.stack, zip(*map(pulled_back, cotangents), strict=True))
    return [next(found) if each else None for each in reached]


def gradients(output: Tensor, uses: ParameterUses, edges: tuple[int, ...], cotangents: Tensor) -> list[Tensor | None]:
    """Gradients (m, …) of the results `edges` for m cotangents (m, n, c); None where the output does not depend on a result."""
    inputs: list[GradientEdge] = [uses.edges[edge] for edge in edges]
    if len(cotangents) == 1:
        found = torch.autograd.grad(output, inputs, cotangents[0], allow_unused=True)
        return [each if each is None else each[None] for each in found]
    return batched(output, inputs, cotangents)
