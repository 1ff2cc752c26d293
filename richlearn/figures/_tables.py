"""What pictures draw: trials and curves by cell, with means and bands over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from richlearn.bench.content import canonical_json
from richlearn.errors import UsageError
from richlearn.figures._style import symbol


@dataclass(frozen=True)
class Quantity:
    """A measured quantity: its column in the curves table, its label, and whether it spans decades (then its mean is geometric)."""

    column: str
    label: str
    logarithmic: bool = False


TEST_LOSS = Quantity("test_loss", "test loss", logarithmic=True)
TRAIN_LOSS = Quantity("train_loss", "train loss", logarithmic=True)
KERNEL = Quantity("kernel_distance", "kernel distance $S(0, t)$")
TEST_ACCURACY = Quantity("test_accuracy", "test accuracy")
TRAIN_ACCURACY = Quantity("train_accuracy", "train accuracy")
HAMMING = Quantity("hamming_distance", "Hamming distance (share)")
PARAMETERS = Quantity("parameter_distance_relative", "parameter distance $‖θ-θ_0‖ / ‖θ_0‖$")


def scored(protocol: Any, trials: pd.DataFrame) -> pd.DataFrame:
    """The protocol's scored trials, each once, in the order of its cells; `cell_index` numbers the cells as `protocol.cells()` does.

    Raises:
        UsageError: there is none, so there is nothing to draw.
    """
    places = {(cell.name, canonical_json(cell.parameters)): index for index, cell in enumerate(protocol.cells())}
    keys = pd.Series(list(zip(trials["scheme"], trials["parameters"], strict=True)), index=trials.index, dtype=object)
    found = trials.assign(cell_index=keys.map(places))
    found = found[(found["role"] == "score") & found["seed"].isin(list(protocol.seeds)) & found["cell_index"].notna()]
    found = found.astype({"cell_index": int, "seed": int}).sort_values(["cell_index", "seed", "batch"]).drop_duplicates("trial")
    if found.empty:
        raise UsageError(
            f"`{protocol.name}` has no scored trials yet, so there is nothing to draw; run `richlearn run {protocol.name}` first"
        )
    return found.reset_index(drop=True)


def largest_size(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The trials at the largest training size with a text that names it; of one size, or none recorded, all trials and no text."""
    sizes = table["train_size"].dropna().unique() if "train_size" in table else []
    if len(sizes) < 2:
        return table, ""
    return table[table["train_size"] == max(sizes)], f"; training size {max(sizes)}"


def finals(trials: pd.DataFrame, curves: pd.DataFrame, quantities: Sequence[Quantity]) -> pd.DataFrame:
    """`trials` with each quantity's last measured value; `nan` where a run diverged or measured none."""
    names = [quantity.column for quantity in quantities]
    last = curves.sort_values("step", kind="stable").groupby("trial")[names].last().reindex(trials["trial"])
    finished = (trials["status"] == "finished").to_numpy()
    values = np.where(finished[:, None], last.to_numpy(np.float64, na_value=np.nan), np.nan)
    return trials.drop(columns=names, errors="ignore").join(pd.DataFrame(values, columns=names, index=trials.index))


def mean(values: pd.Series, logarithmic: bool) -> float:
    """Mean over the seeds that have a value, geometric where `logarithmic`; `nan` where none has."""
    known = values.to_numpy(np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return float("nan")
    return float(np.exp(np.log(np.maximum(known, np.finfo(np.float64).tiny)).mean()) if logarithmic else known.mean())


def _kept(trials: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """`points` with the last value of each run that ended early at every later step of its cell."""
    ended = trials[trials["stopped_at"].notna()] if "stopped_at" in trials else trials.iloc[:0]
    if ended.empty:
        return points
    last = points.sort_values("step").groupby("trial", as_index=False).last().merge(ended[["trial", "cell_index"]], on="trial")
    steps = points.merge(trials[["trial", "cell_index"]], on="trial")[["cell_index", "step"]].drop_duplicates()
    later = last.merge(steps, on="cell_index", suffixes=("_last", ""))
    return pd.concat([points, later[later["step"] > later["step_last"]][points.columns]])


def bands(trials: pd.DataFrame, curves: pd.DataFrame, quantity: Quantity) -> dict[int, pd.DataFrame]:
    """Mean and one standard deviation to either side (of logarithms where `quantity` spans decades) over seeds, for each cell.

    A step counts where at least half of the cell's seeds have a finite value: what has diverged leaves the mean, and a step
    that only a few seeds measured does not bend it. A run that ended early keeps its last value.

    Returns:
        `cell_index` -> table with the columns mean, low, high; index: step, rising.
    """
    points = _kept(trials, curves[["trial", "step", quantity.column]].dropna()).merge(trials[["trial", "cell_index"]], on="trial")
    values = points[quantity.column].to_numpy(np.float64)
    keep = np.isfinite(values) & ((values > 0) | (not quantity.logarithmic))
    points = points[keep].assign(value=np.log(values[keep]) if quantity.logarithmic else values[keep])
    table = points.groupby(["cell_index", "step"])["value"].agg(["mean", "std", "count"])
    table = table[table["count"] * 2 >= table.groupby("cell_index")["count"].transform("max")]
    spread = table["std"].fillna(0.0)
    found = pd.DataFrame({"mean": table["mean"], "low": table["mean"] - spread, "high": table["mean"] + spread})
    if quantity.logarithmic:
        found = found.apply(np.exp)
    return {int(index): part.droplevel("cell_index") for index, part in found.groupby(level="cell_index")}  # pyright: ignore[reportArgumentType]


def label(cell: Any, among: Sequence[Any]) -> str:
    """A cell in a legend: its parameters with Greek letters, after the scheme's name where `among` has several schemes.

    What all of `among` have alike is left out.

    >>> from types import SimpleNamespace as Cell
    >>> a, b = Cell(name="unbalanced", parameters={"tau": 0.1, "delta": 1.0}), Cell(name="standard", parameters={})
    >>> label(a, [a]), label(a, [a, b]), label(b, [a, b])
    ('τ = 0.1, δ = 1', 'unbalanced τ = 0.1, δ = 1', 'standard')
    """
    alike = {name for name, value in cell.parameters.items() if len(among) > 1 and all(o.parameters.get(name) == value for o in among)}
    inside = ", ".join(f"{symbol(name)} = {_shown(value)}" for name, value in cell.parameters.items() if name not in alike)
    single = len({other.name for other in among}) == 1 and inside
    return inside if single else f"{cell.name} {inside}".strip()


def _shown(value: Any) -> str:
    return f"{value:.3g}".replace("-", "−") if isinstance(value, int | float) else str(value)


def is_grid(cells: Sequence[Any]) -> bool:
    """Whether every cell has a τ and a δ, with at least two values of one of them."""
    points = {(cell.parameters.get("tau"), cell.parameters.get("delta")) for cell in cells}
    return len(points) > 1 and all(isinstance(value, int | float) for point in points for value in point)


def _middle(values: list[float]) -> float:
    return values[len(values) // 2]


def chosen(cells: Sequence[Any], most: int) -> list[int]:
    """The cells that stand for all in a picture of curves: of a large τ × δ grid the corners and the centre, else `most` evenly spread."""
    if len(cells) <= min(most, 9) or (len(cells) <= most and not is_grid(cells)):
        return list(range(len(cells)))
    if not is_grid(cells):
        return sorted({round(place) for place in np.linspace(0, len(cells) - 1, most)})
    taus, deltas = (sorted({cell.parameters[name] for cell in cells}) for name in ("tau", "delta"))
    wanted = {(tau, delta) for tau in (taus[0], taus[-1]) for delta in (deltas[0], deltas[-1])} | {(_middle(taus), _middle(deltas))}
    return [index for index, cell in enumerate(cells) if (cell.parameters["tau"], cell.parameters["delta"]) in wanted]


def seeds_text(trials: pd.DataFrame) -> str:
    """How many seeds a picture averages; a range where rows have unlike numbers of them so far.

    >>> seeds_text(pd.DataFrame({"cell_index": [0, 0, 0], "seed": [0, 1, 1]}))
    '2 seeds'
    >>> seeds_text(pd.DataFrame({"cell_index": [0, 0, 1], "seed": [0, 1, 1]}))
    '1-2 seeds'
    """
    numbers = trials.groupby("cell_index")["seed"].nunique()
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}-{high} seeds" if low < high else f"{high} seed{'s' * (high != 1)}"
