"""Content as identity: one canonical text for equal content, its hash, and where two contents differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from richlearn.errors import ParameterError

_ABSENT = "absent"


def _check_keys(content: Any, path: str = "") -> None:
    """Refuse keys that are not text: JSON would turn `1` and `"1"` into the same key."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if not isinstance(key, str):
                raise ParameterError(f"key `{path}{key!r}` of a content to hash must be text, not {type(key).__name__}: quote it")
            _check_keys(value, f"{path}{key}.")
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            _check_keys(value, f"{path}[{index}].")


def canonical_json(content: Any) -> str:
    """The one JSON text of `content`: keys sorted, no spaces, floats by `repr` (so that they round-trip).

    Args:
        content: mappings with text keys, lists, tuples (written as lists), text, numbers, booleans and `None`.

    Raises:
        ParameterError: for NaN, an infinity, a key that is not text, or a type that JSON does not know.

    >>> canonical_json({"b": (1, 0.1), "a": None})
    '{"a":null,"b":[1,0.1]}'
    """
    _check_keys(content)
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise ParameterError(f"`{content!r:.200}` cannot be hashed: {error}; use finite numbers, text, lists and mappings") from error
    return text


def text_hash(text: str) -> str:
    """SHA-256 of `text` in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def content_hash(content: Any) -> str:
    """SHA-256 of `canonical_json(content)`: equal content has equal hashes, whatever the order of its keys.

    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    return text_hash(canonical_json(content))


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """Where two nested contents differ, each as "`dotted.key` is … there, … here", in sorted order of keys.

    >>> differences({"training": {"steps": 100}, "seeds": 4}, {"training": {"steps": 200}, "seeds": 4})
    ['`training.steps` is 100 there, 200 here']
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        dot = "." if path else ""
        keys = sorted({*there, *here}, key=str)
        return [line for key in keys for line in differences(there.get(key, _ABSENT), here.get(key, _ABSENT), f"{path}{dot}{key}")]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return [line for index, pair in enumerate(zip(there, here, strict=True)) for line in differences(*pair, f"{path}[{index}]")]
    return [] if there == here else [f"`{path}` is {_short(there)} there, {_short(here)} here"]


def _short(value: Any, limit: int = 80) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
