"""The production rules of the random hierarchy model, and the strings they derive; pure functions of whole numbers and tensors."""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from richlearn.errors import ParameterError
from richlearn.tasks.base import require_positive

_LIMIT = 10**7  # tuples of a level, which are all listed to be shuffled, and symbols of a string
_EXPONENT = 63  # no power of 2 or more with such an exponent fits an int64


def _exceeds(base: int, exponent: int, limit: int) -> bool:
    """Whether base^exponent > limit ≤ 2^63, at no cost for exponents whose power has millions of digits."""
    return base ** min(exponent, _EXPONENT) > limit


@dataclass(frozen=True)
class Hierarchy:
    """Sizes of a random hierarchy model: n_c classes, v symbols, m rules for each, s symbols in a tuple, L levels.

    Petrini, Cagnetta et al. 2023, "How deep neural networks learn compositional data: the random hierarchy model".

    Raises:
        ParameterError: a size is not a whole number ≥ 1, the rules are more than there are tuples, or numbers get too large.
    """

    num_features: int
    num_classes: int
    num_synonyms: int
    tuple_size: int
    depth: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool):
                raise ParameterError(f"`{name}` must be a whole number ≥ 1, got {value!r}")
        require_positive(**vars(self))
        self._check_tuples()
        self._check_data()

    def _check_tuples(self) -> None:
        v, m, s = self.num_features, self.num_synonyms, self.tuple_size
        if _exceeds(v, s, _LIMIT):
            raise ParameterError(f"`num_features` ** `tuple_size` must be at most {_LIMIT:,}, got {v} ** {s}: every level lists all tuples")
        if self.num_classes * m > v**s:
            bound = f"{v} ** {s} = {v**s}, the number of tuples"
            raise ParameterError(f"`num_classes` · `num_synonyms` must be at most {bound}, got {self.num_classes} · {m}")
        if self.depth > 1 and m > v ** (s - 1):
            bound = f"`num_features` ** (`tuple_size` − 1) = {v ** (s - 1)} if `depth` > 1"
            raise ParameterError(f"`num_synonyms` must be at most {bound}, got {m}: no two symbols share a tuple")

    def _check_data(self) -> None:
        m, s, depth = self.num_synonyms, self.tuple_size, self.depth
        if _exceeds(s, depth, _LIMIT):
            raise ParameterError(f"`tuple_size` ** `depth` must be at most {_LIMIT:,}, the length of a string, got {s} ** {depth}")
        if _exceeds(m, self.choices, 2**63 - 1) or self.num_data >= 2**63:
            size = f"{self.num_classes}·{m}^{self.choices}"
            raise ParameterError(f"`depth`, `num_synonyms` or `tuple_size` is too large: {size} data have no index below 2^63")

    @property
    def choices(self) -> int:
        """(s^L − 1)/(s − 1) = Σ_{l<L} s^l: the rules that are picked on the way from a class to a string."""
        return sum(self.tuple_size**level for level in range(self.depth))

    @property
    def length(self) -> int:
        """s^L, the number of symbols in a string."""
        return self.tuple_size**self.depth

    @property
    def num_data(self) -> int:
        """P_max = n_c · m^{(s^L − 1)/(s − 1)}."""
        return self.num_classes * self.num_synonyms**self.choices

    def _tuples(self, count: int, source: Random) -> Tensor:
        """The first `count` of all v^s tuples, lexicographic before the shuffle, (count, s)."""
        numbers = list(range(self.num_features**self.tuple_size))
        source.shuffle(numbers)
        weights = self.num_features ** torch.arange(self.tuple_size - 1, -1, -1)
        return torch.tensor(numbers[:count])[:, None] // weights % self.num_features

    def draw_rules(self, seed: int, hash_order: bool = False) -> list[Tensor]:
        """The rules of every level, top first: rules[l][symbol, choice] is an s-tuple of the level below.

        The symbols present at level l, in the order of their numbers, own m consecutive tuples each of a shuffled list of all; a
        symbol that is absent, because no rule above produces it, has none. Every shuffle continues one stream of `Random(seed)`.

        Args:
            seed: of the stream.
            hash_order: present symbols come in the order of Python's `set` instead, as in the reference code; the two orders
                differ only where v > 8 and few symbols are present.

        Returns:
            L tensors of shapes (n_c, m, s), (v, m, s), …, (v, m, s); rows of absent symbols are −1.
        """
        source, found, rules = Random(int(seed)), list(range(self.num_classes)), []
        for level in range(self.depth):
            # A set's order depends on that of insertion, so `found` keeps the order in which the strings of all data show them.
            present = list(set(found)) if hash_order else sorted(found)
            drawn = self._tuples(len(present) * self.num_synonyms, source)
            symbols = self.num_features if level else self.num_classes
            table = torch.full((symbols, self.num_synonyms, self.tuple_size), -1)
            table[present] = drawn.view(len(present), self.num_synonyms, self.tuple_size)
            rules.append(table)
            found = list(dict.fromkeys(table[found].flatten().tolist()))
        return rules

    def _digits(self, remainder: Tensor) -> Tensor:
        """All base-m digits of `remainder`, the most significant first, (choices, n)."""
        digits = remainder.new_empty(self.choices, len(remainder))
        for place in range(self.choices - 1, -1, -1):
            digits[place] = remainder % self.num_synonyms
            remainder = remainder // self.num_synonyms
        return digits

    def decode(self, indices: Tensor, rules: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The strings (n, s^L) and classes (n,) of the data `indices` (n,), int64 in [0, P_max).

        The quotient by P_max/n_c is the class; the base-m digits of the remainder pick the rules, level by level from the top and
        from left to right within a level.
        """
        per_class = self.num_data // self.num_classes
        labels = indices // per_class
        digits = self._digits(indices % per_class).T.split([self.tuple_size**level for level in range(self.depth)], dim=1)
        symbols = labels[:, None]
        for table, choice in zip(rules, digits, strict=True):
            symbols = table[symbols, choice].flatten(1)
        return symbols, labels
