"""One update of a slice as a CUDA graph: a GPU replays it without the many launches that cost more than the arithmetic."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3  # libraries choose their algorithms and workspaces before anything is recorded


class UpdateGraph:
    """`graph(parameters, state, others, count)` does `count` updates by replaying one; the arguments are left alone.

    Args:
        update: `update(k, parameters, state, others)` gives new (parameters, state) of the update k, a 0-d tensor; it must
            do the same operations at every call, without looking at a value.
        parameters, state, others: tensors on one GPU like those that will come.
    """

    def __init__(self, update: Callable, parameters: Sequence[Tensor], state: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        self._update, self._split = update, len(parameters)
        self._changing = [value.clone() for value in (*parameters, *state)]
        self._fixed = [value.clone() for value in others]
        self._k = torch.zeros((), dtype=torch.int64, device=parameters[0].device)
        self.likeness = self.describe([*self._changing, *self._fixed])
        self._graph = self._record()

    @staticmethod
    def describe(values: Sequence[Tensor]) -> tuple:
        """What must be equal for a graph to serve: shapes and dtypes."""
        return tuple((value.shape, value.dtype) for value in values)

    def _step(self) -> None:
        new, new_state = self._update(self._k, self._changing[: self._split], self._changing[self._split :], self._fixed)
        torch._foreach_copy_(self._changing, [*new, *new_state])
        self._k += 1

    def _record(self) -> torch.cuda.CUDAGraph:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._k.zero_()
                self._step()
            self._k.zero_()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph

    def __call__(
        self, parameters: Sequence[Tensor], state: Sequence[Tensor], others: Sequence[Tensor], count: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """New (parameters, state) after `count` updates."""
        torch._foreach_copy_(self._changing, [*parameters, *state])
        torch._foreach_copy_(self._fixed, list(others))
        self._k.zero_()
        for _ in range(count):
            self._graph.replay()
        new = [value.clone() for value in self._changing]
        return new[: self._split], new[self._split :]
