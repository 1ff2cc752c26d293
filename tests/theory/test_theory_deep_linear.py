"""Linear networks of any depth: against autograd, the kernel engine, quadrature and flows of all weights written out here."""

import functools

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import sqrtm

from richlearn.errors import ParameterError
from richlearn.kernels import empirical_ntk
from richlearn.networks import Linear
from richlearn.theory.deep_linear import (
    deep_bias_minimiser,
    deep_bias_potential,
    deep_conserved,
    deep_kernel,
    deep_tangent_matrix,
    isotropic_layers,
    isotropic_pair,
    isotropic_tangent_matrix,
    readout_norm,
)
from richlearn.theory.implicit_bias import bias_minimiser, bias_potential

RATES = [0.5, 1.7, 0.9]


def _product(weights):
    """W_D … W_1."""
    return functools.reduce(lambda done, weight: weight @ done, weights)


def _random(shapes=((4, 3), (5, 4), (2, 5)), seed=0):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=shape) / 2 for shape in shapes]


def _gradients(weights, pull):
    """−∂/∂W_l of ½‖X(W_D…W_1)ᵀ − Y‖² at PᵀX = `pull`."""
    found = []
    for l in range(len(weights)):
        after = _product([*weights[l + 1 :], np.eye(len(weights[-1]))])
        before = _product([np.eye(weights[0].shape[1]), *weights[:l]])
        found.append(-after.T @ pull @ before.T)
    return found


def _flow(weights, x, y, rates=None, time=None):
    """The weights at `time`, or where the gradient of β is 1e-11, by DOP853."""
    sizes, shapes = np.cumsum([weight.size for weight in weights])[:-1], [weight.shape for weight in weights]
    rates = rates or [1.0] * len(weights)

    def split(state):
        return [part.reshape(shape) for part, shape in zip(np.split(state, sizes), shapes, strict=True)]

    def pull(layers):
        return (x @ _product(layers).T - y).T @ x

    def slope(_, state):
        layers = split(state)
        return np.concatenate([rate * each.ravel() for rate, each in zip(rates, _gradients(layers, pull(layers)), strict=True)])

    def distance(_, state):
        return np.linalg.norm(pull(split(state))) - 1e-11

    distance.terminal = True
    start, events = np.concatenate([weight.ravel() for weight in weights]), distance if time is None else None
    run = solve_ivp(slope, (0, 2e3 if time is None else time), start, "DOP853", rtol=1e-12, atol=1e-14, events=events)
    assert run.status == (time is None)
    return split(run.y[:, -1])


def _jacobian(function, weights, rates):
    """∂function/∂θ·diag(√η), (outputs, parameters), by autograd."""
    tensors = tuple(torch.tensor(weight) for weight in weights)
    parts = torch.autograd.functional.jacobian(function, tensors)
    return torch.cat([part.reshape(-1, w.numel()) * rate**0.5 for part, w, rate in zip(parts, tensors, rates, strict=True)], 1).numpy()


def _design(seed, d=4, r=2, n=3):
    """Inputs of rank r and targets of norm about 1 in their range."""
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.normal(size=(size, r)))[0] for size in (n, d))
    x, beta = left * draw.uniform(0.8, 1.3, r) @ right.T, right @ draw.normal(size=r)
    return x, x @ beta / np.linalg.norm(beta)


def test_conserved_matrices_stay_along_the_flow():
    draw, weights = np.random.default_rng(1), _random()
    x, y = draw.normal(size=(6, 3)), draw.normal(size=(6, 2))
    end = _flow(weights, x, y, RATES, time=2.0)
    assert np.abs(end[0] - weights[0]).max() > 0.1
    for before, after in zip(deep_conserved(weights, RATES), deep_conserved(end, RATES), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-10)


def test_two_layers_have_the_papers_matrix_over_the_rates():
    w, a = _random(((4, 3), (2, 4)))
    (found,) = deep_conserved([w, a], [0.3, 2.0])
    np.testing.assert_allclose(0.3 * 2.0 * found, 0.3 * a.T @ a - 2.0 * w @ w.T, atol=1e-14)


def test_one_layer_conserves_nothing():
    assert deep_conserved([np.eye(3)]) == []
    np.testing.assert_array_equal(deep_tangent_matrix([np.ones((2, 3))]), np.eye(6))


def test_tangent_matrix_is_the_product_of_jacobians():
    weights = _random()
    rows = _jacobian(lambda *layers: _product(layers).reshape(-1), weights, RATES)  # entry (o, i) of βᵀ, row-major: stacked columns of β
    np.testing.assert_allclose(deep_tangent_matrix(weights, RATES), rows @ rows.T, atol=1e-13)


def test_tangent_matrix_drives_the_map():
    weights, draw, step = _random(), np.random.default_rng(2), 1e-4
    x, y, beta = draw.normal(size=(6, 3)), draw.normal(size=(6, 2)), _product(weights).T
    pull = x.T @ (x @ beta - y)
    slopes = [rate * each for rate, each in zip(RATES, _gradients(weights, pull.T), strict=True)]
    before, after = (_product([w + sign * step * slope for w, slope in zip(weights, slopes, strict=True)]).T for sign in (-1, 1))
    rate = (after - before) / (2 * step)
    np.testing.assert_allclose(rate.ravel(order="F"), -deep_tangent_matrix(weights, RATES) @ pull.ravel(order="F"), atol=1e-6)


def test_tangent_matrix_of_two_layers_is_the_papers_sum_over_units():
    (w, a), (rate_w, rate_a), expected = _random(((4, 3), (2, 4))), (0.3, 2.0), 0
    for into, out in zip(w, a.T, strict=True):
        beta, delta = np.outer(into, out), rate_w * out @ out - rate_a * into @ into
        square = np.sum(beta**2)
        kappa = np.sqrt(delta**2 + 4 * rate_a * rate_w * square)
        expected = expected + (kappa + delta) / 2 * np.kron(beta.T @ beta / square, np.eye(3))
        expected = expected + (kappa - delta) / 2 * np.kron(np.eye(2), beta @ beta.T / square)
    np.testing.assert_allclose(deep_tangent_matrix([w, a.copy()], [rate_w, rate_a]), expected, atol=1e-14)


@pytest.mark.parametrize(("width", "delta"), [(2, 0.0), (2, 1.3), (3, -1.3)])
def test_tangent_matrix_of_an_isotropic_pair_closes_in_the_map(width, delta):
    lr_a, lr_w, beta = 0.4, 1.9, np.random.default_rng(0).normal(size=(3, 2))
    w, a = isotropic_pair(width, 3, 2, delta, beta, lr_a=lr_a, lr_w=lr_w)
    left = delta / 2 * np.eye(2) + sqrtm(delta**2 / 4 * np.eye(2) + lr_a * lr_w * beta.T @ beta)
    right = -delta / 2 * np.eye(3) + sqrtm(delta**2 / 4 * np.eye(3) + lr_a * lr_w * beta @ beta.T)
    expected = np.kron(left, np.eye(3)) + np.kron(np.eye(2), right)
    np.testing.assert_allclose(deep_tangent_matrix([w, a.T.copy()], [lr_w, lr_a]), expected, atol=1e-7)


def test_kernel_is_the_product_of_jacobians():
    weights, x = _random(), np.random.default_rng(3).normal(size=(5, 3))
    rows = _jacobian(lambda *layers: (torch.tensor(x) @ _product(layers).T).reshape(-1), weights, RATES)
    np.testing.assert_allclose(deep_kernel(weights, x, RATES), rows @ rows.T, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_kernel_is_that_of_the_engine(depth):
    torch.manual_seed(0)
    network, x = Linear(3, 2, width=4, depth=depth).double(), torch.randn(5, 3, dtype=torch.float64)
    named = dict(network.named_parameters())
    rates = {name: 0.5 + index for index, name in enumerate(named)}
    expected = empirical_ntk(network, x, outputs="full", rates=rates)
    found = deep_kernel([weight.detach() for weight in named.values()], x, list(rates.values()))
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_leading_axes_are_a_batch():
    draw = np.random.default_rng(4)
    first, second, x = draw.normal(size=(6, 1, 4, 3)), draw.normal(size=(5, 2, 4)), draw.normal(size=(7, 3))
    kernels, matrices = deep_kernel([first, second], x), deep_tangent_matrix([first, second])
    np.testing.assert_allclose(kernels[3, 2], deep_kernel([first[3, 0], second[2]], x), atol=1e-13)
    np.testing.assert_allclose(matrices[3, 2], deep_tangent_matrix([first[3, 0], second[2]]), atol=1e-13)
    np.testing.assert_allclose(deep_conserved([first, second])[0][3, 2], deep_conserved([first[3, 0], second[2]])[0], atol=1e-14)


def test_errors_of_weights():
    with pytest.raises(ParameterError, match=r"`weights` must be one or more matrices .* got \[\(4, 3\), \(2, 5\)\]"):
        deep_conserved([np.ones((4, 3)), np.ones((2, 5))])
    with pytest.raises(ParameterError, match=r"`weights` must be one or more matrices .* got \[\]"):
        deep_tangent_matrix([])
    with pytest.raises(ParameterError, match=r"`weights` must have shape \(…, out, in\), got \(3,\)"):
        deep_tangent_matrix([np.ones(3)])
    with pytest.raises(ParameterError, match=r"the leading axes of `weights` must broadcast, got shapes \(2,\), \(5,\)"):
        deep_conserved([np.ones((2, 4, 3)), np.ones((5, 2, 4))])
    with pytest.raises(ParameterError, match=r"`x` must have shape \(n, 3\), got \(5, 4\)"):
        deep_kernel([np.ones((4, 3))], np.ones((5, 4)))
    with pytest.raises(ParameterError, match="`rates` must be positive, got 0"):
        deep_kernel([np.ones((4, 3))], np.ones((5, 3)), [0.0])


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("epsilon", [0.0, 0.8])
def test_isotropic_tangent_matrix_is_that_of_isotropic_layers(depth, epsilon):
    weights = isotropic_layers(depth, 4, 1.5, epsilon, seed=2)
    found = isotropic_tangent_matrix(np.linalg.norm(weights[-1]), _product(weights)[0], epsilon, depth)
    np.testing.assert_allclose(found, deep_tangent_matrix(weights), atol=1e-12)


def test_isotropic_tangent_matrix_of_batches_and_at_zero():
    found = isotropic_tangent_matrix([[0.0], [1.0]], np.eye(3), [1.0, 2.0, 3.0], 2)
    assert found.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(found[0, 1], 4 * np.eye(3))
    np.testing.assert_array_equal(isotropic_tangent_matrix(0.0, np.zeros(2), 3.0, 1), 3 * np.eye(2))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_readout_norm_inverts_the_norm_of_the_map(depth):
    a, epsilon = np.array([0.0, 1e-8, 0.3, 7.0, 1e5])[:, None], np.array([0.0, 1e-12, 1.0, 1e4])
    np.testing.assert_allclose(readout_norm(a * (a**2 + epsilon) ** (depth / 2), depth, epsilon), a + 0 * epsilon, rtol=2e-14)


def test_errors_of_the_readout_norm():
    with pytest.raises(ParameterError, match="`beta_norm` must not be negative, got -1"):
        readout_norm(-1.0, 2)
    with pytest.raises(ParameterError, match=r"`beta_norm` and `epsilon` must broadcast, got shapes \(2,\), \(3,\)"):
        readout_norm(np.ones(2), 2, np.ones(3))


def test_errors_of_the_isotropic_tangent_matrix():
    with pytest.raises(ParameterError, match="`direction` must not be 0 where `a_norm` is positive"):
        isotropic_tangent_matrix(1.0, np.zeros(2), 1.0, 1)
    with pytest.raises(ParameterError, match="`a_norm` must not be negative"):
        isotropic_tangent_matrix(-1.0, np.ones(2), 1.0, 1)
    with pytest.raises(ParameterError, match=r"`a_norm` and `epsilon` must broadcast, got shapes \(\), \(2,\), \(3,\)"):
        isotropic_tangent_matrix(np.ones(2), np.ones(4), np.ones(3), 1)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize(("readout", "epsilon"), [(1.3, 0.0), (1.3, 0.7), (1e-6, 5.0), (1e3, 1e-12), (1e-8, 0.0)])
def test_potential_is_the_integral_of_the_readout(depth, readout, epsilon):
    half = depth / 2
    with mpmath.workdps(40):
        norm = readout * (mpmath.mpf(readout) ** 2 + epsilon) ** half
        expected = mpmath.quad(lambda a: a * ((a**2 + epsilon) ** half + depth * a**2 * (a**2 + epsilon) ** (half - 1)), [0, readout])
    found = float(deep_bias_potential(float(norm) * np.array([0.6, -0.8]), depth, epsilon))
    assert found == pytest.approx(float(expected), rel=1e-13)


def test_balanced_potential_is_a_power_of_the_norm():
    beta = np.random.default_rng(0).normal(size=(5, 3))
    for depth in (1, 2, 7):
        expected = (depth + 1) / (depth + 2) * np.linalg.norm(beta, axis=1) ** ((depth + 2) / (depth + 1))
        np.testing.assert_allclose(deep_bias_potential(beta, depth), expected, rtol=1e-14)


def test_potential_of_one_hidden_layer_is_that_of_an_upstream_neuron():
    beta, epsilon = np.random.default_rng(0).normal(size=(5, 3)), np.array([0.0, 0.1, 1.0, 2.0, 30.0])
    expected = (bias_potential(beta, epsilon) - bias_potential(np.zeros(3), epsilon)) / np.sqrt(2)
    np.testing.assert_allclose(deep_bias_potential(beta, 1, epsilon), expected, rtol=1e-11)


def test_potential_at_zero_and_of_tensors():
    assert [float(deep_bias_potential(np.zeros(2), 3, epsilon)) for epsilon in (0.0, 1.0)] == [0.0, 0.0]
    assert isinstance(deep_bias_potential(torch.ones(4, 2), 1, 1.0), torch.Tensor)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_limit_of_the_flow_of_all_weights(depth, epsilon, rank):
    x, y = _design(depth, r=rank, n=5)
    weights = isotropic_layers(depth, 4, 0.8, epsilon, seed=rank)
    found = deep_bias_minimiser(x, y, _product(weights)[0], depth, epsilon)
    np.testing.assert_allclose(found, _product(_flow(weights, x, y[:, None]))[0], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_limit_of_the_flow_from_many_starts(seed):
    draw = np.random.default_rng(seed)
    depth, d, epsilon = int(draw.integers(1, 5)), int(draw.integers(2, 6)), float(draw.choice([0.0, 0.1, 1.0, 3.0]))
    x, y = _design(seed, d=d, r=int(draw.integers(1, d + 1)), n=6)
    weights = isotropic_layers(depth, d, float(draw.uniform(0.3, 1.5)), epsilon, seed=seed)
    found = deep_bias_minimiser(x, y, _product(weights)[0], depth, epsilon)
    np.testing.assert_allclose(found, _product(_flow(weights, x, y[:, None]))[0], atol=1e-8)


def test_limit_through_the_origin():
    """Downstream, β may start opposite to its target: a passes through 0 and no sign is needed."""
    (x, y), depth = _design(0, r=1), 2
    target = np.linalg.pinv(x) @ y
    weights = isotropic_layers(depth, 4, 0.5, 1.0)
    mirror = 2 * _product(weights)[0] + target / np.linalg.norm(target)  # a reflection of the inputs turns β to −target
    weights[0] = weights[0] @ (np.eye(4) - 2 * np.outer(mirror, mirror) / (mirror @ mirror))
    beta0 = _product(weights)[0]
    np.testing.assert_allclose(beta0, -0.5 * target / np.linalg.norm(target), atol=1e-14)
    found = deep_bias_minimiser(x, y, beta0, depth, 1.0)
    np.testing.assert_allclose(found, _product(_flow(weights, x, y[:, None]))[0], atol=1e-9)


def test_limit_is_where_the_gradient_is_in_the_row_space():
    (x, y), (depth, epsilon), beta0 = _design(3, d=5, r=2), (3, 0.6), np.array([0.5, -0.2, 0.1, 0.9, -0.4])
    found = deep_bias_minimiser(x, y, beta0, depth, epsilon)
    null, step = np.linalg.svd(x)[2][2:], 1e-5
    np.testing.assert_allclose(x @ found, y, atol=1e-13)

    def gradient(beta):
        ends = (deep_bias_potential(beta + sign * step * np.eye(5), depth, epsilon) for sign in (1, -1))
        return np.subtract(*ends) / (2 * step)

    np.testing.assert_allclose(null @ gradient(found), null @ gradient(beta0), atol=1e-9)


def test_limit_of_one_balanced_layer_is_that_of_a_balanced_neuron():
    (x, y), beta0 = _design(5), np.array([0.3, 0.1, -0.2, 0.4])
    a0 = np.sqrt(np.linalg.norm(beta0))
    np.testing.assert_allclose(deep_bias_minimiser(x, y, beta0, 1), bias_minimiser(x, y, a0, beta0 / a0), atol=1e-13)


def test_limit_from_zero_is_the_shortest_solution_and_of_tensors_a_tensor():
    x, y = _design(6)
    found = deep_bias_minimiser(torch.tensor(x), y, np.zeros(4), 2, 0.5)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found, np.linalg.pinv(x) @ y, atol=1e-14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta0": [0.0, 0.0]}, "`beta0` must not be 0, nor lead straight to 0, where `epsilon` is 0"),
        ({"beta0": [-1.0, -2.0]}, "`beta0` must not be 0, nor lead straight to 0"),
        ({"beta0": [1.0]}, r"`beta0` must have shape \(2,\)"),
        ({"epsilon": -1.0}, "`epsilon` must not be negative, got -1"),
        ({"epsilon": [1.0]}, "`epsilon` must be a number"),
        ({"depth": 0}, "`depth` must be an integer of at least 1"),
        ({"x": [[0.0, 0.0]]}, "`y` must be in the range of `x`"),
        ({"y": [np.inf]}, "`y` must be finite"),
    ],
)
def test_errors_of_the_minimiser(changes, message):
    with pytest.raises(ParameterError, match=message):
        deep_bias_minimiser(**{"x": [[0.5, 1.0]], "y": [1.1], "beta0": [1.0, 0.0], "depth": 1} | changes)


def test_errors_of_the_potential():
    with pytest.raises(ParameterError, match="`epsilon` must not be negative"):
        deep_bias_potential([1.0], 1, -0.1)
    with pytest.raises(ParameterError, match=r"`beta` less its last axis and `epsilon` must broadcast, got shapes \(2,\), \(3,\)"):
        deep_bias_potential(np.ones((2, 4)), 1, [1.0, 2.0, 3.0])
