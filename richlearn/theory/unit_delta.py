"""The exact distribution of a hidden unit's δ at Gaussian initialisation, and its values for the usual parametrisations."""

from dataclasses import dataclass
from math import hypot
from numbers import Integral
from typing import NamedTuple, final

import numpy as np
from scipy import stats
from scipy.special import expit, gammainccinv, gammaincinv
from scipy.stats.distributions import rv_frozen

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, positive

_STEP = 1 / 24
_BLOCK = 8
_REACH = 690.0
_MANY = 60.0


class Moments(NamedTuple):
    """Mean and variance."""

    mean: float
    variance: float


class _Gammas(NamedTuple):
    """G₁ − G₂, two independent gamma variables of these shapes and scales."""

    shape: float
    scale: float
    shape2: float
    scale2: float

    @property
    def mean(self) -> float:
        return self.shape * self.scale - self.shape2 * self.scale2

    def mirrored(self) -> "_Gammas":
        return _Gammas(self.shape2, self.scale2, self.shape, self.scale)


def _crossing(z: np.ndarray, law: _Gammas, pole: int) -> tuple[np.ndarray, np.ndarray]:
    """The saddle point s* ≥ 0 of M(s) e^{−sz} s^{−pole} on the real axis, and 1 − s*·scale without cancellation."""
    low, high = np.full(z.shape, -700.0), np.full(z.shape, 700.0)
    for _ in range(60):
        logit = (low + high) / 2
        s, rest = expit(logit) / law.scale, expit(-logit)
        slope = law.shape * law.scale / rest - law.shape2 * law.scale2 / (1 + law.scale2 * s) - pole / s - z
        low, high = np.where(slope < 0, logit, low), np.where(slope < 0, high, logit)
    return s, rest


def _contour(z: np.ndarray, law: _Gammas, reciprocals: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A and B of the hyperbola s(t) = s* + iA·sinh t + B(cosh t − 1): width and bend of the steepest descent from s*.

    It bends to the side on which e^{−sz} decays. The other side may be steeper first, and will do where the gamma variable
    of that side has a large shape: the integrand has vanished before e^{−sz} grows.
    """
    near, far, pole = reciprocals
    width = 1 / np.hypot(np.hypot(law.shape**0.5 * near, law.shape2**0.5 * far), pole)
    side = np.where(z < 0, -1.0, 1.0)
    steepest = side * 2 / 3 * (law.shape * (near * width) ** 3 - law.shape2 * (far * width) ** 3 - (pole * width) ** 3)
    least = np.where(np.where(z < 0, law.shape2, law.shape) < _MANY, 0.25, -0.2)
    return width, side * width * np.clip(steepest, least, 0.25)


def _inverse_laplace(z: np.ndarray, law: _Gammas, pole: int) -> np.ndarray:
    """(1/2πi) ∫ M(s) e^{−sz} s^{−pole} ds, M(s) = (1 − θ₁s)^{−k₁}(1 + θ₂s)^{−k₂}: density (pole 0) or P(G₁ − G₂ > z) (pole 1).

    For z of shape (n,) at or above the mean. Trapezoidal rule in t on a hyperbola through the saddle point, which has no
    cancellation, so tails keep their relative accuracy; ten digits or more (hyperbolic contours: Weideman & Trefethen 2007).
    """
    s, rest = _crossing(z, law, pole)
    reciprocals = (law.scale / rest, law.scale2 / (1 + law.scale2 * s), pole / s if pole else np.zeros_like(s))
    width, bend = _contour(z, law, reciprocals)
    total, active = np.zeros_like(z), np.arange(len(z))
    for start in np.arange(0.0, _REACH, _STEP * _BLOCK):
        t = start + _STEP * np.arange(_BLOCK)
        a, b, near, far, origin, x = (each[active, None] for each in (width, bend, *reciprocals, z))
        moved = 1j * a * np.sinh(t) + 2 * b * np.sinh(t / 2) ** 2
        exponent = -law.shape * np.log1p(-near * moved) - law.shape2 * np.log1p(far * moved) - np.log1p(origin * moved) - x * moved
        terms = np.exp(exponent) * (a * np.cosh(t) - 1j * b * np.sinh(t))
        total[active] += terms.real.sum(1) - (terms[:, 0].real / 2 if start == 0 else 0)
        active = active[np.abs(terms[:, -1]) > 1e-17 * np.abs(total[active])]
        if not active.size:
            break
    at_saddle = -law.shape * np.log(rest) - law.shape2 * np.log1p(law.scale2 * s) - z * s - pole * np.log(s)
    return np.exp(at_saddle) * total * _STEP / np.pi


def _density(z: np.ndarray, law: _Gammas) -> np.ndarray:
    """The density of G₁ − G₂; infinite at 0 where the shapes add up to 1."""
    found, right, regular = np.full(z.shape, np.inf), z >= law.mean, (z != 0) | (law.shape + law.shape2 > 1)
    found[right & regular] = _inverse_laplace(z[right & regular], law, 0)
    found[~right & regular] = _inverse_laplace(-z[~right & regular], law.mirrored(), 0)
    return found


def _tails(z: np.ndarray, law: _Gammas) -> tuple[np.ndarray, np.ndarray]:
    """P(G₁ − G₂ ≤ z) and P(G₁ − G₂ > z)."""
    lower, upper, right = np.empty(z.shape), np.empty(z.shape), z >= law.mean
    upper[right] = _inverse_laplace(z[right], law, 1)
    lower[~right] = _inverse_laplace(-z[~right], law.mirrored(), 1)
    lower[right], upper[~right] = 1 - upper[right], 1 - lower[~right]
    return lower, upper


def _quantile(q: np.ndarray, law: _Gammas) -> np.ndarray:
    """The root of P(G₁ − G₂ ≤ z) = q ∈ (0, 1): Newton's method for the logarithm of the smaller tail, bracketed.

    −G₂ ≤ G₁ − G₂ ≤ G₁ gives the bracket.
    """
    low, high = -law.scale2 * gammainccinv(law.shape2, q), law.scale * gammaincinv(law.shape, q)
    left, z = q < 0.5, (low + high) / 2
    for _ in range(200):
        lower, upper = _tails(z, law)
        with np.errstate(all="ignore"):
            excess = np.where(left, np.log(lower / q), np.log((1 - q) / upper))
            z_newton = z - excess * np.where(left, lower, upper) / _density(z, law)
        if (np.abs(excess) < 1e-12).all() or (high - low <= 1e-15 * np.abs(z)).all():
            break
        low, high = np.where(excess < 0, z, low), np.where(excess < 0, high, z)
        z = np.where((z_newton > low) & (z_newton < high), z_newton, (low + high) / 2)
    return z


def _whole(name: str, value: object) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"`{name}` must be a whole number of at least 1, got {value!r}")
    return int(value)


def _number(name: str, value: object) -> float:
    array = positive(name, value)
    if array.ndim:
        raise ParameterError(f"`{name}` must be one number, got shape {array.shape}")
    return float(array)


@final
@dataclass(frozen=True)
class UnitDelta:
    """δ = η_w‖a‖² − η_a‖w‖² of a hidden unit, w ~ N(0, s_w² I_d), a ~ N(0, s_a² I_c): η_w s_a²·χ²_c − η_a s_w²·χ²_d, exactly.

    Kunin et al. 2024, section 3 (δ). The two χ² are independent. Methods have the names of `scipy.stats`.

    Args:
        fan_in: d, weights into the unit.
        fan_out: c, weights out of it.
        std_w, std_a: s_w, s_a, standard deviations of incoming and outgoing weights.
        lr_w, lr_a: η_w, η_a, learning rates of the two.

    Raises:
        ParameterError: a fan that is no whole number of at least 1, a deviation or rate that is no positive number.

    >>> unit = UnitDelta(fan_in=100, fan_out=1, std_w=0.1, std_a=1.0)
    >>> round(unit.var(), 6), round(unit.prob_upstream(), 6), unit.cdf([-0.5, 0.0, 3.0]).round(6).tolist()
    (2.02, 0.319724, [0.513673, 0.680276, 0.954332])
    """

    fan_in: int
    fan_out: int
    std_w: float
    std_a: float
    lr_w: float = 1.0
    lr_a: float = 1.0

    def __post_init__(self) -> None:
        for name in ("fan_in", "fan_out"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        for name in ("std_w", "std_a", "lr_w", "lr_a"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if not min(self._factors) > 1e-100 * max(self._factors):
            raise ParameterError(f"`lr_w`·`std_a`² and `lr_a`·`std_w`² must be within a factor of 1e100, got {self._factors}")

    @classmethod
    def ntk(cls, fan_in: int, width: int, fan_out: int, lr: float = 1.0) -> "UnitDelta":
        """A two-layer network d → h → c in NTK parametrisation under SGD, as `richlearn.schemes.NTK` makes it.

        s_w² = 1/d, s_a² = 1/h, η_w = lr/d, η_a = lr/h, so δ = lr/(dh)·(χ²_c − χ²_d).

        Raises:
            ParameterError: as the class.
        """
        d, h = _whole("fan_in", fan_in), _whole("width", width)
        return cls(d, fan_out, d**-0.5, h**-0.5, lr / d, lr / h)

    @classmethod
    def mean_field(cls, fan_in: int, width: int, fan_out: int, lr: float = 1.0) -> "UnitDelta":
        """The same in mean-field parametrisation, as `richlearn.schemes.MeanField` makes it.

        s_w² = 1/d, s_a² = 1/h², η_w = lr/d, η_a = lr/h², so δ = lr/(dh²)·(χ²_c − χ²_d).

        Raises:
            ParameterError: as the class.
        """
        d, h = _whole("fan_in", fan_in), _whole("width", width)
        return cls(d, fan_out, d**-0.5, 1 / h, lr / d, lr / h**2)

    @classmethod
    def mup(cls, fan_in: int, width: int, fan_out: int, lr: float = 1.0, *, base_width: float = 64.0) -> "UnitDelta":
        """The same in µP relative to a base width, as `richlearn.schemes.MuP` makes it.

        With r = h/base_width: s_w² = 1/d, s_a² = 1/(hr), η_w = lr·r, η_a = lr/r, so δ = lr/h·χ²_c − lr/(rd)·χ²_d.

        Raises:
            ParameterError: as the class, or `base_width` is no positive number.
        """
        d, h = _whole("fan_in", fan_in), _whole("width", width)
        r = h / _number("base_width", base_width)
        return cls(d, fan_out, d**-0.5, (h * r) ** -0.5, lr * r, lr / r)

    @property
    def _factors(self) -> tuple[float, float]:
        """Of χ²_c and of −χ²_d."""
        return self.lr_w * self.std_a * self.std_a, self.lr_a * self.std_w * self.std_w

    @property
    def _scaled(self) -> tuple[_Gammas, float]:
        """δ divided by a unit of its own size, which keeps squares in range; and this unit."""
        b, a = self._factors
        unit = b + a
        return _Gammas(self.fan_out / 2, 2 * b / unit, self.fan_in / 2, 2 * a / unit), unit

    def _in_units(self, x: ArrayLike) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(np.clip(finite("x", x) / self._scaled[1], -1e100, 1e100))

    @array_function
    def pdf(self, x: ArrayLike) -> Array:
        """The density of δ at x, any shape, to 1e-10 of its maximum; infinite at 0 where c = d = 1.

        Raises:
            ParameterError: x is not finite.
        """
        law, unit = self._scaled
        return np.asarray(_density(self._in_units(x), law) / unit)

    @array_function
    def cdf(self, x: ArrayLike) -> Array:
        """P(δ ≤ x), any shape, to 1e-10; below the mean that is a relative error.

        Raises:
            ParameterError: x is not finite.
        """
        return _tails(self._in_units(x), self._scaled[0])[0]

    @array_function
    def sf(self, x: ArrayLike) -> Array:
        """P(δ > x), any shape, to 1e-10; above the mean that is a relative error.

        Raises:
            ParameterError: x is not finite.
        """
        return _tails(self._in_units(x), self._scaled[0])[1]

    @array_function
    def ppf(self, q: ArrayLike) -> Array:
        """The x with P(δ ≤ x) = q, any shape; −∞ at q = 0, ∞ at q = 1.

        Raises:
            ParameterError: q is outside [0, 1].
        """
        level = finite("q", q)
        if ((level < 0) | (level > 1)).any():
            raise ParameterError(f"`q` must lie in [0, 1], got {level[(level < 0) | (level > 1)].flat[0]:g}")
        law, unit = self._scaled
        found, inside = np.where(level == 0, -np.inf, np.inf), (level > 0) & (level < 1)
        found[inside] = unit * _quantile(level[inside], law)
        return found

    def mean(self) -> float:
        """c·η_w s_a² − d·η_a s_w²."""
        b, a = self._factors
        return self.fan_out * b - self.fan_in * a

    def var(self) -> float:
        """2c·η_w² s_a⁴ + 2d·η_a² s_w⁴."""
        b, a = self._factors
        return 2 * (self.fan_out * b * b + self.fan_in * a * a)

    def std(self) -> float:
        """The square root of `var`."""
        b, a = self._factors
        return hypot((2 * self.fan_out) ** 0.5 * b, (2 * self.fan_in) ** 0.5 * a)

    def skewness(self) -> float:
        """E[(δ − mean)³]/std³ = (8c·η_w³ s_a⁶ − 8d·η_a³ s_w⁶)/std³."""
        b, a = np.divide(self._factors, self.std())
        return float(8 * (self.fan_out * b**3 - self.fan_in * a**3))

    def kurtosis(self) -> float:
        """The excess over a Gaussian's, E[(δ − mean)⁴]/std⁴ − 3 = (48c·η_w⁴ s_a⁸ + 48d·η_a⁴ s_w⁸)/std⁴."""
        b, a = np.divide(self._factors, self.std())
        return float(48 * (self.fan_out * b**4 + self.fan_in * a**4))

    def prob_upstream(self) -> float:
        """P(δ > 0) = P(F_{c,d} > d·η_a s_w²/(c·η_w s_a²)), F the ratio of two mean squares."""
        b, a = self._factors
        return float(stats.f.sf(self.fan_in * a / (self.fan_out * b), self.fan_out, self.fan_in))

    def rvs(self, size: int | tuple[int, ...] = 1, seed: int | np.random.Generator | None = None) -> np.ndarray:
        """Independent draws of δ, of shape `size`; equal for equal seeds."""
        source, (b, a) = np.random.default_rng(seed), self._factors
        return b * source.chisquare(self.fan_out, size) - a * source.chisquare(self.fan_in, size)

    def wide_limit(self) -> rv_frozen:
        """The limit of many inputs, d → ∞ with g = d·s_w² held: η_w s_a²·χ²_c − η_a g, as a distribution of `scipy.stats`.

        It is approached slowly where c is small, about as d^(−c/4): for c = 1, d = 100 and η_w s_a² = η_a g the distribution
        functions are still 0.12 apart (at −η_a g).
        """
        b, a = self._factors
        return stats.chi2(self.fan_out, loc=-self.fan_in * a, scale=b)

    def uniform_moments(self) -> Moments:
        """Mean and variance of δ for uniform weights of the same standard deviations: the mean, and 2/5 of the variance.

        Var(u²) = E[u⁴] − E[u²]² = (9/5 − 1)s⁴ for a uniform u of variance s², against 2s⁴ for a Gaussian one.
        """
        return Moments(self.mean(), 2 / 5 * self.var())


def pytorch_default_moments(fan_in: int, width: int, fan_out: int, lr_w: float = 1.0, lr_a: float = 1.0) -> Moments:
    """Mean and variance of δ_k in a bias-free two-layer network d → h → c of PyTorch's `nn.Linear` as it comes.

    Weights are uniform between ±1/√(fan-in), so s_w² = 1/(3d), s_a² = 1/(3h): mean cη_w/(3h) − η_a/3, variance
    4/45·(cη_w²/h² + η_a²/d).

    Args:
        fan_in, width, fan_out: d, h, c.
        lr_w, lr_a: η_w, η_a, learning rates of the first and the second layer.

    Raises:
        ParameterError: a size that is no whole number of at least 1, a rate that is no positive number.
    """
    d, h = _whole("fan_in", fan_in), _whole("width", width)
    return UnitDelta(d, fan_out, (3 * d) ** -0.5, (3 * h) ** -0.5, lr_w, lr_a).uniform_moments()
