"""The interface of a prediction: the same named quantities of a network as it is, and as theory says it will be."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from richlearn.errors import NotApplicable
from richlearn.theory import deep_kernel

Weights: TypeAlias = Sequence[np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What a network learns from: inputs x (n, d), targets y (n, c), and the rate of each of its weights, all float64."""

    x: np.ndarray
    y: np.ndarray
    rates: tuple[float, ...]


def named(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """`values` (…, k) or (…, k, l) with the last axes as names: `w[0]`, `w[1]`, … or `w[0,0]`, …; a series each."""
    places = np.ndindex(values.shape[1:])
    return {f"{name}[{','.join(map(str, place))}]": values[:, *place] for place in places}


def quantity(name: str) -> str:
    """The quantity that a component belongs to: `w` of `w[0,1]`."""
    return name.partition("[")[0]


def errors(observed: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By quantity: max_t ‖observed − predicted‖ / max_t ‖predicted‖, over its components (shape (T,) each)."""
    found = {}
    for group in dict.fromkeys(map(quantity, predicted)):
        names = [name for name in predicted if quantity(name) == group]
        there, here = (np.stack([each[name] for name in names]) for each in (predicted, observed))
        scale = float(np.linalg.norm(there, axis=0).max())
        off = float(np.linalg.norm(here - there, axis=0).max())
        found[group] = off / scale if scale else off
    return found


class Prediction(ABC):
    """Theory of gradient flow on ½Σ‖f(x) − y‖², for networks whose weights are matrices (out, in), in order of use."""

    def function(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """f(x), (n, c), of the networks that the theory is of; here linear ones."""
        for weight in weights:
            x = x @ weight.T
        return x

    @abstractmethod
    def observe(self, weights: Weights, start: Weights, setting: Setting) -> dict[str, float]:
        """The quantities of a network that started with weights `start` and now has `weights`."""

    @abstractmethod
    def predict(self, start: Weights, setting: Setting, times: np.ndarray) -> dict[str, np.ndarray]:
        """The same quantities at `times` (T,) by theory, a series (T,) each.

        Raises:
            ParameterError: the start or the data do not meet the conditions of the theory.
        """


def two_layers(weights: Weights, outputs: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """W (h, d) and A (h, c) of f = Aᵀσ(Wx).

    Raises:
        NotApplicable: another number of layers, or of outputs.
    """
    if len(weights) != 2:
        raise NotApplicable(f"this theory is of two layers, the network has {len(weights)}")
    w, a = weights[0], weights[1].T
    if outputs is not None and a.shape[1] != outputs:
        raise NotApplicable(f"this theory is of {outputs} output, the network has {a.shape[1]}")
    return w, a


def distance(k1: np.ndarray, k2: np.ndarray) -> np.ndarray:
    """Kernel distance ½‖K₁/‖K₁‖ − K₂/‖K₂‖‖² of kernels (…, n, n), which keeps its digits near 0."""
    one, two = (k / np.linalg.norm(k, axis=(-2, -1), keepdims=True) for k in (k1, k2))
    return 0.5 * np.square(one - two).sum((-2, -1))


def turned(weights: Weights, start: Weights, setting: Setting) -> float:
    """S(0, t): how far the full kernel of a linear network with `weights` has turned from the one at the start."""
    return float(distance(*(deep_kernel(each, setting.x, setting.rates) for each in (weights, start))))
