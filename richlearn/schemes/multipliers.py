"""Per-parameter factors on the optimiser's learning rate, weight decay and ε."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType

from richlearn.errors import ParameterError


def _checked(kind: str, factors: Mapping[str, float]) -> Mapping[str, float]:
    for name, factor in factors.items():
        if not (isfinite(factor) and factor > 0):
            raise ParameterError(f"the {kind} multiplier of `{name}` must be positive and finite, got {factor!r}")
    return MappingProxyType({name: float(factor) for name, factor in factors.items()})


def _product(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: left.get(name, 1.0) * right.get(name, 1.0) for name in {**left, **right}}


@dataclass(frozen=True)
class Multipliers:
    """Factors by parameter name; an absent name means 1. Read-only; `a * b` multiplies name by name.

    >>> (Multipliers(lr={"w": 2.0}) * Multipliers(lr={"w": 3.0, "a": 5.0})).lr["w"]
    6.0

    Raises:
        ParameterError: a factor that is not positive and finite.
    """

    lr: Mapping[str, float] = field(default_factory=dict)
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    eps: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in ("lr", "weight_decay", "eps"):
            object.__setattr__(self, kind, _checked(kind, getattr(self, kind)))

    def __mul__(self, other: "Multipliers") -> "Multipliers":
        return Multipliers(_product(self.lr, other.lr), _product(self.weight_decay, other.weight_decay), _product(self.eps, other.eps))

    def __reduce__(self) -> tuple:
        # a mapping proxy cannot be pickled, and multipliers travel to worker processes
        return Multipliers, (dict(self.lr), dict(self.weight_decay), dict(self.eps))
