"""Test error against training size, and the size P* at which it falls to a tenth of chance (Kunin et al. 2024, fig 6c)."""

import math
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from richlearn.bench.sample_complexity import sample_complexity as crossing
from richlearn.bench.statistics import geometric_mean
from richlearn.errors import UsageError
from richlearn.figures._classification import diverged_text, served, spread
from richlearn.figures._style import DASHES, GREY, PALETTE, styled
from richlearn.figures._tables import label, seeds_text

OF_CHANCE = 0.1  # Petrini, Cagnetta et al. 2023
MOST_ROWS = 14


@dataclass(frozen=True)
class _Needed:
    """P* of a row: the geometric mean over its seeds, each at most its largest size and at least its smallest."""

    size: float
    sign: str

    @property
    def text(self) -> str:
        return f"P* {self.sign} {math.floor(self.size) if self.sign == '>' else float(f'{self.size:.3g}'):.0f}"


def _errors(protocol: Any, trials: pd.DataFrame) -> pd.DataFrame:
    """Each run's test error, 1 where it diverged; of a row and seed each size once."""
    table = served(protocol, trials)
    if not {"train_size", "test_accuracy"} <= set(table):
        return table.iloc[:0]
    error = (1 - table["test_accuracy"].astype(np.float64)).clip(lower=0.0).mask(table["status"] == "diverged", 1.0)
    table = table.assign(error=error).dropna(subset=["error", "train_size"])
    return table.astype({"train_size": np.float64}).drop_duplicates(["cell_index", "seed", "train_size"])


def _needed(table: pd.DataFrame, target: float) -> _Needed:
    found, bounds = [], []
    for _, runs in table.groupby("seed"):
        found.append(crossing(runs["train_size"], runs["error"], target))
        bounds.append((runs["train_size"].min(), runs["train_size"].max()))
    low, high = np.transpose(bounds)
    sizes = np.array(found)
    sign = ">" if np.isinf(sizes).any() else "≤" if (sizes == low).any() else "≈"
    return _Needed(geometric_mean(np.minimum(sizes, high)).value, sign)


def _floor(errors: pd.Series) -> float:
    """What an error of 0 counts as on a logarithmic axis."""
    positive = errors[errors > 0]
    return float(positive.min()) / 2 if len(positive) else 1e-3


def _line(axes: Axes, table: pd.DataFrame, floor: float, text: str, colour: str, dash: Any) -> None:
    logs = table.assign(log=np.log(table["error"].clip(lower=floor))).groupby("train_size")["log"].agg(["mean", "std"]).fillna(0.0)
    axes.fill_between(logs.index, np.exp(logs["mean"] - logs["std"]), np.exp(logs["mean"] + logs["std"]), color=colour, alpha=0.13, lw=0)
    axes.plot(logs.index, np.exp(logs["mean"]), "o", linestyle=dash, color=colour, markersize=3, label=text)


def _mark(axes: Axes, needed: _Needed, target: float, colour: str, before: int) -> None:
    """A diamond at P*; an open triangle at a lower bound of it, beside the `before` ones of equal bounds."""
    look: dict[str, Any] = {"color": colour, "markersize": 7, "zorder": 4, "clip_on": False}
    if needed.sign != ">":
        axes.plot(needed.size, target, "D", **look)
        return
    aside = ScaledTranslation(before * 7 / 72, 0, axes.get_figure(root=True).dpi_scale_trans)  # pyright: ignore[reportOptionalMemberAccess]
    axes.plot(needed.size, target, ">", **look, markerfacecolor="white", transform=axes.transData + aside)


@styled
def sample_complexity(trials: pd.DataFrame, protocol: Any) -> Figure:
    """Test error against training size, both logarithmic, a line a row, with the sample complexity P* of each.

    A line is the geometric mean over the seeds with a band of one standard deviation of logarithms; an error of 0 counts as half of
    the smallest positive one that was seen, a diverged run as an error of 1. The dashed line is the target, a tenth of the chance
    error; on it a diamond marks the geometric mean of the seeds' P*, an open triangle a lower bound of it where a seed's largest
    size does not reach the target. P* is interpolated in the error and the line in its logarithm, so that a mark may lie beside it.

    Args:
        trials: table of trials; `train_size` and `test_accuracy` are read.
        protocol: its `name`, `cells()`, `seeds` and `chance_error` are read.

    Raises:
        UsageError: there is no trial with a training size and an accuracy, or the task has no chance error.
    """
    table, chance = _errors(protocol, trials), getattr(protocol, "chance_error", None)
    if table.empty or chance is None:
        raise UsageError(f"`sample_complexity` needs accuracies at several training sizes; `{protocol.name}` has none")
    target, floor, cells = OF_CHANCE * chance, _floor(table["error"]), protocol.cells()
    shown = spread(sorted(table["cell_index"].unique()), MOST_ROWS)
    figure = Figure(figsize=(7.6, 4.2))
    axes = figure.subplots()
    marked: list[_Needed] = []
    for index, (dash, colour) in zip(shown, cycle(product(DASHES, PALETTE)), strict=False):
        runs = table[table["cell_index"] == index]
        needed = _needed(runs, target)
        _line(axes, runs, floor, f"{label(cells[index], cells)}:  {needed.text}", colour, dash)
        _mark(axes, needed, target, colour, marked.count(needed))
        marked.append(needed)
    axes.axhline(target, color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1, label=f"target: {target:.3g}")
    axes.set(xscale="log", yscale="log", xlabel="training size P", ylabel="test error")
    figure.legend(loc="outside right center", handlelength=2.6)
    figure.suptitle(_title(protocol, table, floor, len(shown)))
    return figure


def _title(protocol: Any, table: pd.DataFrame, floor: float, shown: int) -> str:
    rows = table["cell_index"].nunique()
    cut = f"; {shown} of {rows} rows" if shown < rows else ""
    zeros = f"; errors of 0 drawn at {floor:.2g}" if (table["error"] < floor).any() else ""
    notes = (cut + zeros + diverged_text(table, "at error 1")).removeprefix("; ")
    first = f"{protocol.name}: geometric mean ± standard deviation of logs over {seeds_text(table)}"
    return f"{first}\n{notes}" if notes else first
