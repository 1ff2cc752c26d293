"""The distribution of δ at initialisation: against closed forms, quadratures of other integrals, draws, and the suite's schemes."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import k0e

from richlearn.errors import ParameterError
from richlearn.networks import TwoLayer
from richlearn.schemes import NTK, MeanField, MuP
from richlearn.seeds import generator, global_stream
from richlearn.theory.conserved import conserved_quantity
from richlearn.theory.unit_delta import Moments, UnitDelta, pytorch_default_moments

SHAPES = [(1, 1), (1, 100), (1000, 1), (50, 50), (3, 10000), (10000, 2), (10000, 10000), (1358, 19), (195, 1)]
SCALES = ["equal variances", "equal entries", "wide outgoing", "wide incoming"]


def _unit(d, c, scales="equal entries", **rates):
    std_w, std_a = {
        "equal variances": (d**-0.5, c**-0.5),
        "equal entries": (1.0, 1.0),
        "wide outgoing": (1e-3, 30.0),
        "wide incoming": (1e4, 0.1),
    }[scales]
    return UnitDelta(d, c, std_w, std_a, **rates)


def _places(unit, spreads=(-5, -2, -0.5, -1e-3, 0, 1e-3, 0.5, 2, 5)):
    """Around the mean, around 0, and around the edge of each of the two parts."""
    b, a = unit.lr_w * unit.std_a**2, unit.lr_a * unit.std_w**2
    around = np.array(spreads) * unit.std()
    return np.concatenate([unit.mean() + around, 0.1 * around, unit.fan_out * b + 0.01 * around, 0.01 * around - unit.fan_in * a])


def _nodes(low, high, features):
    """Gauss-Legendre nodes and weights on pieces of [low, high] that halve towards every feature."""
    offsets = (high - low) * 0.5 ** np.arange(50)
    edges = np.unique(np.clip([at + sign * offsets for at in features for sign in (-1, 1)], low, high))
    at, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (1 + at), half * weights


def _tail_by_quadrature(unit, z):
    """P(δ > z) as the expectation over ‖w‖/s_w, χ-distributed, of χ²_c's tail."""
    b, a = unit.lr_w * unit.std_a**2, unit.lr_a * unit.std_w**2
    peak, kink, step = unit.fan_in**0.5, max(-z / a, 0) ** 0.5, max((unit.fan_out * b - z) / a, 0) ** 0.5
    v, weights = _nodes(max(peak - 9, 0.0), peak + 9, (0, kink, step, peak))
    return np.sum(weights * stats.chi.pdf(v, unit.fan_in) * stats.chi2.sf((z + a * v**2) / b, unit.fan_out))


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(("d", "c"), SHAPES)
def test_the_tails_are_an_integral_over_the_incoming_norm(d, c, scales):
    unit = _unit(d, c, scales)
    z = _places(unit)
    expected = np.array([_tail_by_quadrature(unit, each) for each in z])
    np.testing.assert_allclose(unit.sf(z), expected, rtol=0, atol=5e-12)
    np.testing.assert_allclose(unit.cdf(z), 1 - expected, rtol=0, atol=5e-12)


@pytest.mark.slow
@settings(deadline=None, max_examples=600, derandomize=True)
@given(st.integers(1, 10000), st.integers(1, 10000), st.floats(-8, 8))
def test_any_sizes_and_scales(d, c, log_ratio):
    for sizes in ((d, c), (d % 4 + 1, c), (d, c % 4 + 1), (d % 300 + 1, c % 4 + 1)):
        unit = UnitDelta(*sizes, 10.0**log_ratio * sizes[0] ** -0.5, sizes[1] ** -0.5)
        z = _places(unit, (-2, -1e-6, 0.3))
        expected = np.array([_tail_by_quadrature(unit, each) for each in z])
        np.testing.assert_allclose(unit.sf(z), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("std_w", "std_a"), [(1.0, 1.0), (1e-4, 1.0), (0.3, 2.0), (1.0, 1e-7)])
def test_one_weight_on_either_side_has_the_bessel_density(std_w, std_a):
    unit = UnitDelta(1, 1, std_w, std_a)
    z = unit.std() * np.array([-30.0, -2.0, -1e-3, -1e-9, -1e-200, 1e-200, 1e-9, 1e-3, 2.0, 30.0])
    a, b = std_w**2, std_a**2
    argument = np.abs(z) * (1 / a + 1 / b) / 4
    expected = k0e(argument) * np.exp(np.where(z < 0, z / (2 * a), -z / (2 * b))) / (2 * np.pi * std_w * std_a)
    np.testing.assert_allclose(unit.pdf(z), expected, rtol=1e-11)
    assert unit.pdf(0.0) == np.inf


@pytest.mark.parametrize("d", [1, 2, 7, 400, 10000])
def test_two_outputs_have_an_exponential_upper_tail_to_full_relative_accuracy(d):
    unit = UnitDelta(d, 2, d**-0.5, 0.7)
    b, a = 0.49, 1 / d
    z = np.array([0.0, 1e-9, 0.1, 1.0, 30.0, 600.0])
    expected = np.exp(-z / (2 * b) - d / 2 * np.log1p(a / b))
    np.testing.assert_allclose(unit.sf(z), expected, rtol=2e-11)
    np.testing.assert_allclose(unit.pdf(z), expected / (2 * b), rtol=2e-11)


def test_two_by_two_is_an_asymmetric_laplace_distribution():
    unit, z = UnitDelta(2, 2, 0.5, 2.0), np.array([-6.0, -1.0, -1e-8, 0.0, 1e-8, 1.0, 40.0])
    a, b = 0.25, 4.0
    np.testing.assert_allclose(unit.pdf(z), np.exp(np.where(z < 0, z / (2 * a), -z / (2 * b))) / (2 * (a + b)), rtol=1e-11)


@pytest.mark.parametrize(("d", "c", "std_w", "std_a"), [(1, 4, 1.0, 1.0), (5, 3, 0.2, 2.0), (40, 1, 0.16, 1.0), (1, 100, 3.0, 0.1)])
def test_the_upper_density_is_a_confluent_hypergeometric_function(d, c, std_w, std_a):
    unit, k1, k2 = UnitDelta(d, c, std_w, std_a), c / 2, d / 2
    scale, scale2 = 2 * std_a**2, 2 * std_w**2
    for z in (1e-3, 0.1, 1.0, 4.0):
        head = mpmath.mpf(z) ** (k1 + k2 - 1) * mpmath.exp(-z / scale) / (mpmath.gamma(k1) * scale**k1 * scale2**k2)
        expected = float(head * mpmath.hyperu(k2, k1 + k2, z * (1 / scale + 1 / scale2)))
        assert float(unit.pdf(z)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("d", "c"), [(1, 1), (1, 100), (300, 2), (50, 50)])
def test_the_density_integrates_to_one_and_to_its_moments(d, c):
    unit = _unit(d, c, "equal variances", lr_w=2.0)

    edges = (0.0, unit.mean(), -unit.fan_in * unit.std_w**2, unit.fan_out * 2.0 * unit.std_a**2)
    x, weights = _nodes(unit.mean() - 60 * unit.std(), unit.mean() + 60 * unit.std(), edges)
    mass, scaled = weights * unit.pdf(x), (x - unit.mean()) / unit.std()
    found = [np.sum(mass * scaled**k) for k in range(5)]
    np.testing.assert_allclose(found, [1, 0, 1, unit.skewness(), unit.kurtosis() + 3], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("d", "c"), SHAPES)
def test_the_density_is_the_slope_of_the_distribution_function(d, c):
    unit = _unit(d, c, "equal variances")
    z, h = unit.mean() + unit.std() * np.array([-1.3, -0.4, 0.3, 1.7]), 1e-3 * unit.std()
    f = [unit.cdf(z + k * h) for k in (-2, -1, 1, 2)]
    slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    np.testing.assert_allclose(unit.pdf(z), slope, atol=2e-8 / unit.std())


@pytest.mark.parametrize(("d", "c"), SHAPES)
def test_the_share_of_upstream_units_is_the_tail_at_zero(d, c):
    for scales in SCALES:
        unit = _unit(d, c, scales, lr_w=0.3, lr_a=2.0)
        assert unit.prob_upstream() == pytest.approx(float(unit.sf(0.0)), abs=1e-11)
        assert unit.prob_upstream() + float(unit.cdf(0.0)) == pytest.approx(1, abs=1e-11)


def test_the_moments_are_the_sums_of_those_of_two_chi_squares():
    unit = UnitDelta(7, 3, 0.5, 2.0, lr_w=0.3, lr_a=5.0)
    cumulants = []
    for dof, factor in ((3, 0.3 * 4.0), (7, -5.0 * 0.25)):
        mean, var, skew, excess = (float(each) for each in stats.chi2.stats(dof, moments="mvsk"))
        cumulants.append([mean * factor, var * factor**2, skew * var**1.5 * factor**3, excess * var**2 * factor**4])
    mean, var, third, fourth = np.sum(cumulants, axis=0)
    found = [unit.mean(), unit.var(), unit.std(), unit.skewness(), unit.kurtosis()]
    np.testing.assert_allclose(found, [mean, var, var**0.5, third / var**1.5, fourth / var**2], rtol=1e-13)


def _worst_gap(draws, unit, points=400):
    """The Kolmogorov-Smirnov statistic on a grid of quantiles, as a multiple of its 1e-4 critical value."""
    at = np.quantile(draws, np.linspace(0, 1, points))
    share = np.searchsorted(np.sort(draws), at, side="right") / draws.size
    return np.abs(unit.cdf(at) - share).max() / (2.23 / draws.size**0.5)


@pytest.mark.parametrize(("d", "c"), [(10, 1), (200, 10)])
def test_draws_of_gaussian_weights_follow_the_distribution(d, c):
    source = np.random.default_rng(0)
    unit = UnitDelta(d, c, 0.2, 0.7, lr_w=2.0, lr_a=0.5)
    parts = [(source.normal(0, 0.2, (10000, d)), source.normal(0, 0.7, (c, 10000))) for _ in range(10)]
    draws = np.concatenate([conserved_quantity(torch.tensor(w), torch.tensor(a), rate_in=2.0, rate_out=0.5).numpy() for w, a in parts])
    assert _worst_gap(draws, unit) < 1
    assert _worst_gap(draws, UnitDelta(d, c, 0.2, 0.71, lr_w=2.0, lr_a=0.5)) > 1


def test_own_draws_follow_the_distribution():
    unit = UnitDelta(5, 2, 0.3, 0.6, lr_a=2.0)
    draws = unit.rvs(100000, seed=1)
    assert _worst_gap(draws, unit) < 1
    assert draws.mean() == pytest.approx(unit.mean(), abs=5 * unit.std() / 100000**0.5)
    assert draws.var() == pytest.approx(unit.var(), rel=5 * ((unit.kurtosis() + 2) / 100000) ** 0.5)


def test_draws_are_repeatable_and_of_the_shape_asked_for():
    unit = UnitDelta(5, 2, 0.3, 0.6)
    np.testing.assert_array_equal(unit.rvs((3, 2), seed=4), unit.rvs((3, 2), seed=np.random.default_rng(4)))
    assert unit.rvs((3, 2), seed=4).shape == (3, 2)
    assert not np.array_equal(unit.rvs(4, seed=4), unit.rvs(4, seed=5))


@pytest.mark.parametrize(("d", "c"), SHAPES)
def test_quantiles_invert_the_distribution_function(d, c):
    levels = np.array([1e-200, 1e-12, 0.01, 0.3, 0.5, 0.8, 0.999, 1 - 1e-9])
    for scales in SCALES:
        unit = _unit(d, c, scales)
        x = unit.ppf(levels)
        assert (np.diff(x) > 0).all()
        np.testing.assert_allclose(unit.cdf(x[:5]), levels[:5], rtol=1e-9)
        np.testing.assert_allclose(unit.sf(x[4:]), 1 - levels[4:], rtol=1e-9)


def test_the_outermost_quantiles_are_infinite():
    np.testing.assert_array_equal(UnitDelta(3, 2, 1.0, 1.0).ppf([[0.0, 1.0]]), [[-np.inf, np.inf]])


def test_equal_parts_have_their_median_at_zero():
    assert float(UnitDelta(30, 30, 0.1, 0.1).ppf(0.5)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("std", [1e-60, 1e60])
def test_the_unit_of_weights_does_not_matter(std):
    x = np.linspace(-3, 3, 7)
    found, plain = UnitDelta(4, 3, 2 * std, std), UnitDelta(4, 3, 2.0, 1.0)
    np.testing.assert_allclose(found.cdf(x * std**2), plain.cdf(x), rtol=1e-12)
    np.testing.assert_allclose(found.pdf(x * std**2) * std**2, plain.pdf(x), rtol=1e-12)


def test_far_out_the_tails_vanish_without_a_warning():
    x = np.array([-1e250, -1e50, 1e50, 1e250])
    for unit in (UnitDelta(1, 1, 1.0, 1.0), UnitDelta(10000, 3, 1e-20, 1e10)):
        with np.errstate(all="raise", under="ignore"):
            np.testing.assert_array_equal(unit.cdf(x), [0, 0, 1, 1])
            np.testing.assert_array_equal(unit.pdf(x), 0)


def test_rates_act_as_scales_of_the_other_sides_weights():
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(UnitDelta(4, 3, 0.5, 0.7, 9.0, 4.0).cdf(x), UnitDelta(4, 3, 1.0, 2.1).cdf(x), rtol=1e-12)


def _limit_distance(unit):
    x = np.concatenate([[-1.0], np.linspace(-1.5, 4, 1500)])
    return np.abs(unit.cdf(x) - unit.wide_limit().cdf(x)).max()


@pytest.mark.parametrize("c", [1, 2, 4])
def test_the_limit_of_many_inputs_is_approached(c):
    # the two differ most at −g, by about P(χ²_c < d^(−1/2)) ∝ d^(−c/4)
    found = [_limit_distance(UnitDelta(d, c, d**-0.5, 1.0)) for d in (10, 100, 1000, 10000)]
    assert (np.diff(found) < 0).all()
    assert np.log10(found[-2] / found[-1]) == pytest.approx(c / 4, abs=0.05)


def test_the_limit_is_slow_for_one_output():
    # at −g the limit is 0, and the distance P(χ²_1 < χ²_d/d − 1): E[erf(sqrt(max(χ²_d/d − 1, 0)/2))]
    chi2 = stats.chi2.rvs(100, size=400000, random_state=0)
    share = 2 * stats.norm.cdf(np.sqrt(np.maximum(chi2 / 100 - 1, 0))) - 1
    assert _limit_distance(UnitDelta(100, 1, 0.1, 1.0)) == pytest.approx(share.mean(), abs=5 * share.std() / 400000**0.5)
    assert share.mean() == pytest.approx(0.117, abs=1e-3)


def test_the_limit_has_the_rates_and_the_mean_of_the_unit():
    unit = UnitDelta(50, 3, 0.4, 0.7, lr_w=2.0, lr_a=0.5)
    limit = unit.wide_limit()
    assert limit.mean() == pytest.approx(unit.mean(), rel=1e-12)
    assert limit.var() == pytest.approx(2 * 3 * (2.0 * 0.49) ** 2, rel=1e-12)
    assert limit.support()[0] == pytest.approx(-0.5 * 50 * 0.16, rel=1e-12)


def _network(d, h, c, seed=0):
    with global_stream(generator(seed, "unit delta")):
        return TwoLayer(d, c, width=h)


PARAMETRISATIONS = {
    "ntk": (NTK(), UnitDelta.ntk, {}),
    "mean field": (MeanField(), UnitDelta.mean_field, {}),
    "µP": (MuP(), UnitDelta.mup, {}),
    "µP of another base": (MuP(base_width=100.0), UnitDelta.mup, {"base_width": 100.0}),
}


def _initial(scheme, d, h, c, lr):
    """The weights, the rates and δ of a network to which the suite's scheme was applied."""
    network = _network(d, h, c)
    rates = scheme.apply(network, generator(1, "unit delta"), batch=torch.randn(4, d), optimizer="sgd").lr
    w, a = network.layers[0].weight, network.layers[2].weight
    lr_w, lr_a = (lr * rates.get(f"layers.{k}.weight", 1.0) for k in (0, 2))
    return w, a, lr_w, lr_a, conserved_quantity(w, a, rate_in=lr_w, rate_out=lr_a).numpy()


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize(("d", "h", "c"), [(20, 5000, 3), (64, 8000, 1)])
def test_a_parametrisation_is_the_suites_scheme(name, d, h, c):
    scheme, make, options = PARAMETRISATIONS[name]
    unit = make(d, h, c, 0.3, **options)
    w, a, lr_w, lr_a, delta = _initial(scheme, d, h, c, 0.3)
    assert (unit.lr_w, unit.lr_a) == pytest.approx((lr_w, lr_a), rel=1e-14)
    assert float(w.detach().std()) == pytest.approx(unit.std_w, rel=5 / (2 * d * h) ** 0.5)
    assert float(a.detach().std()) == pytest.approx(unit.std_a, rel=5 / (2 * c * h) ** 0.5)
    assert delta.mean() == pytest.approx(unit.mean(), abs=5 * unit.std() / h**0.5)
    assert delta.var() == pytest.approx(unit.var(), rel=5 * ((unit.kurtosis() + 2) / h) ** 0.5)
    assert _worst_gap(delta, unit) < 1


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_a_parametrisation_scales_each_draw_exactly(name):
    # the same raw draws under two sizes of the scheme's own: ratios of weights are ratios of deviations, without noise
    scheme, make, options = PARAMETRISATIONS[name]
    w, a, *_ = _initial(scheme, 6, 40, 2, 1.0)
    plain_w, plain_a, *_ = _initial(NTK(), 6, 40, 2, 1.0)
    unit, plain = make(6, 40, 2, **options), UnitDelta.ntk(6, 40, 2)
    torch.testing.assert_close(w / plain_w, torch.full_like(w, unit.std_w / plain.std_w), rtol=1e-5, atol=0)
    torch.testing.assert_close(a / plain_a, torch.full_like(a, unit.std_a / plain.std_a), rtol=1e-5, atol=0)


def test_in_ntk_and_mean_field_parametrisation_only_the_fans_decide_who_is_upstream():
    shares = [make(30, h, 4, lr).prob_upstream() for make in (UnitDelta.ntk, UnitDelta.mean_field) for h in (5, 500) for lr in (0.1, 2.0)]
    np.testing.assert_allclose(shares, stats.f.sf(30 / 4, 4, 30), rtol=1e-12)


def test_uniform_weights_have_the_mean_and_two_fifths_of_the_variance():
    unit, source = UnitDelta(4, 2, 0.5, 0.8, lr_w=3.0, lr_a=2.0), np.random.default_rng(0)
    w, a = (std * 3**0.5 * source.uniform(-1, 1, (n, 300000)) for n, std in ((4, 0.5), (2, 0.8)))
    delta = 3.0 * (a**2).sum(0) - 2.0 * (w**2).sum(0)
    found = unit.uniform_moments()
    assert found.mean == pytest.approx(delta.mean(), abs=5 * delta.std() / 300000**0.5)
    assert found.variance == pytest.approx(delta.var(), rel=0.015)
    assert found == Moments(unit.mean(), 0.4 * unit.var())


def test_the_default_of_pytorch():
    d, h, c = 12, 40000, 3
    network = _network(d, h, c)
    delta = conserved_quantity(network.layers[0].weight, network.layers[2].weight, rate_in=2.0 * h, rate_out=0.5).numpy()
    found = pytorch_default_moments(d, h, c, lr_w=2.0 * h, lr_a=0.5)
    assert found.mean == pytest.approx(delta.mean(), abs=5 * delta.std() / h**0.5)
    assert found.variance == pytest.approx(delta.var(), rel=0.05)
    assert found.mean == pytest.approx(c * 2.0 / 3 - 0.5 / 3, rel=1e-12)
    assert found.variance == pytest.approx(4 / 45 * (c * 2.0**2 + 0.5**2 / d), rel=1e-12)


def test_tensors_in_tensors_out():
    unit, x = UnitDelta(5, 2, 0.3, 0.6), torch.tensor([[-0.1, 0.0, 0.4]])
    for method, at in ((unit.pdf, x), (unit.cdf, x), (unit.sf, x), (unit.ppf, x.abs())):
        found = method(at)
        assert isinstance(found, torch.Tensor)
        assert (found.dtype, found.shape) == (torch.float64, (1, 3))
        np.testing.assert_array_equal(found.numpy(), method(at.numpy()))


def test_numbers_give_arrays_without_axes():
    assert UnitDelta(5, 2, 0.3, 0.6).cdf(0.1).shape == ()
    assert UnitDelta(5, 2, 0.3, 0.6).ppf(0.1).shape == ()
    assert UnitDelta(5, 2, 0.3, 0.6).cdf(np.zeros((0, 3))).shape == (0, 3)


GOOD = {"fan_in": 3, "fan_out": 2, "std_w": 1.0, "std_a": 1.0}


@pytest.mark.parametrize("name", ["fan_in", "fan_out"])
def test_a_fan_is_at_least_one(name):
    with pytest.raises(ParameterError, match=f"`{name}` must be a whole number of at least 1, got 0"):
        UnitDelta(**{**GOOD, name: 0})


@pytest.mark.parametrize("name", ["std_w", "std_a", "lr_w", "lr_a"])
def test_deviations_and_rates_are_positive(name):
    with pytest.raises(ParameterError, match=f"`{name}` must be positive, got 0"):
        UnitDelta(**{**GOOD, name: 0.0})
    with pytest.raises(ParameterError, match=f"`{name}` must be finite, got nan"):
        UnitDelta(**{**GOOD, name: float("nan")})


def test_the_parts_are_comparable():
    with pytest.raises(ParameterError, match="must be within a factor of 1e100"):
        UnitDelta(3, 2, 1e-60, 1.0)
    with pytest.raises(ParameterError, match="must be within a factor of 1e100"):
        UnitDelta(3, 2, 1e-200, 1e-200)


@pytest.mark.parametrize("make", [UnitDelta.ntk, UnitDelta.mean_field, UnitDelta.mup, pytorch_default_moments])
def test_a_parametrisation_needs_sizes(make):
    for name in ("fan_in", "width", "fan_out"):
        with pytest.raises(ParameterError, match=f"`{name}` must be a whole number of at least 1, got -2"):
            make(**{"fan_in": 3, "width": 4, "fan_out": 2, name: -2})


def test_a_base_width_is_positive():
    with pytest.raises(ParameterError, match="`base_width` must be positive, got -1"):
        UnitDelta.mup(3, 4, 2, base_width=-1.0)


def test_places_are_finite():
    unit = UnitDelta(**GOOD)
    for method in (unit.pdf, unit.cdf, unit.sf):
        with pytest.raises(ParameterError, match="`x` must be finite, got nan"):
            method([0.0, float("nan")])


def test_levels_are_probabilities():
    for level, text in ((1.5, r"`q` must lie in \[0, 1\], got 1.5"), (-0.1, r"`q` must lie in \[0, 1\], got -0.1")):
        with pytest.raises(ParameterError, match=text):
            UnitDelta(**GOOD).ppf([0.5, level])
