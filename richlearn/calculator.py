"""The theory as a calculator: what a person asks on the command line, answered in numbers and in a sentence."""

from typing import Any

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory import SingleNeuron, UnitDelta, isotropic_pair, regime_by_shape, shape_of

_MEANING = {
    "lazy": "the kernel hardly moves while the function is fitted",
    "rich": "the kernel turns while the function is fitted",
    "delayed_rich": "the function along the first direction is fitted first, and the kernel turns later",
}


def vector(name: str, text: str) -> np.ndarray:
    """The numbers of `-1,0`.

    Raises:
        ParameterError: they are not numbers with commas between.
    """
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise ParameterError(f"`{name}` must be numbers with commas between, such as -1,0; got `{text}`") from None


def neuron(w0: np.ndarray, beta: np.ndarray, delta: float | None, a0: float | None, lr_a: float, lr_w: float) -> SingleNeuron:
    """The neuron with readout `a0` and weights `w0`; or, of a given δ, the one whose function is β₀ = `w0`, with a > 0.

    Raises:
        ParameterError: both or neither of δ and a₀, vectors of unlike length, or no positive rates.
    """
    if (delta is None) == (a0 is None):
        raise ParameterError("give one of `--delta` (then β₀ = w0) and `--a0` (then w0 is w itself)")
    if w0.shape != beta.shape:
        raise ParameterError(f"`--w0` and `--beta` must have the same number of values, got {w0.size} and {beta.size}")
    given = {"--w0": w0, "--beta": beta, "--delta": delta, "--a0": a0, "--lr-a": lr_a, "--lr-w": lr_w}
    if wrong := [name for name, value in given.items() if value is not None and not np.isfinite(value).all()]:
        raise ParameterError(f"`{wrong[0]}` must be finite, got {given[wrong[0]]}")
    if delta is None:
        assert a0 is not None
        return SingleNeuron(a0, w0, beta, lr_a=lr_a, lr_w=lr_w)
    if not min(lr_a, lr_w) > 0:
        raise ParameterError(f"learning rates must be positive, got {lr_a:g} and {lr_w:g}")
    (w,), ((a,),) = isotropic_pair(1, w0.size, 1, delta, w0[:, None], lr_a=lr_a, lr_w=lr_w)
    if a == 0:
        raise ParameterError(f"`--delta` {delta:g} with β₀ = 0 leaves a = 0: give `--a0` and `--w0` instead")
    return SingleNeuron(abs(a), w * np.sign(a), beta, lr_a=lr_a, lr_w=lr_w)


def single_neuron(exact: SingleNeuron) -> dict[str, Any]:
    """Regime, times of its stages, and the end of a neuron's run; None where a stage never comes."""
    regime, stages = str(exact.regime()), exact.stages()
    a, w = exact.final()
    fit, align, distance = (float(x) if np.isfinite(x) else None for x in (*stages, exact.final_kernel_distance()))
    still = "nothing is learned from this start" if fit is None else "but from this start the kernel never turns"
    return {
        "regime": regime,
        "meaning": _MEANING[regime] if align is not None else still,
        "delta": float(exact.delta),
        "fit_time": fit,
        "align_time": align,
        "final_kernel_distance": distance,
        "final_a": float(a),
        "final_w": np.asarray(w).tolist(),
    }


def shape(dimension: int, width: int, outputs: int, delta: float) -> dict[str, Any]:
    """Shape of a two-layer linear network, and its regime at a large |δ| of every unit against ‖β*‖ = 1."""
    regime = regime_by_shape(dimension, width, outputs, delta)
    return {"shape": shape_of(dimension, width, outputs), "regime": regime, "meaning": _MEANING[regime]}


_PARAMETRISATIONS = ("ntk", "mean_field", "mup")


def unit_delta(parametrisation: str, fan_in: int, width: int, fan_out: int) -> dict[str, Any]:
    """The distribution of δ_k of a hidden unit at random initialisation.

    Raises:
        ParameterError: an unknown parametrisation, or a size below 1.
    """
    if parametrisation not in _PARAMETRISATIONS:
        raise ParameterError(f"unknown parametrisation `{parametrisation}`; valid: {', '.join(_PARAMETRISATIONS)}")
    found: UnitDelta = getattr(UnitDelta, parametrisation)(fan_in, width, fan_out)
    quantiles = {f"quantile_{level}": float(found.ppf(level / 100)) for level in (5, 50, 95)}
    return {"mean": float(found.mean()), "std": float(found.std()), "prob_upstream": float(found.prob_upstream()), **quantiles}
