"""Equations x ∘ y = z modulo a prime, as tokens: the task on which grokking was found."""

from collections.abc import Callable

import torch
from torch import Tensor

from richlearn.errors import ParameterError, nearest
from richlearn.seeds import generator
from richlearn.tasks.base import Split, Task
from richlearn.tasks.losses import CROSS_ENTROPY

Formula = Callable[[Tensor, Tensor], Tensor]
OPERATIONS: dict[str, Formula | None] = {
    "addition": lambda x, y: x + y,
    "subtraction": lambda x, y: x - y,
    "multiplication": lambda x, y: x * y,
    "division": None,  # stated backwards: the equation of x and y is (x·y) / y = x
    "x2_plus_y2": lambda x, y: x**2 + y**2,
    "x3_plus_xy": lambda x, y: x**3 + x * y,
}
_SYMBOLS = {"addition": "+", "subtraction": "−", "multiplication": "×", "division": "/"}


_LARGEST = 10_000  # its 10⁸ equations take some gigabytes


def _is_prime(number: object) -> bool:
    if not isinstance(number, int) or isinstance(number, bool) or not 2 <= number <= _LARGEST:
        return False
    return all(number % factor for factor in range(2, int(number**0.5) + 1))


class ModularArithmetic(Task):
    """Tokens (x, ∘, y, =) with label x ∘ y mod p, cross-entropy over the p answers (Power et al. 2022, section 2).

    Every equation of two numbers below p: p², and of the division x / y those with y ≠ 0, p(p − 1), listed as
    (x·y mod p, /, y, =) with label x. A permutation of the seed's stream "split" deals the first round(`train_share` · all)
    to the training set, the rest to the test set. Tokens 0 … p − 1 are the numbers, p is the operation, p + 1 is "=".

    Args:
        prime: p, 97 in Power et al.
        operation: `addition`, `subtraction`, `multiplication`, `division`, `x2_plus_y2` (x² + y²) or `x3_plus_xy` (x³ + xy).
        train_share: share of the equations in the training set.

    Raises:
        ParameterError: p is no prime, an unknown operation, a share that leaves either part empty.
    """

    loss = CROSS_ENTROPY
    in_features = 4

    def __init__(self, *, prime: int = 97, operation: str = "division", train_share: float = 0.5, **common) -> None:
        super().__init__(**common)
        if not _is_prime(prime):
            raise ParameterError(f"`prime` must be a prime number below {_LARGEST:,}, got {prime!r}")
        if operation not in OPERATIONS:
            raise ParameterError(f"unknown `operation` {operation!r}; {nearest(str(operation), OPERATIONS)}")
        self.prime, self.operation, self.train_share, self.out_features = prime, operation, train_share, prime
        self._check_share()

    @property
    def count(self) -> int:
        """Number of equations."""
        return self.prime * (self.prime - 1 if self.operation == "division" else self.prime)

    @property
    def train_size(self) -> int:
        """Number of training equations."""
        return round(self.train_share * self.count)

    def _check_share(self) -> None:
        share = self.train_share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ParameterError(f"`train_share` must lie strictly between 0 and 1, got {share!r}")
        if not 0 < self.train_size < self.count:
            raise ParameterError(f"`train_share` {share!r} of {self.count} equations leaves the training or the test set empty")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """What each token stands for: p numbers, the operation, "="."""
        return (*map(str, range(self.prime)), _SYMBOLS.get(self.operation, self.operation), "=")

    def equations(self) -> tuple[Tensor, Tensor]:
        """All tokens (count, 4) and labels (count,), in lexicographic order of x, y of the text above."""
        p, formula = self.prime, OPERATIONS[self.operation]
        smallest = 0 if formula else 1
        x, y = torch.cartesian_prod(torch.arange(p), torch.arange(smallest, p)).unbind(1)
        left, label = (x, formula(x, y) % p) if formula else (x * y % p, x)
        tokens = [left, torch.full_like(x, p), y, torch.full_like(x, p + 1)]
        return torch.stack(tokens, dim=1), label

    def draw(self) -> tuple[Split, Split]:
        """See `Task.draw`: the training and the test equations."""
        tokens, labels = self.equations()
        order = torch.randperm(self.count, generator=generator(self.seed, "task", "split"))
        train, test = order[: self.train_size], order[self.train_size :]
        return Split(tokens[train], labels[train]), Split(tokens[test], labels[test])
