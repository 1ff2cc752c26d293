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

from richlearn.bench.scores import TARGET, chance_error, learned_at
from richlearn.bench.statistics import geometric_mean
from richlearn.errors import UsageError
from richlearn.figures._classification import chance_accuracy, diverged_text, served, spread, title
from richlearn.figures._style import DASHES, GREY, PALETTE, readable_logs, styled
from richlearn.figures._tables import label, seeds_text

MOST_ROWS = 14


@dataclass(frozen=True)
class _Needed:
    """P* of a row: the geometric mean over its seeds, each at most its largest size and at least its smallest."""

    size: float
    sign: str

    @property
    def text(self) -> str:
        return f"P* {self.sign} {math.floor(self.size * (1 + 1e-9)) if self.sign == '>' else float(f'{self.size:.3g}'):.0f}"


def _runs(protocol: Any, trials: pd.DataFrame) -> pd.DataFrame:
    """The runs with a size and an error, which is the chance error where they diverged; of a row and seed each size once."""
    table = served(protocol, trials)
    if not {"train_size", "test_accuracy"} <= set(table):
        return table.iloc[:0]
    wrong = (1 - table["test_accuracy"].astype(np.float64)).clip(lower=0.0)
    error = wrong.where(table["status"] == "finished", 1 - chance_accuracy(table))
    table = table.assign(error=error).dropna(subset=["error", "train_size"])
    return table.astype({"train_size": np.float64}).drop_duplicates(["cell_index", "seed", "train_size"])


def _needed(runs: pd.DataFrame, sizes: int) -> _Needed | None:
    """P* of the seeds that have all `sizes`, as the leaderboard has it; None without such a seed."""
    runs = runs[runs.groupby("seed")["train_size"].transform("size") >= sizes]
    if runs.empty:
        return None
    found = learned_at(runs)
    ends = runs.groupby("seed")["train_size"].agg(["min", "max"]).loc[found.index]
    sign = ">" if np.isinf(found).any() else "≤" if (found == ends["min"]).any() else "≈"
    return _Needed(geometric_mean(np.minimum(found, ends["max"])).value, sign)


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
    the smallest positive one that was seen, a diverged run errs as often as chance. The dashed line is the target, a tenth of the chance
    error; on it a diamond marks the geometric mean of the seeds' P*, an open triangle a lower bound of it where a seed's largest
    size does not reach the target. P* is interpolated in the error and the line in its logarithm, so that a mark may lie beside it.

    Args:
        trials: table of trials; `train_size`, `test_accuracy` and `zero_loss` are read.
        protocol: its `name`, `cells()`, `seeds` and `train_sizes` are read.

    Raises:
        UsageError: there is no trial with a training size and an accuracy.
    """
    table = _runs(protocol, trials)
    if table.empty:
        raise UsageError(f"`sample_complexity` needs accuracies at several training sizes; `{protocol.name}` has none")
    target, floor, cells = TARGET * chance_error(table["zero_loss"].iloc[0]), _floor(table["error"]), protocol.cells()
    shown = spread(sorted(table["cell_index"].unique()), MOST_ROWS)
    figure = Figure(figsize=(7.6, 4.2))
    axes = figure.subplots()
    marked: list[_Needed | None] = []
    for index, (dash, colour) in zip(shown, cycle(product(DASHES, PALETTE)), strict=False):
        runs = table[table["cell_index"] == index]
        needed = _needed(runs, len(protocol.train_sizes))
        _line(axes, runs, floor, f"{label(cells[index], cells)}:  {needed.text if needed else 'sizes missing'}", colour, dash)
        if needed:
            _mark(axes, needed, target, colour, marked.count(needed))
        marked.append(needed)
    axes.axhline(target, color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1, label=f"target: {target:.3g}")
    axes.set(xscale="log", yscale="log", xlabel="training size P", ylabel="test error")
    axes.autoscale_view()
    readable_logs(axes.xaxis)
    readable_logs(axes.yaxis)
    figure.legend(loc="outside right center", handlelength=2.6)
    figure.suptitle(_title(protocol, table, floor, len(shown)))
    return figure


def _title(protocol: Any, table: pd.DataFrame, floor: float, shown: int) -> str:
    rows = table["cell_index"].nunique()
    cut = f"; {shown} of {rows} rows" if shown < rows else ""
    zeros = f"; errors of 0 drawn at {floor:.2g}" if (table["error"] < floor).any() else ""
    first = f"{protocol.name}: geometric mean ± standard deviation of logs over {seeds_text(table)}"
    return title(first, cut, zeros, diverged_text(table, "at chance"))
