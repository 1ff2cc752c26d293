"""From pydantic's errors to one line each: `file:line:column: `key`: what was expected, what came, the nearest valid name`."""

import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from richlearn.bench._axes import short
from richlearn.bench._yaml import Key, Place, Source, dotted
from richlearn.errors import nearest

MOST_LINES = 50

_EXPECTED = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "letters, digits, `-` and `_`, at most 100",
}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _model_at(model: type[BaseModel], path: Key) -> type[BaseModel]:
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _fields(model: type[BaseModel], before: Key = ()) -> Iterator[Key]:
    for name, about in model.model_fields.items():
        yield (*before, name)
        if inner := _model_in(about.annotation):
            yield from _fields(inner, (*before, name))


def _nearest_key(model: type[BaseModel], path: Key) -> str:
    """The same key elsewhere in the protocol, else the nearest sibling, else all siblings."""
    elsewhere = [dotted(key) for key in _fields(model) if key[-1] == path[-1]]
    return f"did you mean `{elsewhere[0]}`?" if elsewhere else nearest(str(path[-1]), _model_at(model, path[:-1]).model_fields)


def _message(model: type[BaseModel], path: Key, error: ErrorDetails) -> str:
    kind, came = error["type"], short(error["input"])
    match kind:
        case "richlearn":
            return error["msg"]
        case "missing":
            return "required, but absent"
        case "extra_forbidden":
            return f"unknown key; {_nearest_key(model, path)}"
        case "literal_error":
            choices = [choice.strip("'") for choice in re.split(r", | or ", error["ctx"]["expected"])]  # pyright: ignore[reportTypedDictNotRequiredAccess]
            advice = nearest(str(error["input"]), choices)
            return f"expected {' or '.join(choices)}, got {came}" + (f"; {advice}" if advice.startswith("did") else "")
    expected = _EXPECTED.get(kind) or re.sub(r"^Input should be (a )?", "a value ", error["msg"])
    return f"expected {expected}, got {came}"


def _path(source: Source, error: ErrorDetails) -> Key:
    """The path in the data: pydantic's, without the names of the union members that it tried."""
    part: Any = source.data
    path: list[Any] = []
    for step in error["loc"]:
        if isinstance(part, dict):
            path, part = [*path, step], part.get(step)
        elif isinstance(part, list) and isinstance(step, int):
            path, part = [*path, step], part[step]
    return (*path, *error.get("ctx", {}).get("path", ()))


def _at_key(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden"


def _line(source: Source, model: type[BaseModel], place: Place, path: Key, error: ErrorDetails | str) -> str:
    if isinstance(error, str):
        return f"{source.file}:{place[0]}:{place[1]}: {error}"
    return source.problem(path, f"`{dotted(path)}`: {_message(model, path, error)}", at_key=_at_key(error))


def lines(source: Source, model: type[BaseModel], errors: ValidationError | None) -> list[str]:
    """All that is wrong with `source`, one line each, in the order of the file; beyond `MOST_LINES` they are only counted."""
    unreadable = {place for place, _ in source.problems}
    found: list[tuple[Place, Key, ErrorDetails | str]] = [(place, (), message) for place, message in source.problems]
    for error in errors.errors(include_url=False) if errors else ():
        path = _path(source, error)
        if (place := source.locate(path, at_key=_at_key(error))[0]) not in unreadable:
            found.append((place, path, error))
    found.sort(key=lambda item: (item[0], dotted(item[1])))
    texts = [_line(source, model, *item) for item in found[:MOST_LINES]]
    return texts + ([f"{source.file}: and {len(found) - MOST_LINES} more"] if len(found) > MOST_LINES else [])
