"""Jacobians of the parameters that the engine does not cover: exact, one sample's forward pass at a time."""

from collections.abc import Set

import torch
from torch import Tensor, nn

from richlearn.kernels._footprint import counted
from richlearn.kernels._passes import State, called, checked_gradients, state_of


def jacobians(network: nn.Module, state: State, x: Tensor, cotangents: Tensor) -> dict[str, Tensor]:
    """Cotangents times ∂f(x_i)/∂θ_p for each leaf of `state`, (n, m, element); cotangents (m, c).

    Plain autograd, so that whatever trains also has a kernel: in-place operations, checkpoints, networks that
    differentiate themselves, operations without a batching rule.
    """
    found = {name: leaf.new_zeros(len(x), len(cotangents), leaf.numel()) for name, leaf in state.leaves.items()}
    for index in range(len(x)):
        with torch.enable_grad():
            output = called(network, state, x[index : index + 1]).flatten()  # type: ignore[union-attr]
        if not output.requires_grad:
            continue
        rows = checked_gradients(output, list(state.leaves.values()), cotangents.to(output))[0]
        for each, row in zip(found.values(), rows, strict=True):
            if row is not None:
                each[index] = row.flatten(1)
    return found


def bytes_of_one(network: nn.Module, names: Set[str], x: Tensor, cotangents: Tensor) -> tuple[int, int]:
    """Bytes that the Jacobians of the parameters `names` take for one sample, and besides for each cotangent."""
    if not names:
        return 0, 0
    state = state_of(network, names)
    with torch.no_grad():
        one, three = (
            counted(lambda rows=rows: jacobians(network, state, x[:1], cotangents[torch.tensor(rows) % len(cotangents)]))[1]
            for rows in ([0], [0, 1, 2])
        )
    each = max(0, three - one) // 2
    return max(0, one - each), each
