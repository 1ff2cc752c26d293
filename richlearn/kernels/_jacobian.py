"""Jacobians of the parameters that the engine does not cover: exact, one sample's forward pass at a time."""

from collections.abc import Set

import torch
from torch import Tensor, nn

from richlearn.kernels._footprint import Footprint
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
    state, peaks = state_of(network, names), []
    for count in (1, 3):
        with torch.no_grad(), Footprint() as held:
            jacobians(network, state, x[:1], cotangents[torch.arange(count) % len(cotangents)])
        peaks.append(held.peak)
    each = max(0, peaks[1] - peaks[0]) // 2
    return max(0, peaks[0] - each), each
