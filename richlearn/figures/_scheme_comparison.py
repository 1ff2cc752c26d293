"""A leaderboard as a picture: every row's value with its interval, one panel a score."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from richlearn.bench.columns import as_text
from richlearn.bench.content import canonical_json
from richlearn.bench.leaderboard import amount
from richlearn.errors import UsageError
from richlearn.figures._style import GREY, PALETTE, readable_logs, styled
from richlearn.figures._tables import label

MOST_ROWS = 40
# A marker beside the colour: the verdict stays readable without it.
_REGIMES = {
    "lazy": (PALETTE[5], "s"),
    "rich": (PALETTE[1], "o"),
    "delayed_rich": (PALETTE[3], "D"),
    "aligned_not_fitted": (PALETTE[2], "^"),
    "diverged": (PALETTE[6], "X"),
}
_UNKNOWN = (GREY, "o")


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["scheme"], row["parameters"]


def _cell(key: tuple[str, str]) -> Any:
    return SimpleNamespace(name=key[0], parameters=json.loads(key[1]))


def _look(row: dict[str, Any]) -> tuple[str, str]:
    return _REGIMES.get(as_text(row["regime"]).partition(" ")[0], _UNKNOWN)


def _point(axes: Axes, row: dict[str, Any], height: float) -> None:
    """One row: a point and its interval; an open arrow to the right where it is only known to lie beyond."""
    (value, bounded), (low, _), (high, open_end) = (amount(row[name]) for name in ("value", "ci_low", "ci_high"))
    colour, marker = _look(row)
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [height, height], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    if bounded or open_end:
        end = value if bounded else high
        axes.annotate(
            "",
            (end, height),
            (16, 0),
            textcoords="offset points",
            arrowprops={"arrowstyle": "<|-", "color": colour, "fc": "white", "shrinkB": 0},
        )
    face = "white" if bounded else colour
    axes.plot(value, height, marker, color=colour, markerfacecolor=face, markersize=6.5, markeredgewidth=1.4, zorder=3, clip_on=False)
    if 0 <= amount(row["p_value"])[0] < 0.05:
        axes.annotate("*", (value, height), (0, 2), textcoords="offset points", ha="center", fontsize=11)


def _note(axes: Axes, row: dict[str, Any], height: float) -> None:
    text = as_text(row["value"])
    short = text if len(text) <= 60 else f"{text[:59]}…"
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    place = {"xy": (0.015, height), "xycoords": ("axes fraction", "data"), "va": "center"}
    axes.annotate(short, **place, color="#606060", fontsize=7.5, style="italic", bbox=paper)


def _panel(axes: Axes, rows: list[dict[str, Any]], heights: dict[tuple[str, str], int], baseline: tuple[str, str] | None) -> None:
    numbers = {_key(row): number for row in rows if np.isfinite(number := amount(row["value"])[0])}
    for row in rows:
        (_point if _key(row) in numbers else _note)(axes, row, heights[_key(row)])
    if baseline in numbers:
        ends = [0.5, min(heights[key] for key in numbers) - 0.5]
        axes.plot([numbers[baseline]] * 2, ends, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1, label="baseline")
    values = np.array([amount(row[name])[0] for row in rows for name in ("value", "ci_low", "ci_high")])
    if (values[np.isfinite(values)] > 0).all() and np.isfinite(values).any():
        axes.set_xscale("log")
        readable_logs(axes.xaxis)
    axes.set_xlabel(f"{rows[0]['score'].replace('_', ' ')} ({rows[0]['unit']}), {rows[0]['better']} is better")
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _baseline(protocol: Any) -> tuple[str, str] | None:
    row = protocol.baseline_row() if protocol else None
    return (row.name, canonical_json(row.parameters)) if row else None


def _order(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Rows from best to worst by the first score, those without a number last; at most 40, of each kind those that come first."""
    return list(dict.fromkeys(_key(row) for row in rows if row["score"] == rows[0]["score"]))[:MOST_ROWS]


def _legend(figure: Figure, rows: list[dict[str, Any]]) -> None:
    present = {as_text(row["regime"]).partition(" ")[0] for row in rows}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6.5, label=name.replace("_", " "))
        for name, (colour, marker) in _REGIMES.items()
        if name in present
    ]
    if any(amount(row["value"])[1] for row in rows):
        handles.append(Line2D([], [], color=GREY, marker=">", markerfacecolor="white", linestyle="-", markersize=6.5, label="lies beyond"))
    if any(0 <= amount(row["p_value"])[0] < 0.05 for row in rows):
        handles.append(
            Line2D([], [], color="black", marker="$*$", linestyle="", markersize=6.5, label="differs from the baseline, p < 0.05")
        )
    handles += [line for line in figure.axes[0].lines if line.get_label() == "baseline"]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), int(figure.get_figwidth() / 2)))


@styled
def scheme_comparison(leaderboard: pd.DataFrame, protocol: Any = None) -> Figure:
    """Every row of a leaderboard with its interval, best at the top by the first score, coloured by its commonest regime.

    A value that is only a lower bound (censored, or with diverged seeds) is open, with an arrow to the right; a row without a
    number stands at the bottom with what it says; the dotted line is the baseline.

    Args:
        leaderboard: from `leaderboard.build` or `leaderboard.read`.
        protocol: its `baseline_row()` is read, if given.

    Raises:
        UsageError: the leaderboard has no rows.
    """
    rows = [dict(zip(leaderboard.columns, row, strict=True)) for row in leaderboard.itertuples(index=False)]
    if not rows:
        raise UsageError("`scheme_comparison` needs a leaderboard with rows; it is empty")
    order = _order(rows)
    heights = {key: -place for place, key in enumerate(order)}
    rows = [row for row in rows if _key(row) in heights]
    scores = list(dict.fromkeys(row["score"] for row in rows))
    figure = Figure(figsize=(2.2 + 4.2 * len(scores), 1.5 + 0.27 * len(order)))
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        _panel(axes, [row for row in rows if row["score"] == score], heights, _baseline(protocol))
    cells = [_cell(key) for key in order]
    panels[0].set_yticks(list(heights.values()), [label(cell, cells) for cell in cells])
    panels[0].set_ylim(-len(order) + 0.4, 0.6)
    _legend(figure, rows)
    total = leaderboard[["scheme", "parameters"]].drop_duplicates().shape[0]
    share = f", the first {len(order)} of {total} rows" if total > len(order) else ""
    figure.suptitle(f"{rows[0]['benchmark']}: value over the seeds with its interval{share}")
    return figure
