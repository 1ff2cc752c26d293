"""A leaderboard as a short plain-text table for the end of a run."""

import json

import pandas as pd

from richlearn.bench.columns import NOT_APPLICABLE, NOT_RUN, as_text

_HEADER = ("rank", "scheme", "parameters", "value", "interval", "seeds", "regime", "kernel distance")
_RIGHT = {"rank", "value", "kernel distance"}


def parameters_text(parameters: str) -> str:
    """A scheme's canonical JSON parameters in short.

    >>> parameters_text('{"delta":0.5,"tau":0.1}')
    'delta=0.5 tau=0.1'
    """
    return " ".join(f"{name}={as_text(value)}" for name, value in json.loads(parameters).items())


def _line(row: dict[str, str]) -> tuple[str, ...]:
    interval = f"[{row['ci_low']}, {row['ci_high']}]" if row["ci_low"] else ""
    described = row["rank"], row["scheme"], parameters_text(row["parameters"]), row["value"], interval
    return *described, row["seeds"], row["regime"], row["kernel_distance"]


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]
    sides = [">" if name in _RIGHT else "<" for name in _HEADER]
    return ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip() for line in lines]


def _valued(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The ranked rows; of a score that ranks nothing, those with a number."""
    ranked = [row for row in rows if row["rank"]]
    return ranked or [row for row in rows if row["value"] not in (NOT_RUN, "nan") and not row["value"].startswith(NOT_APPLICABLE)]


def _rest(rows: list[dict[str, str]], shown: int) -> str:
    counts = {
        "more": len(_valued(rows)) - shown,
        "not run": sum(row["value"] == NOT_RUN for row in rows),
        "not applicable": sum(row["value"].startswith(NOT_APPLICABLE) for row in rows),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def render(frame: pd.DataFrame, rows: int = 10) -> str:
    """The best `rows` rows of each score as aligned plain text, and how many are not shown.

    Args:
        frame: from `build` or `read`.
        rows: how many rows to show for a score.
    """
    records = [{str(name): as_text(cell) for name, cell in row.items()} for row in frame.to_dict("records")]
    parts = []
    for name in dict.fromkeys(row["score"] for row in records):
        group = [row for row in records if row["score"] == name]
        best = _valued(group)[:rows]
        title = f"{group[0]['benchmark']}: {name} ({group[0]['unit']}, {group[0]['better']} is better)"
        rest = _rest(group, len(best))
        parts.append("\n".join([title, *_aligned([_HEADER, *map(_line, best)]), *([f"({rest})"] if rest else [])]))
    return "\n\n".join(parts)
