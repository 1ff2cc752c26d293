"""Test error against training size, and the size P* at which it falls to a tenth of chance (Kunin et al. 2024, fig 6c)."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from richlearn.bench.scores import TARGET, chance_error, learned_at
from richlearn.bench.statistics import geometric_mean
from richlearn.errors import UsageError
from richlearn.figures._classification import (
    Line,
    by_row,
    chance_accuracy,
    cut_text,
    diverged_text,
    label_below,
    panel_grid,
    served,
    title,
)
from richlearn.figures._style import GREY, readable_logs, styled
from richlearn.figures._tables import seeds_text


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


def _line(axes: Axes, table: pd.DataFrame, floor: float, line: Line) -> None:
    logs = table.assign(log=np.log(table["error"].clip(lower=floor))).groupby("train_size")["log"].agg(["mean", "std"]).fillna(0.0)
    low, high = np.exp(logs["mean"] - logs["std"]), np.exp(logs["mean"] + logs["std"])
    axes.fill_between(logs.index, low, high, color=line.colour, alpha=0.13, lw=0)
    axes.plot(logs.index, np.exp(logs["mean"]), "o-", color=line.colour, markersize=3, label=line.text)


def _mark(axes: Axes, needed: _Needed, target: float, colour: str, before: int) -> None:
    """A diamond at P*; an open triangle at a lower bound of it, beside the `before` ones of equal bounds."""
    look: dict[str, Any] = {"color": colour, "markersize": 7, "zorder": 4, "clip_on": False}
    if needed.sign != ">":
        axes.plot(needed.size, target, "D", **look)
        return
    aside = ScaledTranslation(before * 7 / 72, 0, axes.get_figure(root=True).dpi_scale_trans)  # pyright: ignore[reportOptionalMemberAccess]
    axes.plot(needed.size, target, ">", **look, markerfacecolor="white", transform=axes.transData + aside)


def _panel(axes: Axes, lines: list[Line], table: pd.DataFrame, needed: dict[int, _Needed], ends: tuple[float, float]) -> None:
    """Lines, marks and target of one panel; `ends`: the target, and what an error of 0 counts as."""
    target, floor = ends
    marked: list[_Needed] = []
    for line in lines:
        runs = table[table["cell_index"] == line.cell]
        if len(runs):
            _line(axes, runs, floor, line)
        if found := needed.get(line.cell):
            _mark(axes, found, target, line.colour, marked.count(found))
            marked.append(found)
    axes.axhline(target, color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1, label=f"target: {target:.3g}")
    axes.set(xscale="log", yscale="log", xlabel="training size P")


def _told(panels: dict[str, list[Line]], needed: dict[int, _Needed]) -> dict[str, list[Line]]:
    """`panels` with each row's P*: in the legend of a single one, else in the titles."""
    texts = {line.cell: needed[line.cell].text if line.cell in needed else "sizes missing" for lines in panels.values() for line in lines}
    if "" not in panels:
        return {f"{name}\n{texts[lines[-1].cell]}": lines for name, lines in panels.items()}
    return {"": [replace(line, text=f"{line.text}:  {texts[line.cell]}") for line in panels[""]]}


@styled
def sample_complexity(trials: pd.DataFrame, protocol: Any) -> Figure:
    """Test error against training size, both logarithmic, a line a row, with the sample complexity P* of each.

    A line is the geometric mean over the seeds with a band of one standard deviation of logarithms; an error of 0 counts as half of
    the smallest positive one that was seen, a diverged run errs as often as chance. The dashed line is the target, a tenth of the chance
    error; on it a diamond marks the geometric mean of the seeds' P*, an open triangle a lower bound of it where a seed's largest
    size does not reach the target. P* is interpolated in the error and the line in its logarithm, so that a mark may lie beside it.
    Each of more than seven rows has a panel of its own, beside the baseline's line.

    Args:
        trials: table of trials; `train_size`, `test_accuracy` and `zero_loss` are read.
        protocol: its `name`, `cells()`, `baseline_row()`, `seeds` and `train_sizes` are read.

    Raises:
        UsageError: there is no trial with a training size and an accuracy.
    """
    table = _runs(protocol, trials)
    if table.empty:
        raise UsageError(f"`sample_complexity` needs accuracies at several training sizes; `{protocol.name}` has none")
    target, floor, cells = TARGET * chance_error(table["zero_loss"].iloc[0]), _floor(table["error"]), protocol.cells()
    groups = {int(index): _needed(runs, len(protocol.train_sizes)) for index, runs in table.groupby("cell_index")}  # pyright: ignore[reportArgumentType]
    needed = {index: found for index, found in groups.items() if found}
    panels = _told(by_row(cells, table, protocol.baseline_row()), needed)
    figure, grid = panel_grid(panels, 2.9)
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        _panel(axes, lines, table, needed, (target, floor))
        axes.set_title(name)
        axes.autoscale_view()
        readable_logs(axes.xaxis)
        readable_logs(axes.yaxis)
    label_below(grid)
    figure.supylabel("test error", fontsize=9.5)
    handles = {line.get_label(): line for axes in reversed(grid) for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
    figure.legend(handles=list(handles.values()), loc="outside right center", handlelength=2.6)
    zeros = f"; errors of 0 drawn at {floor:.2g}" if (table["error"] < floor).any() else ""
    first = f"{protocol.name}: geometric mean ± standard deviation of logs over {seeds_text(table)}"
    figure.suptitle(title(first, cut_text(panels, cells), zeros, diverged_text(table, "at chance")))
    return figure
