"""How a protocol writes many values shortly: seeds as `0-3`, grid axes as `logspace` and `linspace`."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_TRIALS = 1_000_000
MAX_ROWS = MAX_AXIS = 20_000  # of a protocol, of one axis
MAX_SEED = 2**63 - 1
_RANGE = re.compile(r"\s*(\d{1,19})\s*(?:-\s*(\d{1,19})\s*)?")


def shown(count: int) -> str:
    """A count of any size in a few characters."""
    return f"{count:.4g}" if count < 10**300 else "over 1e+300"


def refused(message: str, *path: str | int) -> PydanticCustomError:
    """An error of a protocol's content; `path` leads from the field being checked to the part that is wrong."""
    return PydanticCustomError("richlearn", "{message}", {"message": message, "path": list(path)})


def short(value: Any) -> str:
    """`value` as it is shown in an error, in one line of bounded length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _ranges(text: str) -> list[range]:
    parts = [_RANGE.fullmatch(part) for part in text.split(",")]
    if not all(parts):
        raise refused(f"expected seeds like 0-3 or 0,2,5-7, got {short(text)}")
    spans = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts if part]
    if not all(spans):
        raise refused(f"expected ranges that rise, got {short(text)}")
    return spans


def seeds(value: Any) -> tuple[int, ...]:
    """Distinct seeds from `3`, `"0-3"`, `"0,2,5-7"` or a list, in the order given.

    >>> seeds("0,2,5-7")
    (0, 2, 5, 6, 7)
    """
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, int | str) and not isinstance(item, bool) for item in items):
        raise refused(f"expected seeds like 3, 0-3, 0,2,5-7 or a list of these, got {short(value)}")
    spans = [span for item in items for span in (_ranges(item) if isinstance(item, str) else [range(item, item + 1)])]
    # `len` of a range fails beyond 2⁶³.
    if (count := sum(span.stop - span.start for span in spans)) > MAX_TRIALS:
        raise refused(f"{shown(count)} seeds are more than the {MAX_TRIALS:,} trials a protocol may have")
    found = tuple(seed for span in spans for seed in span)
    if not found:
        raise refused("expected at least one seed, got none")
    if len(set(found)) < len(found):
        raise refused(f"expected distinct seeds, got {short(value)}")
    if min(found) < 0 or max(found) > MAX_SEED:
        raise refused(f"expected seeds from 0 to 2⁶³ − 1, got {short(value)}")
    return found


def seeds_text(values: tuple[int, ...]) -> str:
    """The short form that `seeds` reads back to `values`.

    >>> seeds_text((0, 2, 5, 6, 7))
    '0,2,5-7'
    """
    spans: list[list[int]] = []
    for value in values:
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _rounded(value: float) -> float:
    return float(f"{value:.12g}") + 0.0  # + 0.0: no negative zero


def _linear(low: float, high: float, share: float) -> float:
    return low * (1 - share) + high * share


def _logarithmic(low: float, high: float, share: float) -> float:
    return math.exp(_linear(math.log(low), math.log(high), share))


_SPACES: dict[str, Callable[[float, float, float], float]] = {"linspace": _linear, "logspace": _logarithmic}


def _is_number(value: Any) -> bool:
    """Whether it is finite, and an integer that fits into 64 bits (others overflow in arithmetic and tables)."""
    return (type(value) is int and abs(value) <= MAX_SEED) or (type(value) is float and math.isfinite(value))


def _spaced(space: str, arguments: Any) -> tuple[float, ...]:
    if not isinstance(arguments, list | tuple) or len(arguments) != 3 or not all(map(_is_number, arguments)):
        raise refused(f"expected [first value, last value, count], got {short(arguments)}", space)
    low, high, count = arguments
    if not isinstance(count, int) or count < 2:
        raise refused(f"expected a whole count of at least 2, got {short(count)}", space, 2)
    if count > MAX_AXIS:
        raise refused(f"expected at most {MAX_AXIS:,} values on an axis, got {short(count)}", space, 2)
    if space == "logspace" and min(low, high) <= 0:
        raise refused(f"expected positive ends (the values themselves, not exponents), got {short(arguments)}", space)
    inner = [_SPACES[space](low, high, index / (count - 1)) for index in range(1, count - 1)]
    return tuple(_rounded(value) for value in (low, *inner, high))


def plain(value: Any, *path: str | int) -> Any:
    """`value`, refused where a part of it is no finite plain value."""
    if isinstance(value, dict):
        return {name: plain(item, *path, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, *path, index) for index, item in enumerate(value)]
    if not isinstance(value, bool | str | None) and not _is_number(value):
        raise refused(f"expected a finite number, text, true, false or null, got {short(value)}", *path)
    return value


def axis(value: Any) -> tuple[Any, ...]:
    """The values of one grid axis, rounded to 12 digits so that equal axes are equal on every platform.

    >>> axis({"logspace": [0.1, 10, 3]}), axis({"linspace": [-1, 1, 3]}), axis([1, 2.5])
    ((0.1, 1.0, 10.0), (-1.0, 0.0, 1.0), (1.0, 2.5))
    """
    if isinstance(value, dict) and len(value) == 1 and (space := next(iter(value))) in _SPACES:
        values = _spaced(space, value[space])
    elif isinstance(value, list | tuple) and value:
        mixed = any(isinstance(item, float) for item in value)
        values = tuple(_rounded(item) if mixed and type(item) in (int, float) else item for item in plain(value))
    else:
        raise refused(f"expected a list of values, {{logspace: [first, last, count]}} or {{linspace: …}}, got {short(value)}")
    if len({(type(item), repr(item)) for item in values}) < len(values):
        raise refused(f"expected distinct values, got {short(value)}")
    return values


def sizes(value: Any) -> tuple[int, ...]:
    """Numbers of samples from an axis, as distinct whole numbers in rising order.

    >>> sizes({"logspace": [10, 1000, 4]})
    (10, 46, 215, 1000)
    """
    if not value and isinstance(value, list | tuple):
        return ()
    values = axis(value)
    if not all(_is_number(size) and 1 <= size <= 2**53 for size in values):
        raise refused(f"expected numbers of samples from 1 to 2⁵³, got {short(list(values))}")
    found = tuple(sorted(round(size) for size in values))
    if len(set(found)) < len(found):
        raise refused(f"expected sizes that differ as whole numbers, got {short(list(found))}")
    return found


def mapping(value: Any) -> dict[str, Any]:
    """The parameters of a component: names and plain values, which the component's own class checks."""
    if not isinstance(value, dict):
        raise refused(f"expected a mapping of parameter names to values, got {short(value)}")
    return plain(value)


_SPACED_SCHEMA = {
    "type": "array",
    "prefixItems": [{"type": "number"}, {"type": "number"}, {"type": "integer", "minimum": 2}],
    "minItems": 3,
    "maxItems": 3,
    "description": "[first value, last value, count]",
}
_SPACES_SCHEMA = [
    {"type": "object", "properties": {space: _SPACED_SCHEMA}, "required": [space], "additionalProperties": False} for space in _SPACES
]
Axis = Annotated[tuple[Any, ...], BeforeValidator(axis), WithJsonSchema({"anyOf": [{"type": "array", "minItems": 1}, *_SPACES_SCHEMA]})]
Sizes = Annotated[
    tuple[int, ...],
    BeforeValidator(sizes),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "number", "minimum": 1}}, *_SPACES_SCHEMA]}),
]
Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(seeds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*\s*$"},
                {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1},
            ]
        }
    ),
]
Parameters = Annotated[dict[str, Any], BeforeValidator(mapping), WithJsonSchema({"type": "object"})]
