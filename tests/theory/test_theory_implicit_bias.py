"""Implicit bias of a single linear neuron: potentials against mpmath, limits against flows and descents written out here."""

import functools

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from richlearn.errors import ParameterError
from richlearn.theory.implicit_bias import (
    bias_magnitude,
    bias_minimiser,
    bias_potential,
    bias_potential_gradient,
    hyperbolic_entropy,
    hyperbolic_entropy_gradient,
)

DELTAS = [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
X, Y, START = np.array([[0.5, 1.0]]), np.array([1.1]), np.array([-0.5, 0.0])  # figure 4b: one direction, Xᵀy = 1.1x
EXTREMES = [(1.0, 0.5), (1e-9, 3.0), (1e-9, -3.0), (1e8, 1e-8), (1e8, -1e-8), (1e-3, 1e6), (1e-3, -1e6), (2.0, 0.0)]


def _weights(beta, delta, lr_a=1.0, lr_w=1.0):
    """a > 0 and w of the neuron with this β and δ."""
    a = np.sqrt((np.hypot(delta, 2 * np.sqrt(lr_a * lr_w) * np.linalg.norm(beta)) + delta) / (2 * lr_w))
    return a, beta / a


def _flow(x, y, a0, w0, lr_a=1.0, lr_w=1.0):
    """a(∞) and β(∞) by DOP853, stopped where the gradient of β is 1e-11."""
    gram, target = x.T @ x, x.T @ y

    def slope(_, state):
        pull = state[0] * gram @ state[1:] - target
        return -np.concatenate([[lr_a * state[1:] @ pull], lr_w * state[0] * pull])

    def distance(_, state):
        return np.linalg.norm(state[0] * gram @ state[1:] - target) - 1e-11

    distance.terminal = True
    run = solve_ivp(slope, (0, 1e5), np.r_[a0, w0], "DOP853", rtol=1e-12, atol=1e-14, events=distance)
    assert run.status == 1
    return run.y[0, -1], run.y[0, -1] * run.y[1:, -1]


def _descent(x, y, a, w, step, time):
    """β after gradient descent of many neurons, a (m,) and w (m, d)."""
    gram, target = x.T @ x, x.T @ y
    for _ in range(round(time / step)):
        pull = (a[:, None] * w) @ gram - target
        a, w = a - step * (w * pull).sum(1), w - step * a[:, None] * pull
    return a[:, None] * w


def _problem(seed, scale=1.0):
    """Inputs of rank r < d or r = d with unequal singular values, targets in their range, weights and rates."""
    draw = np.random.default_rng(seed)
    d = int(draw.integers(2, 6))
    r = int(draw.integers(1, d + 1))
    n = int(draw.integers(r, 7))
    left, right = (np.linalg.qr(draw.normal(size=(size, r)))[0] for size in (n, d))
    x = left * draw.uniform(0.6, 1.6, r) @ right.T
    a0, w0, rates = 0.4 * draw.normal(), scale * draw.normal(size=d), draw.uniform(0.5, 2, 2)
    beta = right @ draw.normal(size=r)
    return x, x @ beta / np.linalg.norm(beta), a0, w0, *rates


@functools.cache
def _ended(seed):
    return _flow(*_problem(seed))


def _potential(size, delta, lr_a=1, lr_w=1):
    size, delta, eta = mpmath.mpf(size), mpmath.mpf(delta), mpmath.sqrt(mpmath.mpf(lr_a) * mpmath.mpf(lr_w))
    kappa = mpmath.sqrt(delta**2 + 4 * eta**2 * size**2)
    return (kappa - 2 * delta) * mpmath.sqrt(kappa + delta) / (3 * eta), mpmath.sqrt(kappa - delta)


@pytest.mark.parametrize(("size", "delta"), EXTREMES)
def test_potential_and_slope_keep_their_digits(size, delta):
    with mpmath.workdps(60):
        potential, slope = map(float, _potential(size, delta, 0.3, 2))
    beta = size * np.array([0.6, -0.8])
    assert float(bias_potential(beta, delta, 0.3, 2.0)) == pytest.approx(potential, rel=1e-14)
    assert float(bias_magnitude(beta, delta, 0.3, 2.0)) == pytest.approx(slope, rel=1e-14)
    np.testing.assert_allclose(bias_potential_gradient(beta, delta, 0.3, 2.0), [0.6 * slope, -0.8 * slope], rtol=1e-14)


@pytest.mark.parametrize("delta", DELTAS)
def test_gradient_is_that_of_the_potential(delta):
    beta, step = np.random.default_rng(0).normal(size=(20, 3)), 1e-3
    differences = [bias_potential(beta + k * step * axis, delta, 0.5, 1.3) for axis in np.eye(3) for k in (-2, -1, 1, 2)]
    before2, before, after, after2 = np.moveaxis(np.reshape(differences, (3, 4, 20)), 1, 0)
    estimate = (before2 - 8 * before + 8 * after - after2) / (12 * step)
    np.testing.assert_allclose(bias_potential_gradient(beta, delta, 0.5, 1.3), estimate.T, atol=2e-9)


@pytest.mark.parametrize("delta", DELTAS)
def test_metric_is_the_inverse_of_the_hessian_up_to_a_factor(delta):
    (lr_a, lr_w), beta, step = (0.5, 1.3), np.array([0.7, -1.1, 0.4]), 1e-3
    a, w = _weights(beta, delta, lr_a, lr_w)
    hessian = 0
    for k, weight in zip((-2, -1, 1, 2), (1, -8, 8, -1), strict=True):
        hessian = hessian + weight / (12 * step) * bias_potential_gradient(beta + k * step * np.eye(3), delta, lr_a, lr_w)
    matrix = lr_w * a**2 * np.eye(3) + lr_a * np.outer(w, w)
    factor = np.sqrt(lr_a * lr_w * 2 * lr_w) * a  # η·sqrt(κ + δ)
    np.testing.assert_allclose(matrix @ hessian, factor * np.eye(3), atol=1e-10)


@pytest.mark.parametrize("delta", DELTAS)
def test_magnitude_is_the_norm_of_the_incoming_weights(delta):
    a, w = _weights(np.array([0.3, -0.4]), delta, 0.7, 1.9)
    assert float(bias_magnitude(a * w, delta, 0.7, 1.9)) == pytest.approx(np.sqrt(2 * 0.7) * np.linalg.norm(w), rel=1e-14)


points = st.tuples(*[st.floats(-3, 3)] * 2)


@given(first=points, second=points, delta=st.floats(-5, 5))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_potential_is_convex(first, second, delta):
    ends = np.array([first, second])
    middle, mean = bias_potential(ends.mean(0), delta), bias_potential(ends, delta).mean()
    assert middle <= mean + 1e-12
    rise = bias_potential_gradient(ends[1], delta) - bias_potential_gradient(ends[0], delta)
    assert rise @ (ends[1] - ends[0]) >= -1e-12


@pytest.mark.parametrize("delta", DELTAS)
def test_at_zero(delta):
    zero, near = np.zeros(2), np.array([1e-30, 0.0])
    assert bias_potential_gradient(zero, delta).tolist() == [0.0, 0.0]
    assert float(bias_potential(zero, delta)) == pytest.approx(-delta * np.sqrt(2 * delta) / 3 if delta > 0 else 0.0)
    slope = float(bias_potential_gradient(near, delta)[0])  # a cone where δ < 0
    assert slope == pytest.approx(np.sqrt(2 * max(-delta, 0.0)), abs=1e-14)


def test_batches_and_rates_broadcast():
    beta, delta, lr = np.ones((4, 1, 3)), np.array(DELTAS), np.array([[1.0], [2.0], [3.0], [4.0]])
    found = bias_potential_gradient(beta, delta, lr_w=lr)
    assert found.shape == (4, 7, 3)
    np.testing.assert_allclose(bias_potential(beta, delta, lr_w=lr)[2, 5], bias_potential(np.ones(3), 2.0, lr_w=3.0), rtol=1e-15)


def test_empty_batches_stay_empty():
    assert bias_potential(np.ones((0, 3)), 1.0).shape == (0,)


@pytest.mark.parametrize("delta", DELTAS)
def test_limit_of_the_flow_on_one_data_direction(delta):
    a, w = _weights(START, delta)
    np.testing.assert_allclose(bias_minimiser(X, Y, a, w), _flow(X, Y, a, w)[1], atol=1e-9)


def test_limit_of_gradient_descent_as_the_step_goes_to_zero():
    pairs = [_weights(START, delta) for delta in DELTAS]
    a, w = np.array([a for a, _ in pairs]), np.array([w for _, w in pairs])
    runs = [_descent(X, Y, a, w, step, 24.0) for step in (4e-3, 2e-3, 1e-3)]
    first, second = 2 * runs[1] - runs[0], 2 * runs[2] - runs[1]
    limit = (4 * second - first) / 3
    np.testing.assert_allclose(np.array([bias_minimiser(X, Y, *pair) for pair in pairs]), limit, atol=1e-6)
    assert np.abs(runs[0] - limit).max() > 1e-4  # the step matters, so the extrapolation is tested


@pytest.mark.parametrize("seed", range(24))
def test_limit_of_the_flow_on_random_low_rank_inputs(seed):
    np.testing.assert_allclose(bias_minimiser(*_problem(seed)), _ended(seed)[1], atol=1e-8)


def test_random_problems_hold_flips_and_every_null_space():
    problems = [_problem(seed) for seed in range(24)]
    assert sum(problem[2] * _ended(seed)[0] < 0 for seed, problem in enumerate(problems)) >= 4
    assert {problem[0].shape[1] - np.linalg.matrix_rank(problem[0]) for problem in problems} >= {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_limit_of_the_flow_on_many_inputs(seed):
    problem = _problem(seed, scale=2.0)
    np.testing.assert_allclose(bias_minimiser(*problem), _flow(*problem)[1], atol=1e-7)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sign", [-1, 1])
def test_limit_is_the_constrained_minimum(seed, sign):
    x, y, a0, w0, lr_a, lr_w = _problem(seed)
    delta, pull = lr_w * a0**2 - lr_a * w0 @ w0, sign * np.sqrt(2 * lr_a) * w0
    found = bias_minimiser(x, y, a0, w0, lr_a, lr_w, sign=sign)
    null = np.linalg.svd(x)[2][np.linalg.matrix_rank(x) :]
    np.testing.assert_allclose(x @ found, y, atol=1e-13)
    np.testing.assert_allclose(null @ (bias_potential_gradient(found, delta, lr_a, lr_w) - pull), 0, atol=1e-12)

    def objective(z):
        beta = np.linalg.pinv(x) @ y + z @ null
        return float(bias_potential(beta, delta, lr_a, lr_w)) - pull @ beta

    if len(null):
        best = minimize(objective, np.ones(len(null)), method="BFGS", options={"gtol": 1e-9})
        assert objective(null @ found) <= best.fun + 1e-12
        np.testing.assert_allclose(null @ found, best.x, atol=1e-5)


def test_whole_rank_leaves_one_solution():
    x, beta = np.random.default_rng(0).normal(size=(5, 3)), np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(bias_minimiser(x, x @ beta, 0.5, [1.0, 1.0, 1.0]), beta, atol=1e-13)


def test_no_data_leaves_the_start():
    for n in (0, 2):
        found = bias_minimiser(np.zeros((n, 3)), np.zeros(n), 0.5, [1.0, 2.0, -3.0])
        np.testing.assert_allclose(found, [0.5, 1.0, -1.5], atol=1e-15)


@pytest.mark.parametrize(("a0", "w0", "tip"), [(1.0, [3.0, 0.2], True), (1.0, [0.3, 2.0], False), (-1.0, [0.3, 0.2], False)])
def test_zero_targets_end_in_the_tip_of_the_cone_or_leave_it(a0, w0, tip):
    found = bias_minimiser([[1.0, 0.0]], [0.0], a0, w0)
    assert (found.tolist() == [0.0, 0.0]) == tip
    np.testing.assert_allclose(found, _flow(np.array([[1.0, 0.0]]), np.zeros(1), a0, w0)[1], atol=1e-8)


def test_outgoing_weight_of_zero_takes_the_sign_of_its_first_step():
    for w0 in ([1.0, -1.5, 2.0], [-1.0, 1.5, 2.0]):
        problem = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), np.array([1.0, 1.0]), 0.0, np.array(w0)
        np.testing.assert_allclose(bias_minimiser(*problem), _flow(*problem)[1], atol=1e-8)


def test_sign_near_the_border_of_the_basins():
    """a₀ at which the limit's sign changes, bracketed by the flow itself to 1e-5: the predictions on both sides agree."""
    x, y, w0 = np.diag([1.0, 1.7, 0.0])[:2], np.array([1.0, -0.8]), np.array([-1.2, 0.3, 0.7])
    low, high = 0.0, 1.2
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if _flow(x, y, middle, w0)[0] > 0 else (middle, high)
    for a0 in (low, high):
        np.testing.assert_allclose(bias_minimiser(x, y, a0, w0), _flow(x, y, a0, w0)[1], atol=1e-7)


@pytest.mark.parametrize(
    ("x", "y", "a0", "w0"),
    [
        ([[1.0, 0.0]], [1.0], 1.0, [-1.0, 0.0]),  # balanced, against the target
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0], 0.0, [0.0, 1.0]),
        ([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0], 0.0, [2.0, -1.0]),  # found by integration
    ],
)
def test_flows_into_the_saddle_have_no_interpolating_limit(x, y, a0, w0):
    with pytest.raises(ParameterError, match="must not lead into the saddle a = 0"):
        bias_minimiser(x, y, a0, w0)


def test_tensors_come_back_as_tensors():
    found = bias_minimiser(torch.tensor([[0.5, 1.0]]), Y, 1.0, [-1.0, 0.0])
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found, bias_minimiser(X, Y, 1.0, [-1.0, 0.0]))
    assert isinstance(bias_potential(torch.ones(3), 1.0), torch.Tensor)
    assert isinstance(hyperbolic_entropy(torch.ones(3), 1.0), torch.Tensor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": [1.0, 2.0]}, "`x` must have shape"),
        ({"x": [[1.0, 0.0]] * 2}, r"`x` and `y` must have shapes \(n, d\) with d ≥ 1 and \(n,\), got \(2, 2\) and \(1,\)"),
        ({"x": np.ones((1, 0))}, "with d ≥ 1"),
        ({"x": [[1.0, 0.0]] * 2, "y": [1.0, 2.0]}, "`y` must be in the range of `x`, got one 0.707 away"),
        ({"y": [np.nan]}, "`y` must be finite"),
        ({"w0": [1.0]}, r"`w0` must have shape \(2,\)"),
        ({"a0": [1.0]}, r"`a0` must be a number, got shape \(1,\)"),
        ({"lr_a": 0.0}, "`lr_a` must be positive"),
        ({"lr_w": [1.0, 2.0]}, "`lr_w` must be a number"),
        ({"sign": 2}, "`sign` must be −1, 1 or None, got 2"),
    ],
)
def test_errors_of_the_minimiser(changes, message):
    with pytest.raises(ParameterError, match=message):
        bias_minimiser(**{"x": X, "y": Y, "a0": 1.0, "w0": [1.0, 0.0]} | changes)


def test_errors_of_the_potential():
    with pytest.raises(ParameterError, match="`beta` must have shape"):
        bias_potential(1.0, 1.0)
    with pytest.raises(ParameterError, match="`delta` must be finite"):
        bias_magnitude([1.0], np.inf)
    with pytest.raises(ParameterError, match=r"`delta` and the rates must broadcast, got shapes \(2,\), \(3,\), \(\)"):
        bias_potential_gradient(np.ones((2, 4)), [1.0, 2.0, 3.0])


@pytest.mark.parametrize("x", [0.0, 1e-200, 1e-9, -0.3, 5.0, 1e9, 1e200, -1e300])
@pytest.mark.parametrize("delta", [1e-300, 1e-9, -1.0, 7.0, 1e12])
def test_entropy_keeps_its_digits(x, delta):
    with mpmath.workdps(700):
        twice, scale = 2 * mpmath.mpf(x), abs(mpmath.mpf(delta))
        inverse = mpmath.asinh(twice / scale)
        entropy, slope = float((twice * inverse - mpmath.sqrt(twice**2 + scale**2) + scale) / 4), float(inverse / 2)
    assert float(hyperbolic_entropy(x, delta)) == pytest.approx(entropy, rel=1e-14, abs=1e-307)
    assert float(hyperbolic_entropy_gradient(x, delta)) == pytest.approx(slope, rel=1e-14)


def test_entropy_is_like_l1_for_small_delta_and_like_l2_for_large():
    x = np.array([0.3, 1.0, 2.5])
    ratio = hyperbolic_entropy(x, 1e-280) / (0.5 * x * np.log(1e280))
    np.testing.assert_allclose(ratio, 1.0, atol=5e-3)
    np.testing.assert_allclose(hyperbolic_entropy(x, -1e9), x**2 / 2e9, rtol=1e-12)


def test_entropy_makes_a_mirror_flow_of_singular_values():
    delta, step, x = 0.7, 1e-4, np.linspace(-2, 2, 9)
    second = (hyperbolic_entropy_gradient(x + step, delta) - hyperbolic_entropy_gradient(x - step, delta)) / (2 * step)
    np.testing.assert_allclose(second * np.sqrt(delta**2 + 4 * x**2), 1.0, atol=1e-7)


def test_errors_of_the_entropy():
    with pytest.raises(ParameterError, match="`delta` must not be 0"):
        hyperbolic_entropy(1.0, [1.0, 0.0])
    with pytest.raises(ParameterError, match=r"`x` and `delta` must broadcast, got shapes \(2,\), \(3,\)"):
        hyperbolic_entropy_gradient(np.ones(2), np.ones(3))
    with pytest.raises(ParameterError, match="`x` must be finite"):
        hyperbolic_entropy(np.nan, 1.0)
