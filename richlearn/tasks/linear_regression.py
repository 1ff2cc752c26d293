"""Linear regression, the task of the paper's exact solutions."""

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from richlearn.errors import ParameterError, nearest
from richlearn.seeds import generator
from richlearn.tasks.base import Split, Task, require_positive
from richlearn.tasks.losses import HALF_SSE

Design = Literal["gaussian", "whitened", "low_rank"]


def _orthonormal(rows: int, columns: int, source: Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=source, dtype=torch.float64)).Q


class LinearRegression(Task):
    """Targets Y = Xβ* with ½·Σ_i ‖f(x_i) − y_i‖² as loss (Kunin et al. 2024, section 3 and figures 2-4).

    Args:
        dimension: d of the inputs.
        outputs: c of the targets.
        train_size: n; at least d where `design` is "whitened".
        test_size: fresh Gaussian inputs that the test loss is taken on.
        design: "gaussian" (independent N(0, 1/n) entries), "whitened" (XᵀX = I) or "low_rank" (XᵀX a projector of rank `rank`).
        rank: of the design, only for "low_rank".
        beta_norm: Frobenius norm of β*.

    Raises:
        ParameterError: an unknown design, or sizes that it cannot have.
    """

    loss = HALF_SSE

    def __init__(
        self,
        *,
        dimension: int = 2,
        outputs: int = 1,
        train_size: int = 2,
        test_size: int = 1000,
        design: Design = "whitened",
        rank: int = 1,
        beta_norm: float = 1.0,
        **common,
    ) -> None:
        super().__init__(**common)
        require_positive(dimension=dimension, outputs=outputs, train_size=train_size, test_size=test_size, rank=rank)
        if design not in get_args(Design):
            raise ParameterError(f"unknown `design` `{design}`; {nearest(str(design), get_args(Design))}")
        if beta_norm <= 0:
            raise ParameterError(f"`beta_norm` must be positive, got {beta_norm}")
        self.rank = {"whitened": dimension, "low_rank": rank, "gaussian": min(dimension, train_size)}[design]
        if self.rank > min(dimension, train_size):
            raise ParameterError(
                f"`design` {design} of rank {self.rank} needs `dimension` and `train_size` ≥ {self.rank}, got {dimension} and {train_size}"
            )
        self.in_features, self.out_features = dimension, outputs
        self.train_size, self.test_size, self.design, self.beta_norm = train_size, test_size, design, beta_norm

    def beta_star(self) -> Tensor:
        """The target map β*, shape (d, c), float64, uniform in direction."""
        drawn = torch.randn(self.in_features, self.out_features, generator=generator(self.seed, "task", "beta"), dtype=torch.float64)
        return self.beta_norm * drawn / drawn.norm()

    def _design(self) -> Tensor:
        source = generator(self.seed, "task", "train")
        if self.design == "gaussian":
            return torch.randn(self.train_size, self.in_features, generator=source, dtype=torch.float64) / self.train_size**0.5
        return _orthonormal(self.train_size, self.rank, source) @ _orthonormal(self.in_features, self.rank, source).T

    def draw(self) -> tuple[Split, Split]:
        train = self._design()
        test = torch.randn(self.test_size, self.in_features, generator=generator(self.seed, "task", "test"), dtype=torch.float64)
        test /= self.test_size**0.5
        beta = self.beta_star()
        return Split(train, train @ beta), Split(test, test @ beta)
