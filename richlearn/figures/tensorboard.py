"""TensorBoard: one run a cell (mean and band over seeds, histograms of δ, hparams) and one run with the pictures."""

import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from richlearn.errors import StorageError
from richlearn.figures._tables import (
    HAMMING,
    KERNEL,
    PARAMETERS,
    TEST_ACCURACY,
    TEST_LOSS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    Quantity,
    bands,
    finals,
    largest_size,
    mean,
    scored,
)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_QUANTITIES = (
    TEST_LOSS,
    TRAIN_LOSS,
    TEST_ACCURACY,
    TRAIN_ACCURACY,
    KERNEL,
    HAMMING,
    PARAMETERS,
    Quantity("delta_mean", "mean δ"),
    Quantity("delta_std", "spread of δ over units"),
    Quantity("delta_drift", "drift of δ"),
)
_BINS = 1e20  # histograms end here; TensorBoard raises on values that all lie beyond
_BAND = ("mean", "low", "high")
FIGURES_RUN = "_figures"


def run_names(labels: list[str]) -> list[str]:
    """A folder name for each label: safe characters only, distinct.

    >>> run_names(["unbalanced(tau=0.1, delta=1)", "../x", "../x"])
    ['unbalanced_tau=0.1_delta=1', 'x', 'x-2']
    """
    found: list[str] = []
    for label in labels:
        name = stem = re.sub(r"[^\w.=+-]+", "_", label, flags=re.ASCII).strip("._")[:120] or "cell"
        number = 1
        while name in found:
            number += 1
            name = f"{stem}-{number}"
        found.append(name)
    return found


def _scalars(writer: "SummaryWriter", tables: dict[str, pd.DataFrame]) -> None:
    """Mean and band of every quantity: one event a step, which is some ten times faster than one a number."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    steps = sorted({step for table in tables.values() for step in table.index})
    rows = {name: table[list(_BAND)].to_dict("index") for name, table in tables.items()}
    for step in steps:
        values = [
            Summary.Value(tag=f"{name}/{part}", simple_value=rows[name][step][part])
            for name in rows
            if step in rows[name]
            for part in _BAND
        ]
        writer.file_writer.add_summary(Summary(value=values), int(step))  # pyright: ignore[reportOptionalMemberAccess]


def _histograms(writer: "SummaryWriter", curves: pd.DataFrame) -> None:
    """δ of every hidden unit of every seed."""
    for step, rows in curves.dropna(subset=["delta"]).groupby("step"):
        values = np.concatenate([np.asarray(row, dtype=np.float64) for row in rows["delta"]])
        values = values[np.abs(values) < _BINS]
        if values.size:
            writer.add_histogram("delta per unit", values, int(step))  # pyright: ignore[reportArgumentType]


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _hparams(writer: "SummaryWriter", cell: Any, trials: pd.DataFrame) -> None:
    """The cell's scheme and parameters, beside the final means that TensorBoard's table of hparams shows."""
    from torch.utils.tensorboard.summary import hparams

    settings = {"scheme": cell.name, **{name: _plain(value) for name, value in cell.parameters.items()}}
    settings["lr"] = float(trials["lr"].astype("float64").mean())
    metrics = {f"final/{each.column}": mean(trials[each.column], each.logarithmic) for each in _QUANTITIES if each.column in trials}
    metrics["final/reached"] = float(trials["sustained_reached"].notna().mean())
    metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
    # `add_hparams` would open a run of its own, named by the clock.
    for summary in hparams(settings, metrics):
        writer.file_writer.add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]
    for name, value in metrics.items():
        writer.add_scalar(name, value)


def _pictures(writer: "SummaryWriter", figures: Mapping[str, Figure], step: int) -> None:
    for name, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        writer.add_image(name, np.asarray(canvas.buffer_rgba())[:, :, :3], step, dataformats="HWC")
    layout = {quantity.label: ["Margin", [f"{quantity.column}/{part}" for part in _BAND]] for quantity in _QUANTITIES}
    writer.add_custom_scalars({"mean and band over seeds": layout})


def _fill(folder: Path, protocol: Any, trials: pd.DataFrame, curves: pd.DataFrame, figures: Mapping[str, Figure]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    cells = protocol.cells()
    quantities = [quantity for quantity in _QUANTITIES if quantity.column in curves]  # not every table has accuracies
    table = finals(largest_size(scored(protocol, trials))[0], curves, quantities)  # steps of unlike sizes have no mean
    found = {quantity.column: bands(table, curves, quantity) for quantity in quantities}
    points = curves.merge(table[["trial", "cell_index"]], on="trial").set_index("cell_index")
    for index, name in enumerate(run_names([cell.label for cell in cells])):
        own = table[table["cell_index"] == index]
        if own.empty:
            continue
        with SummaryWriter(folder / name) as writer:
            _scalars(writer, {column: each[index] for column, each in found.items() if index in each})
            if index in points.index:
                _histograms(writer, points.loc[[index]])
            _hparams(writer, cells[index], own)
    with SummaryWriter(folder / FIGURES_RUN) as writer:
        _pictures(writer, figures, protocol.budget())


def write(folder: Path, protocol: Any, trials: pd.DataFrame, curves: pd.DataFrame, figures: Mapping[str, Figure]) -> None:
    """Write everything about a benchmark's results to `folder` anew, in place of what it held.

    Args:
        folder: TensorBoard's log directory; only what this function wrote may stand in it.
        protocol: its `cells()`, `seeds` and budget are read.
        trials: table of trials.
        curves: table of their curves.
        figures: pictures by name, for the run `_figures`.

    Raises:
        UsageError: no trial was run.
        StorageError: the operating system refuses.
    """
    folder = Path(folder)
    fresh, old = (folder.with_name(f".{folder.name}.{part}.{os.getpid()}") for part in ("new", "old"))
    try:
        _fill(fresh, protocol, trials, curves, figures)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except OSError as error:
        raise StorageError(
            f"TensorBoard folder `{folder}` cannot be written: {error.strerror}; free space or choose another `--out`"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
