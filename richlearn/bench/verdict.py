"""From a trial's curve to its outcome: reached or censored, lazy or rich."""

import math
from typing import Any

import numpy as np
import pandas as pd

from richlearn.metrics.threshold import StepsToThreshold
from richlearn.predictions.monitor import run_errors

_MOVED = 0.5  # relative parameter distance that counts as large beside a small kernel distance


def _crossing(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """First step at which the piecewise linear curve is at or above `level`."""
    index = int(np.argmax(values >= level))
    if index == 0:
        return float(steps[0])
    share = (level - values[index - 1]) / (values[index] - values[index - 1])
    return float(steps[index - 1] + share * (steps[index] - steps[index - 1]))


def regime(curve: pd.DataFrame, thresholds: dict[str, float]) -> tuple[str | None, str]:
    """The verdict on one trial, and what is odd about it.

    With S the kernel distance and F = 1 − loss/loss₀ the fitted training loss, t_S and t_F the steps at which each reaches
    half of its final value: *aligned_not_fitted* if S_end ≥ kernel and loss_end > fit·loss₀; else *lazy* if S_end < kernel;
    else *rich* if t_S ≤ delay·t_F; else *delayed_rich*.

    Args:
        curve: steps in order; train_loss everywhere, kernel_distance and parameter_distance_relative where measured.
        thresholds: `kernel`, `fit`, `delay` of the protocol.
    """
    measured = curve.dropna(subset=["kernel_distance"])
    if len(measured) < 2:
        return None, ""
    distance, start, end = (
        measured["kernel_distance"].to_numpy(float),
        float(curve["train_loss"].iloc[0]),
        float(curve["train_loss"].iloc[-1]),
    )
    if distance[-1] >= thresholds["kernel"] and end > thresholds["fit"] * start:
        return "aligned_not_fitted", ""
    if distance[-1] < thresholds["kernel"]:
        moved = float(measured["parameter_distance_relative"].iloc[-1])
        return "lazy", f"parameters moved by {moved:.2g} of their norm, the kernel did not" if moved >= _MOVED else ""
    fitted = 1 - curve["train_loss"].to_numpy(float) / start
    t_kernel = _crossing(measured["step"].to_numpy(float), distance, distance[-1] / 2)
    t_fit = _crossing(curve["step"].to_numpy(float), fitted, fitted[-1] / 2)
    return ("rich" if t_kernel <= thresholds["delay"] * t_fit else "delayed_rich"), ""


def _crossings(curve: pd.DataFrame, quantity: str, metric: StepsToThreshold) -> dict[str, int | None]:
    """First and first sustained check at which `quantity` is beyond the metric's threshold."""
    for step, value in zip(curve["step"], curve[quantity], strict=True):
        metric.update(int(step), float(value))
    found = {name: int(value) for name, value in metric.compute().items()}
    return {f"{name}_reached": None if step < 0 else step for name, step in found.items()}


def _reached(curve: pd.DataFrame, goal: dict[str, Any], zero_loss: float) -> dict[str, int | None]:
    """When the goal was reached; where it is an accuracy of the test set, also when the same held on the training set (`fit_…`)."""
    sustained = goal["sustained"]
    if not goal["quantity"].endswith("accuracy"):
        below = StepsToThreshold(goal["fraction_of_zero_predictor"] * zero_loss, direction="below", sustained=sustained)
        return _crossings(curve, goal["quantity"], below)
    above = [StepsToThreshold(goal["threshold"], direction="above", sustained=sustained) for _ in range(2)]
    fitted = _crossings(curve, "train_accuracy", above[1])
    return _crossings(curve, goal["quantity"], above[0]) | {f"fit_{name}": step for name, step in fitted.items()}


def _accuracies(curve: pd.DataFrame) -> dict[str, float]:
    """Of a classification the final accuracies, and the best one on the test set, which is chosen by looking at it: optimistic."""
    if "test_accuracy" not in curve:
        return {}
    found = {name: float(curve[name].iloc[-1]) for name in ("train_accuracy", "test_accuracy")}
    return found | {"best_test_accuracy": float(curve["test_accuracy"].max())}


def outcome(curve: pd.DataFrame, spec: dict[str, Any], zero_loss: float, diverged_at: int | None) -> dict[str, Any]:
    """The columns of the trials table that a curve decides.

    Args:
        curve: all rows of one trial, steps in order.
        spec: the trial's content.
        zero_loss: test loss of the zero predictor.
        diverged_at: the update after which the trial was not finite, if it diverged.
    """
    found: dict[str, Any] = {"zero_loss": zero_loss, "status": "finished" if diverged_at is None else "diverged"}
    if diverged_at is not None:
        found |= {"diverged_at": diverged_at, "reason": f"not finite after update {diverged_at}"}
    if curve.empty:
        return found
    found |= _reached(curve, spec["goal"], zero_loss) | {"initial_train_loss": float(curve["train_loss"].iloc[0])}
    if diverged_at is None:
        verdict, note = regime(curve, spec["regime"])
        found |= {name: float(curve[name].iloc[-1]) for name in ("train_loss", "test_loss")} | _accuracies(curve)
        found |= {"regime": verdict, "regime_note": note}
    return found | _measured(curve, found.get("sustained_reached")) | _predicted(curve)


def _predicted(curve: pd.DataFrame) -> dict[str, Any]:
    """How far the run was from theory, where there was one; the worst of its quantities."""
    if "predicted" not in curve or (rows := curve.dropna(subset=["predicted"])).empty:
        return {}
    return {"prediction_error": float(np.max(list(run_errors(rows).values())))}


def _measured(curve: pd.DataFrame, sustained: int | None) -> dict[str, Any]:
    """How the network had moved when the goal was reached for good, else at the end."""
    rows = curve.dropna(subset=["parameter_distance"])
    if rows.empty:
        return {}
    after = rows[rows["step"] >= (math.inf if sustained is None else sustained)]
    row = (after if len(after) else rows.tail(1)).iloc[0]
    found = {name: row.get(name) for name in ("kernel_distance", "hamming_distance", "delta_drift")}
    found |= {
        "measured_at": int(row["step"]),
        "parameter_distance": row["parameter_distance_relative"],
        "delta_init": rows.get("delta_mean", pd.Series([None])).iloc[0],
    }
    return found
