"""A run beside what theory says of it."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from richlearn.errors import NotApplicable
from richlearn.networks import find
from richlearn.predictions.base import Prediction, Setting, errors
from richlearn.tasks.base import Split
from richlearn.tasks.losses import HALF_SSE, Loss
from richlearn.training._timed import Timed
from richlearn.training.members import views


def matrices(network: nn.Module) -> dict[str, np.ndarray]:
    """The network's weights by name in order of use, (out, in), float64.

    Raises:
        NotApplicable: it has other parameters than one matrix a layer.
    """
    # Copies: a stack shows all of its members through the same memory.
    held = {name: parameter.detach().double().cpu().numpy().copy() for name, parameter in network.named_parameters()}
    names = [layer.weight for layer in find(network).layers]
    if others := sorted(held.keys() - set(names)) or [name for name in names if held[name].ndim != 2]:
        raise NotApplicable(f"this theory is of networks of one matrix a layer, `{type(network).__name__}` has `{others[0]}`")
    return {name: held[name] for name in names}


@torch.no_grad()
def check_function(prediction: Prediction, network: nn.Module, inputs: Tensor) -> None:
    """Raise `NotApplicable` where the network computes something else with its weights than the theory's networks do."""
    other, source = copy.deepcopy(network).double(), torch.Generator().manual_seed(0)
    for parameter in other.parameters():  # units that cancel one another would hide their activation
        parameter.mul_(0.5 + torch.rand(parameter.shape, generator=source, dtype=torch.float64).to(parameter.device))
    x = inputs.double()
    found = other(x.to(next(other.parameters()).device)).cpu().numpy()
    wanted = prediction.function(list(matrices(other).values()), x.cpu().numpy())
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max(initial=0.0)):
        raise NotApplicable(f"`{type(prediction).__name__}` is of other functions than `{type(network).__name__}`, by its activation")


def rates_of(rates: Mapping[str, float], names: Iterable[str]) -> tuple[float, ...]:
    """The learning-rate multiplier of each named weight; 1 where absent."""
    return tuple(float(rates.get(name, 1.0)) for name in names)


def setting(split: Split, rates: Mapping[str, float], names: Iterable[str]) -> Setting:
    """What theory needs to know of data and learning rates."""
    x, y = (each.double().cpu().numpy() for each in (split.inputs, split.targets))
    return Setting(x, y, rates_of(rates, names))


class PredictionMonitor(Timed):
    """Observes at each time what a prediction speaks of; time t of gradient flow is learning rate × updates.

    Args:
        prediction: the theory.
        train: the whole training set; updates must see it whole, under plain gradient descent on `loss`.
        loss: of the training; ½Σ‖f(x) − y‖² is what the theory is of.
        times: optimiser updates at which to look.
        lr: base learning rate of every trial, by name, or one for all; of a user's own module that of its fastest parameter group.

    Raises:
        NotApplicable: another loss.

    Attributes:
        rows: one dict (trial, step, observed: pairs of name and value) per member and time.
    """

    def __init__(
        self, prediction: Prediction, train: Split, times: Iterable[int], lr: float | Mapping[str, float], *, loss: Loss = HALF_SSE
    ) -> None:
        if loss is not HALF_SSE:
            raise NotApplicable(f"theory is of the loss {HALF_SSE.name}, the task has {loss.name}")
        super().__init__(times)
        self.prediction, self.lr = prediction, lr
        self._data = setting(train, {}, ())
        self._starts: dict[str, tuple[list[np.ndarray], Setting]] = {}  # by trial

    def state_dict(self) -> dict[str, Any]:
        """Rows, and where each member started, as tensors: what a checkpoint that loads nothing but weights may hold."""
        starts = {trial: ([torch.from_numpy(each) for each in start], list(found.rates)) for trial, (start, found) in self._starts.items()}
        return super().state_dict() | {"starts": starts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up rows and starts."""
        super().load_state_dict(state_dict)
        for trial, (start, rates) in state_dict["starts"].items():
            self._starts[trial] = [each.numpy() for each in start], replace(self._data, rates=tuple(rates))

    def measure(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """Append a row per member."""
        with np.errstate(all="ignore"):  # a run that diverges is a status, not a warning
            self._observe(module, step)

    def _observe(self, module: LightningModule, step: int) -> None:
        for view in views(module):
            weights = matrices(view.network)
            now = list(weights.values())
            if view.trial not in self._starts:
                self._starts[view.trial] = now, replace(self._data, rates=rates_of(view.rates, weights))
            start, found = self._starts[view.trial]
            self.rows.append({"trial": view.trial, "step": step, "observed": list(self.prediction.observe(now, start, found).items())})

    def table(self) -> pd.DataFrame:
        """A row per trial and time: what was observed, and the same by theory (the prediction's extra observations stay alone)."""
        frame = pd.DataFrame(self.rows, columns=["trial", "step", "observed"])
        frame["predicted"] = None
        for trial, rows in frame.groupby("trial"):
            start, found = self._starts[str(trial)]
            rate = self.lr[str(trial)] if isinstance(self.lr, Mapping) else self.lr
            told = self.prediction.predict(start, found, rate * rows["step"].to_numpy(np.float64))
            frame.loc[rows.index, "predicted"] = pd.Series(
                [[(name, float(values[i])) for name, values in told.items()] for i in range(len(rows))], index=rows.index
            )
        return frame


def series(rows: pd.Series) -> dict[str, np.ndarray]:
    """By name, what a column of `PredictionMonitor.table` holds of one trial, (T,) each."""
    found = [dict(row) for row in rows]
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def run_errors(table: pd.DataFrame) -> dict[str, float]:
    """By quantity, how far one trial's run was from theory (`base.errors`), from its rows of `PredictionMonitor.table`."""
    return errors(series(table["observed"]), series(table["predicted"]))
