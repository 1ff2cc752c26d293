"""Convolutions whose results only a maximum pooling sees, perhaps behind a ReLU: their gradient is 0 at all places but the winners.

The gradient at the pooling's result has a fraction of the elements, and with the winners' patches it gives the parameters' gradients.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from richlearn.kernels._passes import nodes


@dataclass(frozen=True)
class Pooling:
    """What follows a convolution.

    Attributes:
        edge: the pooling's result.
        winners: (n, channel, place) positions of the convolution's result that the pooling took.
        passed: (n, channel, place) whether the ReLU between them let the winner through; None without one.
    """

    edge: GradientEdge
    winners: Tensor
    passed: Tensor | None

    def at_winners(self, gradient: Tensor) -> Tensor:
        """The convolution's gradient at the winners, (n, m, channel, place), from that of the pooling's result (m, n, channel, …)."""
        flat = gradient.flatten(3).transpose(0, 1)
        return flat if self.passed is None else flat * self.passed[:, None]

    def of_winners(self, windows: Tensor) -> Tensor:
        """What the convolution saw at the winners, (n, channel, place, k), among all that it saw, (n, height, width, k)."""
        rows = windows.flatten(0, 2)
        first = torch.arange(0, len(rows), windows.shape[1] * windows.shape[2], device=rows.device)
        return F.embedding(self.winners + first[:, None, None], rows)  # faster than indexing


def poolings(output: Tensor, edges: Mapping[int, GradientEdge]) -> dict[int, Pooling]:
    """The poolings that alone see one of the results `edges`, by its number."""
    if not edges:
        return {}
    users: dict[tuple[Node, int], list[Node]] = defaultdict(list)
    for node in nodes(output):
        for following, place in node.next_functions:
            if following is not None:
                users[following, place].append(node)
    found = {number: _pooling(users, edge) for number, edge in edges.items()}
    return {number: pooling for number, pooling in found.items() if pooling}


def _pooling(users: Mapping[tuple[Node, int], list[Node]], edge: GradientEdge) -> Pooling | None:
    seen_by, passed = users.get((edge.node, edge.output_nr), []), None
    if len(seen_by) == 1 and seen_by[0].name() == "ReluBackward0":
        passed, seen_by = seen_by[0]._saved_result > 0, users.get((seen_by[0], 0), [])  # pyright: ignore[reportAttributeAccessIssue]
    if len(seen_by) != 1 or seen_by[0].name() != "MaxPool2DWithIndicesBackward0":
        return None
    indices = seen_by[0]._saved_result1  # pyright: ignore[reportAttributeAccessIssue]
    if indices.ndim != 4:  # of one sample, or of sequences as if they were an image
        return None
    winners = indices.flatten(2)
    return Pooling(GradientEdge(seen_by[0], 0), winners, None if passed is None else passed.flatten(2).gather(2, winners))
