"""The train loader of a stack: spans of optimiser updates, cut where something is measured."""

from collections.abc import Iterable, Iterator
from itertools import pairwise


def span_list(steps: int, cuts: Iterable[int], longest: int) -> list[tuple[int, int]]:
    """Spans (start, stop) that cover 0 … steps, cut at every `cuts` and at every multiple of `longest`.

    >>> span_list(10, [0, 3], longest=4)
    [(0, 3), (3, 4), (4, 8), (8, 10)]
    """
    inner = {cut for cut in cuts if 0 < cut < steps} | set(range(longest, steps, longest))
    edges = [0, *sorted(inner), steps]
    return list(pairwise(edges))


class Spans:
    """A loader over spans that Lightning can save and resume in the middle of."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self.spans, self.position = spans, 0

    def __len__(self) -> int:
        # Lightning skips a span on resume if a loader has no length.
        return len(self.spans)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self.position < len(self.spans):
            self.position += 1
            yield self.spans[self.position - 1]
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """How many spans have been handed out."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the spans that had been handed out."""
        self.position = state["position"]
