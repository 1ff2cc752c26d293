"""Motion of piecewise linear units in pieces: smooth within an activation pattern, with a decision where an input's kink is met."""

from collections.abc import Callable
from typing import cast

import numpy as np
from scipy.integrate import DOP853
from scipy.optimize import lsq_linear

from richlearn.errors import ParameterError
from richlearn.theory._linear import branches, ratio

_TURNS = 100_000  # changes of the activation pattern before giving up
_NOISE = 1e-12  # of a height over a kink, in units of the lengths of weights and input
_LOOKS = np.linspace(0.2, 1.0, 5)  # where within a step kinks are looked for
_RTOL = 1e-11


def _settle(pull: np.ndarray, normals: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The multipliers θ in [low, high], (m,), of least ‖pull + normalsᵀθ‖: what a unit held at m concave kinks (m, d) does.

    Where a kink pushes from both sides, the motion is by the least element of all gradients nearby (Filippov 1988).
    """
    return lsq_linear(normals.T, -pull, bounds=(low, high), method="bvls").x


def _sides(multipliers: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """1 or −1 where a multiplier is at the bound of that side, 0 where it lies between: the kink still holds the unit."""
    return np.where(multipliers == above, 1, np.where(multipliers == below, -1, 0))


def planes_of(x: np.ndarray, slope: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hyperplanes xᵢᵀu = 0 of inputs (n, d), each once: unit normals (m, d), and matrices `above` and `below`, (n, m).

    σ(uᵀx_i) is the height of u over the plane times above_ij or below_ij, so Σ_i σ'(uᵀx_i) q_i x_i = Σ_j (qᵀabove or qᵀbelow)_j·normal_j.
    """
    lengths = np.linalg.norm(x, axis=1)
    rows = np.flatnonzero(lengths > 0)
    cosines = x[rows] @ x[rows].T / np.outer(lengths[rows], lengths[rows])
    first = np.argmax(np.abs(cosines) > 1 - 1e-12, axis=0) if len(rows) else rows
    kept, plane = np.unique(first, return_inverse=True)
    along = cosines[first, np.arange(len(rows))] > 0
    above, below = np.zeros((2, len(x), len(kept)))
    above[rows, plane] = lengths[rows] * np.where(along, 1.0, -slope)
    below[rows, plane] = lengths[rows] * np.where(along, slope, -1.0)
    return x[rows][kept] / lengths[rows][kept, None], above, below


def ascend(unit: np.ndarray, normals: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Where u̇ = (I − uuᵀ)D(u) takes u on the sphere, (d,); D = Σ_j (above_j if u is above plane j, else below_j)·normal_j.

    Within a pattern u moves on the great circle towards D; at the first plane it meets it passes, or is held if both sides push it there.
    Where it rests against its pull, the weights that it is the direction of shrink, pass 0, and go on the other way.
    """
    scale = np.abs(above).sum() + np.abs(below).sum()
    side = np.where(normals @ unit > 0, 1, -1)
    rests: list[np.ndarray] = []
    for _ in range(_TURNS):
        pull = np.where(side > 0, above, below) * (side != 0) @ normals
        held = np.flatnonzero(side == 0)
        if len(held):
            multipliers = _settle(pull, normals[held], above[held], below[held])
            pull = pull + multipliers @ normals[held]
            side[held] = _sides(multipliers, above[held], below[held])
            basis = np.linalg.svd(normals[side == 0], full_matrices=False)[2]
            pull, unit = (each - basis.T @ (basis @ each) for each in (pull, unit))
            unit = unit / np.linalg.norm(unit)
        length = np.linalg.norm(pull)
        if length <= _NOISE * scale:
            return unit
        goal = pull / length
        tangent = goal - (goal @ unit) * unit
        angle = np.arctan2(np.linalg.norm(tangent), goal @ unit)
        if np.linalg.norm(tangent) <= 1e-14:
            if goal @ unit > 0 or any(np.abs(unit - rest).max() < 1e-9 for rest in rests):  # back again: the weights vanish for good
                return unit
            rests.append(unit)
            unit, side = -unit, -side
            continue
        tangent = tangent / np.linalg.norm(tangent)
        height, rise = np.maximum(side * (normals @ unit), 0.0), side * (normals @ tangent)
        met = np.where((side == 0) | ((height < 1e-14) & (rise > -1e-14)), np.pi, np.arctan2(height, -rise))
        first = int(np.argmin(met)) if len(met) else 0
        if not len(met) or met[first] >= angle:
            return goal
        unit = np.cos(met[first]) * unit + np.sin(met[first]) * tangent
        side[first] = -side[first] if above[first] >= below[first] else 0
    raise ParameterError(f"`x` and `y` must let directions settle within {_TURNS} changes of pattern, these do not")


class ReducedMotion:
    """β̇_k = −M_k ξ_k for a frozen activation pattern, and what happens where it ends.

    Coordinates r_k, v_k with β_k = r_k v_k, v_k along w_k. For δ_k ≥ 0 the sign of a_k stays: r_k = sgn a_k and v_k = |a_k|w_k. For δ_k < 0
    w_k never vanishes: r_k = μ_k = a_k‖w_k‖ and v_k = w_k/‖w_k‖. Each is regular where β_k passes 0.

    Args:
        w, a: weights at the start, (h, d), (h,).
        x, y: data, (n, d), (n,).
        slope, lr_w, lr_a: γ, η_w, η_a.
    """

    def __init__(self, w: np.ndarray, a: np.ndarray, x: np.ndarray, y: np.ndarray, slope: float, lr_w: float, lr_a: float) -> None:
        self.y, self.eta = y, float(np.sqrt(lr_w * lr_a))
        self.normals, self.above, self.below = planes_of(x, slope)
        length = np.linalg.norm(w, axis=1)
        self.delta = lr_w * a**2 - lr_a * length**2
        self.polar = self.delta < 0
        radius = np.where(self.polar, a * length, np.sign(a))
        vector = w * np.where(self.polar, 1 / length, np.abs(a))[:, None]
        self.start = np.concatenate([radius, vector.ravel()])
        self.tolerances = self._tolerances(radius, vector)
        self.side = np.where(w @ self.normals.T > 0, 1, -1)  # of unit and plane: 0 where the plane's kink holds the unit
        self.free = np.broadcast_to(np.eye(w.shape[1]), (len(w), w.shape[1], w.shape[1])).copy()  # projects on where units may move
        self.holders: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # of a held unit: the planes, and the pseudo-inverse of their normals

    def _tolerances(self, radius: np.ndarray, vector: np.ndarray) -> np.ndarray:
        on_radius = 1e-13 * np.abs(radius) + 1e-14 * np.abs(self.delta) / self.eta
        on_vector = np.broadcast_to(1e-13 * np.linalg.norm(vector, axis=1, keepdims=True), vector.shape)
        return np.concatenate([on_radius, on_vector.ravel()]) + 1e-300

    def _parts(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = len(self.delta)
        return state[:h], state[h:].reshape(h, -1)

    def _beta(self, state: np.ndarray) -> np.ndarray:
        radius, vector = self._parts(state)
        return radius[:, None] * vector

    def _signs(self, radius: np.ndarray) -> np.ndarray:
        """sgn a_k, and 1 where a_k = 0: both serve there."""
        return np.where(radius < 0, -1.0, 1.0)

    def _factors(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of −sgn(a_k)ξ_k = Σ_j factor_kj·normal_j, for units above and below each plane, (h, m)."""
        radius, vector = self._parts(state)
        heights = radius[:, None] * (vector @ self.normals.T)
        outputs = self.above @ (heights * (self.side > 0)).sum(0) + self.below @ (heights * (self.side < 0)).sum(0)
        gains = -self._signs(radius)[:, None] * (outputs - self.y)
        return gains @ self.above, gains @ self.below

    def _pull(self, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        """−sgn(a_k)ξ_k, (h, d), without the kinks that hold the unit."""
        return (np.where(self.side > 0, above, below) * (self.side != 0)) @ self.normals

    def velocity(self, _: float, state: np.ndarray) -> np.ndarray:
        """d(r, v)/dt; a unit that kinks hold moves along them."""
        radius, vector = self._parts(state)
        pull = np.einsum("kij,kj->ki", self.free, self._pull(*self._factors(state)))
        length = np.linalg.norm(vector, axis=1)
        direction = ratio(vector, length[:, None])
        along = (direction * pull).sum(1)
        mu = np.where(self.polar, np.abs(radius), length)
        outer, inner = branches(self.delta, self.eta * mu)
        turn = ratio(self.eta**2 * mu, inner)[:, None] * (pull - along[:, None] * direction)
        grow = outer[:, None] * pull + (inner * along)[:, None] * direction
        radial = np.where(self.polar, self._signs(radius) * (outer + inner) * along, 0.0)
        return np.concatenate([radial, np.where(self.polar[:, None], turn, grow).ravel()])

    def _margins(self, state: np.ndarray) -> np.ndarray:
        """How far the pattern is from its end, (h, m): height over each kink, or distance of the multiplier from its bounds."""
        _, vector = self._parts(state)
        margins = self.side * ratio(vector @ self.normals.T, np.linalg.norm(vector, axis=1)[:, None])
        if self.holders:
            above, below = self._factors(state)
            pull = self._pull(above, below)
            for unit, (held, inverse) in self.holders.items():
                high, low = above[unit, held], below[unit, held]
                multipliers = -inverse @ pull[unit]
                margins[unit, held] = ratio(np.minimum(multipliers - high, low - multipliers), low - high, -1.0)
        return margins

    def _turn(self, state: np.ndarray) -> None:
        """Change the pattern where `state` has reached its end: units pass a kink, are held by it, or let go."""
        for unit, plane in zip(*np.nonzero(self._margins(state) < -_NOISE), strict=True):
            above, below = self._factors(state)
            if above[unit, plane] < below[unit, plane]:
                self.side[unit, plane] = 0
            else:
                self.side[unit, plane] *= -1
            self._hold(int(unit), above, below)

    def _hold(self, unit: int, above: np.ndarray, below: np.ndarray) -> None:
        held = np.flatnonzero((self.side[unit] == 0) & (above[unit] < below[unit]))
        self.side[unit][self.side[unit] == 0] = 1
        self.side[unit, held] = 0
        if len(held):
            bounds = above[unit, held], below[unit, held]
            self.side[unit, held] = _sides(_settle(self._pull(above, below)[unit], self.normals[held], *bounds), *bounds)
        held = np.flatnonzero(self.side[unit] == 0)
        inverse = np.linalg.pinv(self.normals[held].T) if len(held) else np.zeros((0, self.normals.shape[1]))
        self.free[unit] = np.eye(self.normals.shape[1]) - self.normals[held].T @ inverse
        self.holders.pop(unit, None)
        if len(held):
            self.holders[unit] = held, inverse

    def _end(self, dense: Callable[[float], np.ndarray], early: float, late: float) -> float:
        """The time in (early, late] at which the pattern ends; inf if it does not."""

        def over(time: float) -> bool:
            return bool((self._margins(dense(time)) < -_NOISE).any())

        looks = (early + (late - early) * _LOOKS).tolist()
        late = next((time for time in looks if over(time)), np.inf)
        if late == np.inf:
            return late
        early = max((time for time in looks if time < late), default=early)
        for _ in range(60):
            middle = (early + late) / 2
            early, late = (early, middle) if over(middle) else (middle, late)
        return late

    def at(self, times: np.ndarray) -> np.ndarray:
        """β_k at ascending `times` ≥ 0, (T, h, d)."""
        found = np.empty((len(times), *self._beta(self.start).shape))
        time, state, last = 0.0, self.start, float(times[-1]) if len(times) else 0.0
        found[times <= 0] = self._beta(state)
        for _ in range(_TURNS):
            if time >= last:
                return found
            solver, end = DOP853(self.velocity, time, state, last, rtol=_RTOL, atol=cast("float", self.tolerances)), np.inf
            while solver.status == "running" and end == np.inf:
                solver.step()
                dense = solver.dense_output()
                end = self._end(dense, time, float(solver.t))
                early, time = time, min(end, float(solver.t))
                for index in np.flatnonzero((times > early) & (times <= time)):
                    found[index] = self._beta(dense(times[index]))
                state = dense(time)
            if end < np.inf:
                self._turn(state)
        raise ParameterError(f"`times` must be reached within {_TURNS} changes of pattern, time {time:g} was")
