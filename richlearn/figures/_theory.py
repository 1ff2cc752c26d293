"""What the pictures of theory share: a run's observed and predicted quantities as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from richlearn.errors import UsageError
from richlearn.figures._style import PALETTE, symbol
from richlearn.figures._tables import scored
from richlearn.predictions.base import quantity
from richlearn.predictions.monitor import series

Series = dict[str, np.ndarray]
_SWEPT = ("delta", "lam", "epsilon")


@dataclass(frozen=True)
class Run:
    """One trial beside theory: times t = learning rate × updates (T,), and by name what was observed and predicted, (T,) each."""

    cell: Any
    times: np.ndarray
    observed: Series
    predicted: Series

    def of(self, name: str, source: str = "observed") -> np.ndarray:
        """All components of a quantity, (T, components)."""
        held: Series = getattr(self, source)
        return np.stack([values for key, values in held.items() if quantity(key) == name], axis=1)


def runs(protocol: Any, trials: pd.DataFrame, curves: pd.DataFrame) -> list[Run]:
    """The first seed's trial of every cell, in the protocol's order, of those that were compared with theory.

    Raises:
        UsageError: there is none.
    """
    table, cells, found = scored(protocol, trials), protocol.cells(), []
    for _, trial in table[table["seed"] == table["seed"].min()].drop_duplicates("cell_index").iterrows():
        rows = curves[(curves["trial"] == trial["trial"]) & curves["observed"].notna()].sort_values("step")
        if len(rows):
            times = trial["lr"] * rows["step"].to_numpy(np.float64)
            found.append(Run(cells[trial["cell_index"]], times, series(rows["observed"]), series(rows["predicted"])))
    if not found:
        raise UsageError(f"`{protocol.name}` has no run that was compared with theory; its `prediction` may not serve any row")
    return found


def colours(found: list[Run]) -> list[str]:
    """A colour a run, the same for the same parameters in every variant."""
    keys = [str(run.cell.arguments) for run in found]
    places = list(dict.fromkeys(keys))
    return [PALETTE[places.index(key) % len(PALETTE)] for key in keys]


def swept(run: Run) -> str:
    """The balance of a run as a legend shows it, such as `δ = −1`, or else its scheme's name; what rows have in common stays away."""
    shown = [f"{symbol(name)} = {run.cell.arguments[name]:g}" for name in _SWEPT if name in run.cell.arguments]
    return ", ".join(shown).replace("-", "−") or run.cell.name


def explain(axes: Axes) -> None:
    """Legend entries that say what lines and dots are."""
    axes.plot([], [], "-", color="black", label="theory")
    axes.plot([], [], "o", color="black", markersize=3, label="simulation")
