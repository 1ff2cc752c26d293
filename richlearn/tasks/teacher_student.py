"""A student learns the function of a small two-layer ReLU teacher on the unit sphere."""

import torch
from torch import Generator, Tensor

from richlearn.seeds import generator
from richlearn.tasks.base import Split, Task, require_positive
from richlearn.tasks.losses import MSE


def unit_vectors(count: int, dimension: int, source: Generator) -> Tensor:
    """`count` points drawn uniformly from the unit sphere of R^dimension, shape (count, dimension), float64."""
    return torch.nn.functional.normalize(torch.randn(count, dimension, generator=source, dtype=torch.float64), dim=1)


class TeacherStudent(Task):
    """Labels y = Σ_k a_k·max(w_kᵀx, 0) of a teacher with unit directions w_k and readouts a_k = ±1; x uniform on the unit sphere.

    Kunin et al. 2024, figures 1, 5b and 10 (dimension 100, 3 teacher neurons, 1,000 training and 10,000 test points).

    Args:
        dimension: d of the inputs.
        teacher_width: number of teacher neurons.
        train_size, test_size: numbers of points.

    Raises:
        ParameterError: a size below 1.
    """

    loss = MSE
    out_features = 1

    def __init__(self, *, dimension: int = 100, teacher_width: int = 3, train_size: int = 1000, test_size: int = 10_000, **common) -> None:
        super().__init__(**common)
        require_positive(dimension=dimension, teacher_width=teacher_width, train_size=train_size, test_size=test_size)
        self.in_features, self.teacher_width = dimension, teacher_width
        self.train_size, self.test_size = train_size, test_size

    def teacher(self) -> tuple[Tensor, Tensor]:
        """Directions (teacher_width, d) and readouts (teacher_width,), float64."""
        source = generator(self.seed, "task", "teacher")
        directions = unit_vectors(self.teacher_width, self.in_features, source)
        return directions, 2.0 * torch.randint(2, (self.teacher_width,), generator=source).double() - 1

    def _labelled(self, part: str, size: int) -> Split:
        directions, readouts = self.teacher()
        inputs = unit_vectors(size, self.in_features, generator(self.seed, "task", part))
        return Split(inputs, (inputs @ directions.T).relu() @ readouts[:, None])

    def draw(self) -> tuple[Split, Split]:
        return self._labelled("train", self.train_size), self._labelled("test", self.test_size)
