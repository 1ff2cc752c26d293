"""Strings derived from classes by a random hierarchy of production rules: how many are needed to learn the classes?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from richlearn.errors import ParameterError
from richlearn.seeds import generator
from richlearn.tasks._hierarchy import Hierarchy
from richlearn.tasks.base import Split, Task, require_positive
from richlearn.tasks.losses import CROSS_ENTROPY

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_PERMUTED = 50_000_000  # beyond, a permutation of all data costs more than the few of them that are used
_REFERENCE_PERMUTED = 5_000_000  # where the reference code changes its way of sampling
_REFERENCE_SPLIT_SEED = 0  # one split for all seeds


def _distinct(count: int, bound: int, seed: int) -> Tensor:
    """`count` distinct numbers below `bound` in random order; a larger `count` only continues the sequence."""
    drawn = 2 * count
    while True:
        pool = torch.randint(bound, (drawn,), generator=generator(seed, "task", "split"))
        _, first = np.unique(pool.numpy(), return_index=True)
        if len(first) >= count:
            return pool[np.sort(first)[:count]]
        drawn *= 2


def _split(train_size: int, test_size: int, bound: int, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint random numbers below `bound` for training and test; the size of either set leaves the other as it is."""
    if bound <= _PERMUTED:
        order = torch.randperm(bound, generator=generator(seed, "task", "split"))
        return order[:train_size], order[bound - test_size :]
    order = _distinct(2 * max(train_size, test_size), bound, seed)
    return order[0::2][:train_size], order[1::2][:test_size]


def _reference_sequence(count: int, bound: int) -> Tensor:
    """What the reference code draws for `count` data: the training set, then the test set."""
    source = Generator().manual_seed(_REFERENCE_SPLIT_SEED)
    if bound < _REFERENCE_PERMUTED:
        return torch.randperm(bound, generator=source)[:count]
    pool = torch.randint(bound, (2 * count,), generator=source).unique()
    if len(pool) < count:
        raise ParameterError(f"`compatible`: the authors' code finds only {len(pool)} of `train_size` + `test_size` = {count} data")
    return pool[torch.randperm(len(pool), generator=source)[:count]]


class RandomHierarchy(Task):
    """Strings of s^L symbols that the rules of a random hierarchy model derive from n_c classes; the class is the label.

    Every class, and every symbol of the levels below, has m synonymous rules: s-tuples of symbols of the next level, no tuple
    shared by two symbols of a level. There are P_max = n_c · m^{(s^L − 1)/(s − 1)} strings, and a network that finds the synonyms
    needs about n_c · m^L of them. Petrini, Cagnetta et al. 2023; Kunin et al. 2024, figure 6c (the defaults).

    Inputs (n, v·s^L) are one-hot, feature = symbol·s^L + position, not centred; targets (n,) are int64 labels. The rules are those
    of the authors' code (github.com/pcsl-epfl/hierarchy-learning) for the same seed. The split is not: the training set
    is the beginning and the test set the end of a permutation of all data that is drawn for each seed (above 5·10⁷ data: every
    other entry of a random sequence of them). So no string is in both, the size of one set leaves the other as it is, and a
    smaller training set is the beginning of a larger one.

    Args:
        num_features: v, symbols of each level below the classes.
        num_classes: n_c.
        num_synonyms: m, rules of each symbol.
        tuple_size: s, symbols on the right side of a rule.
        depth: L, levels of rules.
        seed: fixes rules and split, and the order of updates as in every task.
        train_size, test_size: numbers of strings, P_max at most in all.
        compatible: take from the authors' code all that the seed fixes there: the training set in its order, and the test set.
            That code cuts one random sequence, the same for all seeds, into training set and then test set (which so depends on
            the training size), and shuffles the training set by the seed. Rules differ only where some symbols of a level are
            absent and v > 8: there that code takes the others in the order of Python's `set`, we by number. Not reproduced:
            its other encodings and its whitening, and the order of its minibatches, which depends on all that was drawn before.

    Raises:
        ParameterError: a size is not a whole number ≥ 1; m is above v^{s−1} (for L > 1) or n_c·m above v^s; P_max has no int64;
            as soon as data are drawn, `train_size` + `test_size` is above P_max (above 5·10⁷ data: either above its half).
    """

    loss = CROSS_ENTROPY

    def __init__(
        self,
        num_features: int = 8,
        num_classes: int = 8,
        num_synonyms: int = 4,
        tuple_size: int = 2,
        depth: int = 3,
        seed: int = 0,
        *,
        train_size: int = 1000,
        test_size: int = 26_214,
        compatible: bool = False,
        **common,
    ) -> None:
        super().__init__(seed=seed, **common)
        require_positive(train_size=train_size, test_size=test_size)
        self.hierarchy = Hierarchy(num_features, num_classes, num_synonyms, tuple_size, depth)
        self.rules = self.hierarchy.draw_rules(seed, hash_order=compatible)
        self.train_size, self.test_size, self.compatible = train_size, test_size, compatible
        self.in_features, self.out_features = num_features * self.hierarchy.length, num_classes

    @property
    def num_data(self) -> int:
        """P_max = n_c · m^{(s^L − 1)/(s − 1)}, the number of strings."""
        return self.hierarchy.num_data

    @property
    def theory_sample_complexity(self) -> int:
        """P* ≈ n_c · m^L up to a constant: the training size at which synonyms can be told (Petrini, Cagnetta et al. 2023)."""
        return self.hierarchy.num_classes * self.hierarchy.num_synonyms**self.hierarchy.depth

    def _checked(self, indices: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        wanted = f"`indices` must be whole numbers in [0, {self.num_data}), shape (n,)"
        try:
            numbers = torch.as_tensor(indices)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ParameterError(f"{wanted}, got {indices!r}") from error
        if numbers.dtype not in _INTEGERS or numbers.dim() != 1:
            raise ParameterError(f"{wanted}, got {numbers.dtype} of shape {tuple(numbers.shape)}")
        numbers = numbers.long()
        outside = numbers[(numbers < 0) | (numbers >= self.num_data)]
        if len(outside):
            raise ParameterError(f"{wanted}, got {int(outside[0])}")
        return numbers

    def decode(self, indices: Tensor | np.ndarray | Sequence[int]) -> tuple[Tensor, Tensor]:
        """The data with the given numbers: strings (n, s^L) of symbols in [0, v) and labels (n,), both int64.

        Args:
            indices: whole numbers in [0, P_max), shape (n,).

        Raises:
            ParameterError: `indices` has another shape, dtype or range.
        """
        numbers = self._checked(indices)
        return self.hierarchy.decode(numbers, [table.to(numbers.device) for table in self.rules])

    def encode(self, strings: Tensor) -> Tensor:
        """One-hot inputs (n, v·s^L) of strings (n, s^L), feature = symbol·s^L + position, in the task's dtype."""
        # Zeros and ones are exact in every dtype, so that float64 first would only cost memory.
        inputs = torch.zeros(len(strings), self.hierarchy.num_features, self.hierarchy.length, dtype=self.dtype, device=strings.device)
        return inputs.scatter_(1, strings[:, None], 1).flatten(1)

    def _check_sizes(self) -> None:
        sizes = f"{self.train_size} and {self.test_size}"
        if self.train_size + self.test_size > self.num_data:
            raise ParameterError(f"`train_size` + `test_size` must be at most P_max = {self.num_data}, got {sizes}")
        if self.num_data > _PERMUTED and 2 * max(self.train_size, self.test_size) > self.num_data:
            raise ParameterError(f"`train_size` and `test_size` must be at most half of P_max = {self.num_data}, got {sizes}")

    def split_indices(self) -> tuple[Tensor, Tensor]:
        """The numbers of the training and of the test data, shapes (train_size,) and (test_size,).

        Raises:
            ParameterError: there are not so many data, or the authors' code would not find as many.
        """
        self._check_sizes()
        if not self.compatible:
            return _split(self.train_size, self.test_size, self.num_data, self.seed)
        train, test = _reference_sequence(self.train_size + self.test_size, self.num_data).split([self.train_size, self.test_size])
        return train[torch.randperm(self.train_size, generator=Generator().manual_seed(self.seed))], test

    def draw(self) -> tuple[Split, Split]:
        def split(indices: Tensor) -> Split:
            strings, labels = self.decode(indices)
            return Split(self.encode(strings), labels)

        train, test = self.split_indices()
        return split(train), split(test)
