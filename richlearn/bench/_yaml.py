"""Protocol files: plain YAML 1.2 values, each with its place, and refused before a hostile file can do harm."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from richlearn.errors import UsageError

MAX_BYTES = 32 * 1024  # ten times a long protocol; the worst text of this length takes half a second
MAX_DEPTH = 32

Key = tuple[str | int, ...]
Place = tuple[int, int]

_PREFIX = "tag:yaml.org,2002:"
# The core schema of YAML 1.2: `1e-3` is a float, and `no`, `on`, `y`, `1:30` and `2020-01-01` are text.
_RESOLVERS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
    "str": str,
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader up to nodes, without aliases and with bounded depth; values are made by `_Builder`."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own class attribute; YAML 1.1's rules are dropped here)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem=f"alias `*{event.anchor}` is not allowed; write the values out", problem_mark=event.start_mark
            )
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes the text that YAML 1.2 reads as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML writes these line breaks of Unicode as they are in single quotes, and reads them as spaces.
        return self.represent_scalar(_PREFIX + "str", data, style='"' if set(data) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(str, _Dumper.represent_str)
for _tag, _pattern in _RESOLVERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _tag, re.compile(rf"(?:{_pattern})\Z"), None)


def dotted(path: Key) -> str:
    """The path as a user writes it.

    >>> dotted(("schemes", 0, "grid", "tau"))
    'schemes[0].grid.tau'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the protocol"


@dataclass(frozen=True)
class Source:
    """Plain data, where each part of it was written, and what is wrong with it as YAML.

    No field takes part in comparisons: where something was written is no part of what it says.
    """

    file: str = field(default="", compare=False)
    data: Any = field(default=None, compare=False)
    values: dict[Key, Place] = field(default_factory=dict, compare=False)
    keys: dict[Key, Place] = field(default_factory=dict, compare=False)
    options: dict[Key, str] = field(default_factory=dict, compare=False)  # the `--set` text that wrote this path
    problems: tuple[tuple[Place, str], ...] = field(default=(), compare=False)

    def locate(self, path: Key, *, at_key: bool = False) -> tuple[Place, str]:
        """The place of the value at `path` (of its key with `at_key`), else of the nearest part around it, and its text."""
        for length in range(len(path), -1, -1):
            part = path[:length]
            if part in self.options:
                return (0, 0), f"--set {self.options[part]}"
            key_first = at_key or length < len(path)
            if place := (key_first and self.keys.get(part)) or self.values.get(part):
                return place, f"{self.file}:{place[0]}:{place[1]}"
        return (0, 0), self.file

    def problem(self, path: Key, message: str, *, at_key: bool = False) -> str:
        """One line of an error: `file:line:column: message`."""
        where = self.locate(path, at_key=at_key)[1]
        return f"{where}: {message}" if where else message

    def with_value(self, path: Key, value: Any, option: str) -> "Source":
        """The same with `value` at `path`, said to come from `--set option`."""
        try:
            data = _placed(self.data, path, value)
        except IndexError:
            raise UsageError(f"--set {option}: `{dotted(path)}` is not there; a list takes the number of one of its items") from None
        return replace(self, data=data, options={**self.options, path: option})


def _placed(data: Any, path: Key, value: Any) -> Any:
    if not path:
        return value
    if isinstance(data, list):
        if path[0] not in range(len(data)):
            raise IndexError
        return [_placed(item, path[1:], value) if index == path[0] else item for index, item in enumerate(data)]
    mapping = data if isinstance(data, dict) else {}
    return {**mapping, path[0]: _placed(mapping.get(path[0]), path[1:], value)}


def _place(mark: yaml.Mark) -> Place:
    return mark.line + 1, mark.column + 1


@dataclass
class _Builder:
    """Plain data from nodes; what is wrong is collected, so that a user sees all of it at once."""

    values: dict[Key, Place] = field(default_factory=dict)
    keys: dict[Key, Place] = field(default_factory=dict)
    problems: list[tuple[Place, str]] = field(default_factory=list)

    def build(self, node: yaml.Node, path: Key) -> Any:
        self.values[path] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag.removeprefix(_PREFIX) in _SCALARS:
            return self._scalar(node, path)
        tag = node.tag.replace(_PREFIX, "!!")
        return self._refuse(node.start_mark, f"`{dotted(path)}`: tag `{tag}` is not allowed; a protocol holds plain values only")

    def _refuse(self, mark: yaml.Mark, message: str) -> None:
        self.problems.append((_place(mark), message))

    def _scalar(self, node: yaml.ScalarNode, path: Key) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        try:
            return _SCALARS[kind](node.value)
        except ValueError:
            return self._refuse(node.start_mark, f"`{dotted(path)}`: expected a value of kind {kind}, got `{node.value[:40]}`")

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _PREFIX + "str":
                self._refuse(key.start_mark, f"`{dotted(path)}`: a key must be text; put it in quotes")
            elif key.value == "<<":
                self._refuse(key.start_mark, f"`{dotted(path)}`: merge key `<<` is not allowed; write the values out")
            elif key.value in data:
                first = self.keys[*path, key.value]
                self._refuse(key.start_mark, f"`{dotted((*path, key.value))}`: duplicate key; it stands at line {first[0]} as well")
            else:
                self.keys[*path, key.value] = _place(key.start_mark)
                data[key.value] = self.build(value, (*path, key.value))
        return data


def _syntax_error(text: str, file: str, error: yaml.YAMLError) -> UsageError:
    place, reason = (1, 1), " ".join(str(error).split())
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        place, reason = _place(mark), " ".join(", ".join(filter(None, (error.context, error.problem))).split())
    elif isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place, reason = (before.count("\n") + 1, error.position - before.rfind("\n")), f"character {error.character!a} is not allowed"
    return UsageError(f"{file}:{place[0]}:{place[1]}: {reason}")


def _check_size(size: int, file: str) -> None:
    if size > MAX_BYTES:
        raise UsageError(f"{file}:1:1: longer than {MAX_BYTES // 1024} KiB; a protocol takes a few, so this file is something else")


def load(text: str, file: str) -> Source:
    """Read YAML `text`; `file` names it in messages.

    Returns:
        The data with the place of each value. Faults that leave the rest readable (duplicate keys, tags, merge keys) are
        in `problems`, so that they can be reported together with those of the content.

    Raises:
        UsageError: the text is too long, is not YAML, is nested too deep or holds an alias.
    """
    _check_size(len(text), file)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _syntax_error(text, file, error) from None
    builder = _Builder()
    data = builder.build(node, ()) if node is not None else None
    return Source(file, data, builder.values, builder.keys, problems=tuple(builder.problems))


def read(path: Path) -> Source:
    """`load` the file at `path`, of which no more than `MAX_BYTES` are read."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        _check_size(len(raw), str(path))
        return load(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        column = error.start - error.object[: error.start].rfind(b"\n")
        raise UsageError(f"{path}:{line}:{column}: not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"protocol file `{path}` cannot be read: {error.strerror}") from None


def dump(data: Any) -> str:
    """Plain data as YAML text that `load` reads back to the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
