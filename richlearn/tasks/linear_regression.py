"""Linear regression, the task of the paper's exact solutions."""

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from richlearn.errors import ParameterError, nearest
from richlearn.seeds import generator
from richlearn.tasks.base import Split, Task, require_positive
from richlearn.tasks.losses import HALF_SSE

Design = Literal["gaussian", "whitened", "low_rank", "given"]


def _orthonormal(rows: int, columns: int, source: Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=source, dtype=torch.float64)).Q


def _matrix(name: str, values: list, shape: tuple[int | None, int]) -> Tensor:
    """Nested lists as a float64 matrix; a flat list is a column where one is asked for, else a row."""
    try:
        matrix = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"`{name}` must be rows of numbers of one length, got {values!r}") from error
    matrix = matrix.reshape(-1, shape[1]) if matrix.ndim == 1 and matrix.numel() % shape[1] == 0 else matrix
    if (
        matrix.ndim != 2
        or not matrix.isfinite().all()
        or any(want not in (None, got) for want, got in zip(shape, matrix.shape, strict=True))
    ):
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ParameterError(f"`{name}` must be finite numbers of shape ({wanted}), got {values!r}")
    return matrix


class LinearRegression(Task):
    """Targets Y = Xβ* with ½·Σ_i ‖f(x_i) − y_i‖² as loss (Kunin et al. 2024, section 3 and figures 2-4).

    Args:
        dimension: d of the inputs.
        outputs: c of the targets.
        train_size: n; at least d where `design` is "whitened".
        test_size: fresh Gaussian inputs that the test loss is taken on.
        design: "gaussian" (independent N(0, 1/n) entries), "whitened" (XᵀX = I), "low_rank" (XᵀX a projector of rank `rank`), or
            "given": the training inputs are `inputs`.
        rank: of the design, only for "low_rank".
        beta_norm: Frobenius norm of β*, where it is drawn.
        beta_star: β* itself, (d,) or (d, c), instead of one drawn.
        inputs: rows of X, (n, d), only for "given"; `train_size` is then their number.

    Raises:
        ParameterError: an unknown design, sizes that it cannot have, or given numbers of another shape.
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
        beta_star: list | None = None,
        inputs: list | None = None,
        **common,
    ) -> None:
        super().__init__(**common)
        if (design == "given") != (inputs is not None):
            raise ParameterError("`inputs` and `design` given belong together: one stands without the other")
        self._inputs = None if inputs is None else _matrix("inputs", inputs, (None, dimension))
        train_size = train_size if self._inputs is None else len(self._inputs)
        self._beta_star = None if beta_star is None else _matrix("beta_star", beta_star, (dimension, outputs))
        require_positive(dimension=dimension, outputs=outputs, train_size=train_size, test_size=test_size, rank=rank)
        if design not in get_args(Design):
            raise ParameterError(f"unknown `design` `{design}`; {nearest(str(design), get_args(Design))}")
        if beta_norm <= 0:
            raise ParameterError(f"`beta_norm` must be positive, got {beta_norm}")
        given = 0 if self._inputs is None else int(torch.linalg.matrix_rank(self._inputs))
        self.rank = {"whitened": dimension, "low_rank": rank, "gaussian": min(dimension, train_size), "given": given}[design]
        if self.rank > min(dimension, train_size):
            raise ParameterError(
                f"`design` {design} of rank {self.rank} needs `dimension` and `train_size` ≥ {self.rank}, got {dimension} and {train_size}"
            )
        self.in_features, self.out_features = dimension, outputs
        self.train_size, self.test_size, self.design, self.beta_norm = train_size, test_size, design, beta_norm

    def beta_star(self) -> Tensor:
        """The target map β*, shape (d, c), float64, uniform in direction."""
        if self._beta_star is not None:
            return self._beta_star
        drawn = torch.randn(self.in_features, self.out_features, generator=generator(self.seed, "task", "beta"), dtype=torch.float64)
        return self.beta_norm * drawn / drawn.norm()

    def _design(self) -> Tensor:
        if self._inputs is not None:
            return self._inputs
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
