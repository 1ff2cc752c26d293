"""The errors a user may meet: each is one line that names what is wrong, where, and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches


class RichlearnError(Exception):
    """Base of every error that richlearn raises on purpose."""


class UsageError(RichlearnError):
    """The request is wrong: an unknown name, a bad protocol, a folder that cannot serve. The command line exits with 2."""


class ParameterError(UsageError):
    """A parameter of a component is out of range, absent, or unknown."""


class NotApplicable(RichlearnError):
    """A scheme or metric cannot serve this network; a leaderboard shows its reason instead of a number."""


class RecordError(RichlearnError):
    """A record is damaged, foreign or of another version."""


class StorageError(RichlearnError):
    """The operating system refused to write a record; nothing stands under its final name."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that helps with an unknown `name`: the nearest valid names, or all of them.

    >>> nearest("upstraem", ["upstream", "downstream", "standard"])
    'did you mean `upstream`?'
    >>> nearest("qqq", ["b", "a"])
    'valid: a, b'
    """
    choices = sorted(valid)
    close = get_close_matches(name, choices, n=1)
    return f"did you mean `{close[0]}`?" if close else f"valid: {', '.join(choices)}"
