"""Kernels of infinite width: against Gaussian expectations, and against finite networks of the suite in NTK parametrisation."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from richlearn.errors import ParameterError
from richlearn.kernels import TangentKernel, empirical_ntk
from richlearn.networks import MLP, TwoLayer
from richlearn.schemes import NTK
from richlearn.seeds import generator, global_stream
from richlearn.theory.infinite_width import relu_kernels

X = np.random.default_rng(0).normal(size=(4, 3))
X2 = np.random.default_rng(1).normal(size=(2, 3))


def _expectation(values, covariance):
    """E[g(u, v)] of a centred Gaussian pair, g homogeneous: the radius in closed form, the angle by quadrature."""
    degree, function = values
    root = np.linalg.cholesky(covariance)

    def integrand(phi):
        u, v = root @ (np.cos(phi), np.sin(phi))
        return function(u, v)

    # E[r^2] = 2; the kinks of g are where u or v changes sign
    kinks = sorted(
        {float(np.arctan2(-row[0], row[1]) % (2 * np.pi) + k * np.pi) % (2 * np.pi) for row in root for k in (0, 1)} | {0, 2 * np.pi}
    )
    total = sum(quad(integrand, *piece, epsabs=1e-14)[0] for piece in pairwise(kinks))
    return total / (2 * np.pi) * (2 if degree == 2 else 1)


RELU = (2, lambda u, v: max(u, 0) * max(v, 0))
STEP = (0, lambda u, v: float(u > 0 and v > 0))


def _reference(x, x2, variances, rates):
    """The recursion with each expectation by quadrature: returns Σ and Θ of one pair of inputs."""
    gram = variances[0] / len(x) * np.array([[x @ x, x @ x2], [x @ x2, x2 @ x2]])
    ntk = rates[0] * gram[0, 1]
    for variance, rate in zip(variances[1:], rates[1:], strict=True):
        slope = variance * _expectation(STEP, gram)
        across = variance * _expectation(RELU, gram)
        gram = np.array([[variance * gram[0, 0] / 2, across], [across, variance * gram[1, 1] / 2]])
        ntk = rate * across + slope * ntk
    return gram[0, 1], ntk


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_recursion_is_one_of_gaussian_expectations(depth):
    variances, rates = [0.7, 2.3, 1.9, 0.4, 3.0][:depth], [0.2, 1.7, 0.6, 2.5, 0.9][:depth]
    found = relu_kernels(X, X2, depth=depth, variances=variances, rates=rates)
    expected = np.array([[_reference(x, x2, variances, rates) for x2 in X2] for x in X])
    np.testing.assert_allclose(found.nngp, expected[..., 0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.ntk, expected[..., 1], rtol=1e-11, atol=1e-12)


def test_without_hidden_layers_both_are_the_inputs_gram_matrix():
    found = relu_kernels(X, X2, depth=1, variances=[1.5], rates=[0.3])
    np.testing.assert_allclose(found.nngp, 1.5 * X @ X2.T / 3, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found.ntk, 0.45 * X @ X2.T / 3, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_the_defaults_keep_the_size_of_the_output(depth):
    size = (X**2).sum(1) / 3
    found = relu_kernels(X, depth=depth)
    np.testing.assert_allclose(np.diag(found.nngp), size, rtol=1e-13)
    np.testing.assert_allclose(np.diag(found.ntk), depth * size, rtol=1e-13)
    explicit = relu_kernels(X, depth=depth, variances=[2.0] * (depth - 1) + [1.0], rates=[1.0] * depth)
    np.testing.assert_array_equal(found.ntk, explicit.ntk)


def test_if_only_the_readout_is_trained_the_tangent_kernel_is_the_covariance():
    found = relu_kernels(X, X2, depth=4, rates=[0.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(found.ntk, found.nngp)


def test_the_tangent_kernel_is_linear_in_the_rates():
    parts = [relu_kernels(X, depth=3, rates=np.eye(3)[layer]).ntk for layer in range(3)]
    together = relu_kernels(X, depth=3, rates=[0.3, 2.0, 5.0]).ntk
    np.testing.assert_allclose(together, 0.3 * parts[0] + 2.0 * parts[1] + 5.0 * parts[2], rtol=1e-13)


def _precise(degrees, depth):
    """Σ and Θ by 60 digits for unit inputs at an angle of `degrees`·π, n_0 = 1 and the default variances."""
    with mpmath.workdps(60):
        theta, q = mpmath.mpf(degrees), mpmath.mpf(2)
        ntk = q * mpmath.cos(theta)
        nngp = ntk
        for layer in range(1, depth):
            variance = 2 if layer < depth - 1 else 1
            cosine = (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)) / mpmath.pi
            slope, q = variance * (mpmath.pi - theta) / (2 * mpmath.pi), q * variance / 2
            theta, nngp = mpmath.acos(cosine), q * cosine
            ntk = nngp + slope * ntk
        return float(nngp), float(ntk)


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("angle", [1e-14, 1e-9, 1e-7, 1e-4, 0.1, 1.5, 3.1, np.pi - 1e-5, np.pi - 1e-9])
def test_nearly_parallel_and_antiparallel_inputs_lose_no_digits(angle, depth):
    pair = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    found = relu_kernels(pair[:1] * 2**0.5, pair[1:], depth=depth)
    nngp, ntk = _precise(angle, depth)
    np.testing.assert_allclose([found.nngp.item(), found.ntk.item()], 2**0.5 * np.array([nngp, ntk]) / 2, rtol=1e-14, atol=2e-16)


def test_small_distances_between_kernel_entries_are_resolved():
    # Θ(x, x) − Θ(x, x') ∝ angle, which an arc cosine of a rounded cosine does not see below 1e-8
    angle = 1e-10
    pair = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    kernel = relu_kernels(pair, depth=3).ntk
    assert (kernel[0, 0] - kernel[0, 1]) / angle == pytest.approx(1.5 / np.pi, rel=1e-4)


def test_the_zero_input_has_zero_kernels():
    found = relu_kernels(np.vstack([X, np.zeros(3)]), depth=3)
    for kernel in found:
        np.testing.assert_array_equal(kernel[-1], 0)
        np.testing.assert_array_equal(kernel[:, -1], 0)
        np.testing.assert_array_equal(kernel[:-1, :-1], relu_kernels(X, depth=3)[0 if kernel is found.nngp else 1])


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_kernels_are_symmetric_and_positive(n, d, depth, seed):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[n // 2] = -2 * x[0]
    for kernel in relu_kernels(x, depth=depth):
        np.testing.assert_array_equal(kernel, kernel.T)
        eigenvalues = np.linalg.eigvalsh(kernel)
        assert eigenvalues[0] > -1e-13 * eigenvalues[-1]


def test_kernels_are_homogeneous_of_degree_one_in_each_input():
    found, plain = relu_kernels(3e-170 * X, 2e160 * X2, depth=3), relu_kernels(X, X2, depth=3)
    np.testing.assert_allclose(found.ntk * 1e10, 6 * plain.ntk, rtol=1e-12)


def _network(depth, width, outputs=1):
    with global_stream(generator(0, "infinite width")):
        if depth == 2:
            return TwoLayer(3, outputs, width=width).double()
        return MLP(3, outputs, width=width, depth=depth - 1, bias=False).double()


def _draw(network, seed):
    """New weights by the suite's scheme; the rates that it asks for."""
    return NTK().apply(network, generator(seed, "infinite width"), batch=torch.tensor(X), optimizer="sgd").lr


def _sampled(depth, width, seeds):
    """Means over networks of the empirical kernel and of the product of outputs, each with its standard error."""
    network, x, x2 = _network(depth, width), torch.tensor(X), torch.tensor(X2)
    kernel = TangentKernel(network, x, x2)
    tangent, products = [], []
    for seed in range(seeds):
        tangent.append(kernel(network, rates=_draw(network, seed)).detach().numpy())
        products.append((network(x) @ network(x2).T).detach().numpy())
    return [(np.mean(found, 0), np.std(found, 0) / seeds**0.5) for found in (tangent, products)]


@pytest.mark.parametrize("width", [3, 40])
def test_of_two_layers_the_mean_kernels_are_exact_at_any_width(width):
    expected = relu_kernels(X, X2, depth=2, variances=[1.0, 1.0])
    (ntk, ntk_error), (nngp, nngp_error) = _sampled(2, width, 300)
    assert ntk_error.max() < 0.2 * np.abs(expected.ntk).max()
    assert (np.abs(ntk - expected.ntk) < 4 * ntk_error).all()
    assert (np.abs(nngp - expected.nngp) < 4 * nngp_error).all()


def test_each_output_has_the_kernel_and_two_outputs_share_none():
    network = _network(2, 30000, outputs=2)
    rates = _draw(network, 0)
    full = empirical_ntk(network, torch.tensor(X), outputs="full", rates=rates).detach().numpy().reshape(4, 2, 4, 2)
    expected = relu_kernels(X, depth=2, variances=[1.0, 1.0]).ntk
    np.testing.assert_allclose(full[:, 0, :, 0], expected, atol=0.03 * expected.max())
    np.testing.assert_allclose(full[:, 1, :, 1], expected, atol=0.03 * expected.max())
    np.testing.assert_allclose(full[:, 0, :, 1], 0, atol=0.03 * expected.max())


@pytest.mark.parametrize("depth", [3, 4])
def test_deeper_networks_approach_it_as_they_widen(depth):
    expected = relu_kernels(X, X2, depth=depth, variances=[1.0] * depth).ntk
    spreads = []
    for width in (16, 64, 256):
        mean, error = _sampled(depth, width, 50)[0]
        assert (np.abs(mean - expected) < 4 * error + np.abs(expected).max() / width).all()
        spreads.append(np.linalg.norm(error) * 50**0.5 / np.linalg.norm(expected))
    assert np.log(spreads[0] / spreads[2]) / np.log(16) == pytest.approx(0.5, abs=0.12)


def _three_layer_kernels(width, count):
    """Θ(x, x') of the first of X and of X2 in `count` networks of three layers, backpropagated by hand."""
    source, inputs = np.random.default_rng(0), np.stack([X[0], X2[0]], 1)
    first, second, last = (source.normal(size=(count, *shape)) for shape in ((width, 3), (width, width), (width, 1)))
    u = first @ inputs / 3**0.5
    h = np.maximum(u, 0)
    u2 = second @ h / width**0.5
    h2 = np.maximum(u2, 0)
    g2 = last * (u2 > 0) / width**0.5
    g = second.transpose(0, 2, 1) @ g2 / width**0.5 * (u > 0)
    dots = [np.prod(each, -1).sum(-1) for each in (h2, g2, h, g)]
    return dots[0] / width + dots[1] * dots[2] / width + dots[3] * (X[0] @ X2[0]) / 3


def test_the_mean_of_three_layers_is_off_by_the_inverse_width():
    expected = relu_kernels(X[:1], X2[:1], depth=3, variances=[1.0] * 3).ntk.item()
    found, found2 = _three_layer_kernels(4, 400000), _three_layer_kernels(8, 400000)
    error, error2 = 4 * found.std() / 400000**0.5, 8 * found2.std() / 400000**0.5
    offset, offset2 = 4 * (found.mean() - expected), 8 * (found2.mean() - expected)
    assert abs(offset) > 5 * error
    assert abs(offset2 - offset) < 4 * np.hypot(error, error2)


def test_tensors_in_tensors_out():
    found = relu_kernels(torch.tensor(X, dtype=torch.float32), depth=2)
    assert isinstance(found.nngp, torch.Tensor)
    assert found.ntk.dtype == torch.float64
    np.testing.assert_allclose(found.ntk.numpy(), relu_kernels(X, depth=2).ntk, rtol=1e-6)


def test_no_inputs_have_empty_kernels():
    assert relu_kernels(X, np.zeros((0, 3)), depth=3).ntk.shape == (4, 0)


@pytest.mark.parametrize("depth", [0, True, -1])
def test_a_network_has_a_layer(depth):
    with pytest.raises(ParameterError, match=f"`depth` must be a whole number of at least 1, got {depth}"):
        relu_kernels(X, depth=depth)


def test_inputs_are_a_matrix():
    with pytest.raises(ParameterError, match=r"`x` must have shape \(n, d\), d ≥ 1, got \(3,\)"):
        relu_kernels(X[0], depth=2)
    with pytest.raises(ParameterError, match=r"`x2` must have shape \(n, d\), d ≥ 1, got \(4, 0\)"):
        relu_kernels(X, X[:, :0], depth=2)


def test_inputs_are_finite():
    with pytest.raises(ParameterError, match="`x` must be finite, got nan"):
        relu_kernels(X * np.nan, depth=2)


def test_inputs_have_one_dimension():
    with pytest.raises(ParameterError, match="`x2` must have as many columns as `x`, 3, got 2"):
        relu_kernels(X, X[:, :2], depth=2)


@pytest.mark.parametrize("name", ["variances", "rates"])
def test_every_layer_has_a_number(name):
    with pytest.raises(ParameterError, match=rf"`{name}` must hold one number for each of the 3 layers, got shape \(2,\)"):
        relu_kernels(X, depth=3, **{name: [1.0, 2.0]})


def test_variances_are_positive_and_rates_not_negative():
    with pytest.raises(ParameterError, match="`variances` must be positive, got 0"):
        relu_kernels(X, depth=2, variances=[1.0, 0.0])
    with pytest.raises(ParameterError, match="`rates` must be at least 0, got -1"):
        relu_kernels(X, depth=2, rates=[1.0, -1.0])
