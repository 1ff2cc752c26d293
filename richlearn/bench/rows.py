"""Rows of a leaderboard, as the schemes and variants of a protocol span them."""

from dataclasses import dataclass, field
from typing import Any

from richlearn.bench._sections import VARIANT, Scheme, Variant
from richlearn.bench._yaml import Key
from richlearn.bench.content import canonical_json


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class SchemeRow:
    """A scheme with its arguments: with the rest of the protocol, a row of the leaderboard."""

    name: str
    parameters: dict[str, Any]
    path: Key = field(default=(), compare=False)  # of the scheme in the protocol, for messages

    @property
    def label(self) -> str:
        """The row as it is shown, such as `unbalanced(tau=0.1, delta=1)`."""
        inside = ", ".join(f"{name}={_shown(value)}" for name, value in self.parameters.items())
        return f"{self.name}({inside})" if inside else self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """The scheme's own arguments: the parameters without the name of the variant."""
        return {name: value for name, value in self.parameters.items() if name != VARIANT}

    @property
    def identity(self) -> str:
        """What tells rows apart: labels of nearly equal parameters look alike."""
        return canonical_json([self.name, self.parameters])


def scheme_rows(schemes: tuple[Scheme, ...], variants: tuple[Variant, ...]) -> list[SchemeRow]:
    """All rows in the protocol's order, grids expanded."""
    named = [{VARIANT: variant.name} for variant in variants] or [{}]
    return [
        SchemeRow(scheme.name, {**variant, **parameters}, ("schemes", index))
        for variant in named
        for index, scheme in enumerate(schemes)
        for parameters in scheme.settings()
    ]


def matching(rows: list[SchemeRow], name: str) -> list[SchemeRow]:
    """The rows that a scheme's name or a label names."""
    return [row for row in rows if name in (row.name, row.label)]
