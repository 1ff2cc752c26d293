"""The columns of every leaderboard: order, type, unit and meaning, and what a cell may hold."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

VERSION = 1
NOT_RUN = "not run"
NOT_APPLICABLE = "not applicable: "
BEYOND = "> "
BETWEEN = " | "
_FORMULA = ("=", "+", "-", "@")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")


def _number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], bool]:
    return lambda text: _NUMBER.fullmatch(text) is not None and low <= float(text) <= high


def _integer(text: str) -> bool:
    return re.fullmatch(r"\d+", text) is not None


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


def _any_of(*rules: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: any(rule(text) for rule in rules)


def _text(text: str) -> bool:
    return bool(text) and not text.startswith(_FORMULA) and text.isprintable()


def _several(rule: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: all(rule(part) for part in text.split(BETWEEN))


def _json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _bounded(text: str) -> bool:
    return _number()(text.removeprefix(BEYOND))


def _value(text: str) -> bool:
    return text in ("nan", NOT_RUN) or text.startswith(NOT_APPLICABLE) or _bounded(text)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: in the header.
        unit: empty: none.
        meaning: one line, also the README's.
        expected: what a cell holds, in words, for the message of an error.
        holds: whether a text that is not blank is such a cell.
        blank: whether a cell may be empty.
    """

    name: str
    unit: str
    meaning: str
    expected: str
    holds: Callable[[str], bool]
    blank: bool = True

    def problem(self, text: str) -> str | None:
        """What is wrong with a cell's `text`, or None."""
        if text == "":
            return None if self.blank else f"`{self.name}`: expected {self.expected}; it is blank"
        return None if self.holds(text) else f"`{self.name}`: expected {self.expected}{' or blank' * self.blank}; got `{text}`"


def _versions(name: str, meaning: str) -> Column:
    return Column(name, "", meaning, "a text", _text)


_MEASURED = "mean over the seeds at `measured_at`"
COLUMNS = (
    Column("schema_version", "", "version of this list of columns", f"`{VERSION}`", _matches(str(VERSION)), blank=False),
    Column("benchmark", "", "name of the protocol", "a text", _text, blank=False),
    Column(
        "protocol_hash",
        "",
        "SHA-256 of the protocol without seeds, selection and device",
        "a hash",
        _matches("[0-9a-f]{8,64}"),
        blank=False,
    ),
    Column(
        "rank",
        "",
        "place among the rows of the same score, by `value`; ties share; blank: not ranked",
        "a whole number from 1",
        _matches(r"[1-9]\d*"),
    ),
    Column("scheme", "", "initialisation scheme", "a text", _text, blank=False),
    Column("parameters", "", "the scheme's parameters, canonical JSON", "a JSON object", _json_object, blank=False),
    Column("network", "", "network", "a text", _text, blank=False),
    Column("task", "", "task", "a text", _text, blank=False),
    Column("score", "", "what `value` is", "a text", _text, blank=False),
    Column("unit", "", "unit of `value` and its interval", "a text", _text, blank=False),
    Column("better", "", "direction of improvement", "lower or higher", _matches("lower|higher"), blank=False),
    Column(
        "value",
        "`unit`",
        "the score's statistic over the seeds",
        "a number, `> number`, nan, `not run` or `not applicable: reason`",
        _value,
        blank=False,
    ),
    Column("ci_low", "`unit`", "lower end of its interval", "a number or `> number`", _bounded),
    Column("ci_high", "`unit`", "upper end of its interval", "a number or `> number`", _bounded),
    Column("ci_level", "", "true level of the interval", "a number in [0, 1]", _number(0, 1)),
    Column(
        "seeds", "", "seeds that are scored; `3/10`: three of the ten that the protocol asks for", "`n` or `n/N`", _matches(r"\d+(/\d+)?")
    ),
    Column("reached", "", "share of the seeds that reached the goal, of a score that may be censored", "a number in [0, 1]", _number(0, 1)),
    Column("failed", "", "seeds that diverged", "a whole number", _integer),
    Column("p_value", "", "against the baseline, corrected", "a number in [0, 1] or `n/a`", _any_of(_number(0, 1), _matches("n/a"))),
    Column("regime", "", "commonest verdict over the seeds, and its share", "`verdict 75%`", _matches(r"[a-z_]+ \d{1,3}%")),
    Column("kernel_distance", "", f"traced NTK on the probe against initialisation, {_MEASURED}", "a number in [0, 1]", _number(0, 1)),
    Column(
        "hamming_distance",
        "",
        f"share of (unit, input) pairs whose activation pattern changed, {_MEASURED}",
        "a number in [0, 1]",
        _number(0, 1),
    ),
    Column("parameter_distance", "", f"‖θ − θ₀‖ / ‖θ₀‖, {_MEASURED}", "a number from 0", _number(0)),
    Column("delta_init", "", "mean δ over hidden units at initialisation, mean over the seeds", "a number", _number()),
    Column("delta_drift", "", f"‖δ − δ₀‖ / ‖κ₀‖ over hidden units, {_MEASURED}", "a number from 0", _number(0)),
    Column("measured_at", "updates", "median over the seeds of the step of these measurements", "a number from 0", _number(0)),
    Column("lr", "", "base learning rate", "a number, or several with ` | ` between", _several(_number(0))),
    Column("search_steps", "updates", "what the search of this learning rate cost", "a whole number", _integer, blank=False),
    Column("steps", "updates", "the budget of a run", "a whole number", _integer, blank=False),
    Column("wall_seconds", "s", "this row's share, by members, of its batches' wall time", "a number from 0", _number(0)),
    _versions("device", "hardware it was trained on"),
    _versions("precision", "Lightning's name of the precision"),
    _versions("richlearn", "version of richlearn"),
    _versions("torch", "version of torch"),
    _versions("lightning", "version of Lightning"),
    _versions("commit", "git commit of richlearn, if known"),
    Column("date", "", "when the last batch of the row was trained, ISO 8601", "an ISO date", _matches(r"\d{4}-\d\d-\d\d([T ]\S+)?")),
)
NAMES = tuple(column.name for column in COLUMNS)


def as_text(cell: object) -> str:
    """A cell as the CSV writes it: numbers by ``%.6g``, a missing one blank, texts on one line and never a spreadsheet formula.

    >>> [as_text(cell) for cell in (0.1 + 0.2, 7, None, float("nan"), "=1+1", "-2")]
    ['0.3', '7', '', 'nan', "'=1+1", '-2']
    """
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    text = "".join(letter if letter.isprintable() else " " for letter in str(cell))
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(_FORMULA) and not _number()(text) else text
