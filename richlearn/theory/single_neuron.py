"""A single linear hidden neuron, f(x) = a·wᵀx: the exact solution of its gradient flow."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory import _neuron_flow as flows
from richlearn.theory._arrays import Array, ArrayLike, finite, has_tensor, positive, to_numpy, to_torch
from richlearn.theory._linear import ratio
from richlearn.theory._neuron_flow import Flow, dot, norm

_Method = TypeVar("_Method", bound=Callable[..., Any])
_PROJECTOR = 1e-8  # largest relative error of xᵀx = λΠ


class Stages(NamedTuple):
    """Two times of a trajectory, shapes (*batch): `fit` of the loss, `align` of the kernel; nan where nothing happens."""

    fit: Array
    align: Array


def _broadcast(a0: ArrayLike, w0: ArrayLike, beta_star: ArrayLike, lr_a: ArrayLike, lr_w: ArrayLike) -> dict[str, np.ndarray]:
    """The arguments by name, checked, as read-only arrays of one batch."""
    given = {"a0": finite("a0", a0), "w0": finite("w0", w0, "d"), "beta_star": finite("beta_star", beta_star, "d")}
    given |= {"lr_a": positive("lr_a", lr_a), "lr_w": positive("lr_w", lr_w)}
    vectors = {name: given[name].shape[-1:] for name in ("w0", "beta_star")}
    if len({*vectors.values()}) > 1 or vectors["w0"] == (0,):
        raise ParameterError(f"`w0` and `beta_star` must have one d ≥ 1, got shapes {given['w0'].shape} and {given['beta_star'].shape}")
    shapes = [each.shape[:-1] if name in vectors else each.shape for name, each in given.items()]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ParameterError(f"the batches of `a0`, `w0`, `beta_star`, `lr_a`, `lr_w` must broadcast, got {shapes}") from error
    found = {name: np.broadcast_to(each, batch + vectors.get(name, ())).copy() for name, each in given.items()}
    for each in found.values():
        each.flags.writeable = False
    return found


def _over_time(method: _Method) -> _Method:
    """`method`, written for a flat batch and times (n or 1, T), for the times and the kind of array that a user gives."""

    @functools.wraps(method)
    def wrapped(self: "SingleNeuron", times: ArrayLike, *rest: ArrayLike) -> Any:
        grid, axis = self._grid(times)
        return self._given(method(self, grid, *to_numpy(rest)), axis, has_tensor((times, rest)))

    return cast(_Method, wrapped)


def _over_batch(method: _Method) -> _Method:
    """The same for a method without times."""

    @functools.wraps(method)
    def wrapped(self: "SingleNeuron") -> Any:
        return self._given(method(self))

    return cast(_Method, wrapped)


@dataclass(frozen=True, eq=False)
class SingleNeuron:
    """The exact gradient flow of f(x) = a·wᵀx on ½Σ(f(x_i) − y_i)² for whitened inputs, XᵀX = I.

    ȧ = −η_a wᵀ(aw − β*), ẇ = −η_w a(aw − β*), with P₀ = w₀ᵀβ*, s = ‖β*‖, δ = η_w a₀² − η_a‖w₀‖², R = √(δ² + 4η_aη_w s²), R± = R ± δ,
    u = (R₊a₀ + 2η_aP₀)/(2R), v = (R₋a₀ − 2η_aP₀)/(2R) has the solution

        a = (u + v e^{−Rt})/D,   w = (R₋u − R₊v e^{−Rt})/(2η_a s D)·β*/s + (w₀ − its part along β*)·e^{−R₊t/2}/D,
        D² = e^{−R₊t} + 2η_w[u² E(R₊) + 2uv·(e^{−Rt} − e^{−R₊t})/δ + v² e^{−R₊t} E(R₋)],   E(c) = (1 − e^{−ct})/c.

    It is exact for the floats as given, next to the separatrix too, for every δ, sign of a₀, rate and time; a₀, w₀ and β* may be 0.
    Kunin et al. 2024, section 3; the solution itself is this library's own. Frozen. Methods take `times` of shape (T,), a scalar (their
    results then lack the axis T) or (*batch, T), and return tensors if they or the neuron were given any, else NumPy arrays.

    Args:
        a0: outgoing weight at t = 0, (*batch).
        w0: incoming weights at t = 0, (*batch, d).
        beta_star: β* = Xᵀy, (*batch, d).
        lr_a, lr_w: η_a, η_w > 0, (*batch). The five are broadcast against one another.

    Raises:
        ParameterError: an argument is not finite, a rate is not positive, shapes do not fit, or δ overflows.

    >>> a, w = SingleNeuron(1.0, [-1.0, 0.0], [0.0, 1.0]).at([0.0, 1.0, 1e6])
    >>> a.round(3).tolist(), w.round(3).tolist()
    ([1.0, 0.79, 1.0], [[-1.0, 0.0], [-0.512, 0.602], [0.0, 1.0]])
    """

    a0: ArrayLike
    w0: ArrayLike
    beta_star: ArrayLike
    lr_a: ArrayLike = 1.0
    lr_w: ArrayLike = 1.0
    _basis: np.ndarray | None = field(default=None, kw_only=True, repr=False)  # (d, r), of the space that the inputs span, if not all
    _eigenvalue: float = field(default=1.0, kw_only=True, repr=False)  # λ of XᵀX = λΠ: the flow of `_flow` at time λt
    _batch: tuple[int, ...] = field(init=False, repr=False)
    _tensors: bool = field(init=False, repr=False)
    _unseen: np.ndarray = field(init=False, repr=False)  # (n, d), the part of w that no input sees
    _flow: Flow = field(init=False, repr=False)  # of a and of what the inputs see of w

    def __post_init__(self) -> None:
        tensors = has_tensor((self.a0, self.w0, self.beta_star, self.lr_a, self.lr_w))
        given = _broadcast(self.a0, self.w0, self.beta_star, self.lr_a, self.lr_w)
        batch = given["a0"].shape
        a0, w0, beta, lr_a, lr_w = (each.reshape(math.prod(batch), *each.shape[len(batch) :]) for each in given.values())
        seen, target = (each if self._basis is None else each @ self._basis for each in (w0, beta))
        unseen = np.zeros_like(w0) if self._basis is None else w0 - seen @ self._basis.T
        with np.errstate(over="ignore", invalid="ignore"):
            flow = flows.solve(a0, seen, target, lr_a, lr_w)
            if not np.isfinite((flow.plus + flow.minus) ** 2).all():
                raise ParameterError("`a0`, `w0`, `beta_star` and the rates must leave δ² and ‖β*‖² finite in float64, got an overflow")
        kept = {name: to_torch(each) if tensors else each for name, each in given.items()}
        for name, value in {**kept, "_batch": batch, "_tensors": tensors, "_unseen": unseen, "_flow": flow}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def on_data(
        cls, a0: ArrayLike, w0: ArrayLike, x: ArrayLike, y: ArrayLike, lr_a: ArrayLike = 1.0, lr_w: ArrayLike = 1.0
    ) -> "SingleNeuron":
        """The flow on inputs whose non-zero principal variances are equal, XᵀX = λΠ with a projector Π; one data point is such a case.

        a and Πw follow the whitened flow with β* = Xᵀy/λ at rates λη_a, λη_w; (I − Π)w stays. `basin`, `regime`, `loss` (above the least
        possible one), `stages` and `kernel_distance` (of K on these inputs) depend on Πw alone, the first two through η_w a₀² − η_a‖Πw₀‖²;
        every other method, `delta` included, is about the whole w and the rates as given. Kunin et al. 2024, section 3.

        Args:
            x: inputs X, (n, d).
            y: targets, (*batch, n).

        Raises:
            ParameterError: XᵀX is not λΠ (to a relative 1e-8) or X is 0, shapes do not fit, or as for the class.

        >>> float(SingleNeuron.on_data(1.0, [-1.0, 0.0], [[0.5, 1.0]], [1.1]).loss(100.0).round(9))
        0.0
        """
        inputs, targets = finite("x", x, "n d"), finite("y", y, "n")
        if inputs.ndim != 2 or targets.shape[-1] != len(inputs):
            raise ParameterError(f"`x` and `y` must have shapes (n, d) and (…, n), got {inputs.shape} and {targets.shape}")
        _, spread, axes = np.linalg.svd(inputs, full_matrices=False)
        seen = spread**2 > _PROJECTOR * (spread**2).max(initial=0.0)
        eigenvalues = spread[seen] ** 2
        if not seen.any() or np.ptp(eigenvalues) > _PROJECTOR * eigenvalues[0]:
            got = f"non-zero eigenvalues from {eigenvalues.min():g} to {eigenvalues.max():g}" if seen.any() else "none that is not 0"
            raise ParameterError(f"`x` must have xᵀx = λΠ, all its non-zero eigenvalues equal, got {got}")
        beta_star = targets @ inputs / eigenvalues.mean()
        if has_tensor((x, y)):
            beta_star = to_torch(beta_star)
        return cls(a0, w0, beta_star, lr_a, lr_w, _basis=axes[seen].T, _eigenvalue=float(eigenvalues.mean()))

    def _grid(self, times: ArrayLike) -> tuple[np.ndarray, tuple[int, ...]]:
        """`times` as an array (n or 1, T), and their last axis as the result shows it: (T,) or ()."""
        checked = finite("times", times)
        if (checked < 0).any():
            raise ParameterError(f"`times` must not be negative, got {checked.min():g}")
        if checked.ndim <= 1:
            return checked.reshape(1, checked.size), checked.shape
        if checked.shape[:-1] != self._batch:
            raise ParameterError(f"`times` must have shape (), (T,) or (*batch, T) with batch {self._batch}, got {checked.shape}")
        return checked.reshape(math.prod(self._batch), checked.shape[-1]), checked.shape[-1:]

    def _given(self, found: Any, axis: tuple[int, ...] | None = None, tensors: bool = False) -> Any:
        """Flat results, (n, …) or with `axis` (n, T, …), in the shape of the batch and as the kind that came in."""
        if isinstance(found, tuple):
            parts = [self._given(each, axis, tensors) for each in found]
            return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
        shape = self._batch + (found.shape[1:] if axis is None else axis + found.shape[2:])
        return to_torch(found.reshape(shape)) if tensors or self._tensors else found.reshape(shape)

    def _seen(self, times: Any) -> tuple[np.ndarray, np.ndarray]:
        return flows.evolve(self._flow, self._eigenvalue * times)

    def _whole(self, w: np.ndarray) -> np.ndarray:
        """w, (n, …, d), from what the inputs see of it, (n, …, r)."""
        unseen = self._unseen if w.ndim == 2 else self._unseen[:, None]
        return w if self._basis is None else w @ self._basis.T + unseen

    def _states(self, times: Any) -> tuple[np.ndarray, np.ndarray]:
        a, w = self._seen(times)
        return a, self._whole(w)

    @property
    @_over_batch
    def delta(self) -> Array:
        """δ = η_w a₀² − η_a‖w₀‖², (*batch), conserved. Kunin et al. 2024, section 3."""
        return self._flow.delta - self._flow.lr_a * dot(self._unseen, self._unseen)

    @property
    @_over_batch
    def basin(self) -> Array:
        """sgn a(∞) = sgn(η_a w₀ᵀβ* + (a₀/2)(δ + R)), (*batch): −1, 1, or 0 on the stable manifold of the saddle a = 0. Section 3."""
        return flows.basin(self._flow)

    @_over_time
    def at(self, times: ArrayLike) -> tuple[Array, Array]:
        """a, (*batch, T), and w, (*batch, T, d), at `times` ≥ 0.

        Raises:
            ParameterError: a time is negative or not finite, or `times` has another shape than (), (T,) or (*batch, T).
        """
        return self._states(times)

    @_over_time
    def beta(self, times: ArrayLike) -> Array:
        """β = a·w, (*batch, T, d)."""
        a, w = self._states(times)
        return a[..., None] * w

    @_over_time
    def mu(self, times: ArrayLike) -> Array:
        """μ = a‖w‖, (*batch, T), with the sign of a."""
        a, w = self._states(times)
        return a * norm(w)

    @_over_time
    def phi(self, times: ArrayLike) -> Array:
        """φ = wᵀβ*/(‖w‖‖β*‖), (*batch, T): the cosine of their angle; nan where w or β* is 0."""
        seen = self._seen(times)[1]
        lengths = norm(self._whole(seen)) * (self._flow.strength > 0)[:, None]
        return np.clip(ratio(dot(seen, self._flow.direction[:, None]), lengths, np.nan), -1.0, 1.0)

    @_over_time
    def kappa(self, times: ArrayLike) -> Array:
        """κ = η_w a² + η_a‖w‖² = √(δ² + 4η_aη_w μ²), (*batch, T)."""
        a, w = self._states(times)
        return self._flow.lr_w[:, None] * a**2 + self._flow.lr_a[:, None] * dot(w, w)

    @_over_time
    def matrix(self, times: ArrayLike) -> Array:
        """M = η_w a² I + η_a w wᵀ, (*batch, T, d, d): K = X M Xᵀ. Kunin et al. 2024, section 3."""
        return self._kernel(*self._states(times))

    @_over_time
    def kernel(self, times: ArrayLike, x: ArrayLike) -> Array:
        """K = x M xᵀ, (*batch, T, n, n), on any inputs `x`, (n, d).

        Raises:
            ParameterError: `x` is not (n, d), or as for `at`.
        """
        inputs = finite("x", x, "n d")
        a, w = self._states(times)
        if inputs.ndim != 2 or inputs.shape[1] != w.shape[-1]:
            raise ParameterError(f"`x` must have shape (n, {w.shape[-1]}), got {inputs.shape}")
        return self._kernel(a, w, inputs)

    def _kernel(self, a: np.ndarray, w: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
        gram, outputs = (np.eye(w.shape[-1]), w) if x is None else (x @ x.T, w @ x.T)
        of_a = (self._flow.lr_w[:, None] * a**2)[..., None, None] * gram
        return of_a + self._flow.lr_a[:, None, None, None] * outputs[..., :, None] * outputs[..., None, :]

    @_over_time
    def kernel_distance(self, times: ArrayLike) -> Array:
        """S(0, t) = ½‖K₀/‖K₀‖ − K_t/‖K_t‖‖², (*batch, T), of K on the training inputs; nan if K₀ = 0. Kunin et al. 2024, eq. 2."""
        return flows.kernel_distance(self._flow, *self._seen(times))

    @_over_batch
    def final_kernel_distance(self) -> Array:
        """The limit of S(0, t) for t → ∞, (*batch)."""
        return flows.final_kernel_distance(self._flow)

    @_over_time
    def loss(self, times: ArrayLike) -> Array:
        """½‖β − β*‖², (*batch, T)."""
        return self._eigenvalue * flows.excess(self._flow, *self._seen(times))

    @_over_batch
    def final(self) -> tuple[Array, Array]:
        """The limit point: a(∞), (*batch), and w(∞), (*batch, d); the saddle a = 0 where `basin` is 0."""
        a, w = flows.limit(self._flow)
        return a, self._whole(w)

    @_over_batch
    def stages(self) -> Stages:
        """`fit`, first time at which the loss has made half of its whole decrease, and `align`, first time with S(0, t) ≥ ½S(0, ∞).

        To a relative 1e-10 by bisection. S may overshoot; of its crossings the first counts, as far as a search over times a factor 1.05
        apart sees it. nan where nothing happens: `fit` where the loss stays (to 1e-12 of it), `align` where S(0, ∞) ≤ 1e-24 or K₀ = 0.
        """
        fit, align = flows.stages(self._flow)
        return Stages(fit / self._eigenvalue, align / self._eigenvalue)

    def regime(self, lazy: float = 2.0, delayed: float = 2.0) -> np.ndarray | str:
        """ "lazy" where δ > lazy·√(η_aη_w)s, "delayed_rich" where δ < −delayed·√(η_aη_w)s, else "rich": (*batch), or one str.

        The limits of section 3. At the default thresholds δ² is half of R² = δ² + 4η_aη_w s²; what tends to happen, not a measured S.

        Raises:
            ParameterError: a threshold is not positive.

        >>> SingleNeuron([2.0, 1.0, 0.1], [[-1.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]], [0.0, 1.0]).regime().tolist()
        ['lazy', 'rich', 'delayed_rich']
        """
        flow, thresholds = self._flow, (positive("lazy", lazy), positive("delayed", delayed))
        unit = np.sqrt(flow.lr_a * flow.lr_w) * flow.strength
        names = np.select([flow.delta > thresholds[0] * unit, flow.delta < -thresholds[1] * unit], ["lazy", "delayed_rich"], "rich")
        return names.reshape(self._batch) if self._batch else str(names[0])
