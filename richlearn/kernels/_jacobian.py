"""Jacobians of the parameters that the engine does not cover: exact, one sample's forward pass at a time."""

import torch
from torch import Tensor, nn

from richlearn.kernels._passes import State, called, checked_gradients


def jacobians(network: nn.Module, state: State, x: Tensor, cotangents: Tensor) -> dict[str, Tensor]:
    """Cotangents times ∂f(x_i)/∂θ_p for each leaf of `state`, (n, m, element); cotangents (m, c).

    Plain autograd, so that whatever trains also has a kernel: in-place operations, checkpoints, networks that
    differentiate themselves, operations without a batching rule.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in state.leaves}
    for index in range(len(x)):
        with torch.enable_grad():
            output = called(network, state, x[index : index + 1]).flatten()  # type: ignore[union-attr]
        leaves = list(state.leaves.values())
        rows = checked_gradients(output, leaves, cotangents.to(output))[0] if output.requires_grad else [None] * len(found)
        for (name, leaf), row in zip(state.leaves.items(), rows, strict=True):
            found[name].append(leaf.new_zeros(len(cotangents), leaf.numel()) if row is None else row.reshape(len(cotangents), -1))
    return {name: torch.stack(rows) for name, rows in found.items()}
