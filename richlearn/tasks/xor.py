"""Four clusters in the plane that no linear function separates."""

import torch
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.seeds import generator
from richlearn.tasks.base import Split, Task, require_positive
from richlearn.tasks.losses import HALF_SSE

_CORNERS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))


class Xor(Task):
    """Clusters around (±1, ±1)/√2 with label y = sgn(x₁x₂) of their centre, loss ½·Σ_i (f(x_i) − y_i)².

    An XOR-like task as that of Kunin et al. 2024, figure 5a, whose own points are not published.

    Args:
        train_size: n, dealt to the four clusters in turn.
        test_size: points of the test set, dealt likewise.
        noise: standard deviation of a cluster in either direction.

    Raises:
        ParameterError: fewer than four points, or a negative noise.
    """

    loss = HALF_SSE
    in_features, out_features = 2, 1

    def __init__(self, *, train_size: int = 16, test_size: int = 1000, noise: float = 0.1, **common) -> None:
        super().__init__(**common)
        require_positive(train_size=train_size, test_size=test_size)
        if min(train_size, test_size) < len(_CORNERS):
            raise ParameterError(f"`train_size` and `test_size` must be at least 4, a point a cluster, got {train_size} and {test_size}")
        if not noise >= 0:
            raise ParameterError(f"`noise` must be at least 0, got {noise!r}")
        self.train_size, self.test_size, self.noise = train_size, test_size, noise

    def _points(self, count: int, stream: str) -> Split:
        corners = torch.tensor(_CORNERS, dtype=torch.float64)[torch.arange(count) % len(_CORNERS)] / 2**0.5
        spread: Tensor = torch.randn(count, 2, generator=generator(self.seed, "task", stream), dtype=torch.float64)
        return Split(corners + self.noise * spread, corners.prod(1, keepdim=True).sign())

    def draw(self) -> tuple[Split, Split]:
        return self._points(self.train_size, "train"), self._points(self.test_size, "test")
