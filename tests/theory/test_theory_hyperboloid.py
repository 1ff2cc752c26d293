"""The hyperboloid satisfies its equation; the flow on it agrees with finite differences and with the vector field of (a, w)."""

import numpy as np
import pytest
import torch
from mpmath import mp

from richlearn.errors import ParameterError
from richlearn.theory.hyperboloid import flow_field, hyperboloid
from richlearn.theory.single_neuron import SingleNeuron


@pytest.mark.parametrize(("delta", "sheets"), [(3.0, 2), (1e-9, 2), (0.0, 1), (-1e-9, 1), (-3.0, 1)])
def test_points_lie_on_the_surface(delta, sheets):
    found = hyperboloid(delta, lr_a=0.6, lr_w=1.7, extent=3.0, resolution=41)
    assert len(found) == sheets
    for w1, w2, a in found:
        assert w1.shape == w2.shape == a.shape == (41, 41)
        assert np.abs(1.7 * a**2 - 0.6 * (w1**2 + w2**2) - delta).max() < 1e-12


def test_two_sheets_lie_on_either_side_and_reach_the_extent():
    (w1, w2, upper), (_, _, lower) = hyperboloid(4.0, extent=3.0)
    np.testing.assert_allclose(np.hypot(w1, w2).max(), 3)
    assert upper.min() == 2
    np.testing.assert_array_equal(lower, -upper)


@pytest.mark.parametrize(("delta", "waist"), [(-4.0, 2.0), (0.0, 0.0)])
def test_one_sheet_and_the_cone_have_their_waist_at_zero_height(delta, waist):
    ((w1, w2, a),) = hyperboloid(delta, extent=3.0, resolution=31)
    assert (a[0, 0], a[15, 0], a[-1, 0]) == (-3, 0, 3)
    np.testing.assert_allclose(np.hypot(w1, w2).min(), waist)


def test_a_sheet_closes_around_its_axis():
    for w1, w2, a in hyperboloid(1.0):
        np.testing.assert_allclose([w1[:, 0], w2[:, 0], a[:, 0]], [w1[:, -1], w2[:, -1], a[:, -1]], atol=1e-14)


def test_grids_are_tensors_for_a_tensor():
    assert all(isinstance(each, torch.Tensor) for each in hyperboloid(torch.tensor(-1.0))[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delta": [1.0, 2.0]}, r"`delta` must be one number, got shape \(2,\)"),
        ({"delta": np.nan}, "`delta` must be finite, got nan"),
        ({"lr_a": 0.0}, "`lr_a` must be positive, got 0"),
        ({"extent": -1.0}, "`extent` must be positive, got -1"),
        ({"resolution": 1}, "`resolution` must be a whole number ≥ 2, got 1"),
        ({"resolution": 2.5}, r"`resolution` must be a whole number ≥ 2, got 2\.5"),
    ],
)
def test_bad_surfaces_are_named(options, text):
    with pytest.raises(ParameterError, match=text):
        hyperboloid(**{"delta": 1.0, **options})


def state(a, w, beta, lr_a, lr_w):
    """μ, φ, δ of a state, and μ̇, φ̇ by the chain rule from ȧ and ẇ."""
    length, s = np.linalg.norm(w), np.linalg.norm(beta)
    da, dw = -lr_a * w @ (a * w - beta), -lr_w * a * (a * w - beta)
    dlength = w @ dw / length
    phi = w @ beta / length / s
    return (a * length, phi, lr_w * a**2 - lr_a * length**2), (da * length + a * dlength, dw @ beta / length / s - phi * dlength / length)


@pytest.mark.parametrize("a", [-40.0, -1.5, -1e-3, 0.0, 1e-9, 0.2, 1.0, 40.0])
def test_flow_is_that_of_the_weights(a):
    w, beta = np.array([-1.0, 0.4, 0.2]), np.array([0.5, 1.0, -0.3])
    point, expected = state(a, w, beta, 0.6, 1.7)
    found = flow_field(*point, np.linalg.norm(beta), 0.6, 1.7)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("delta", [-3.0, 0.0, 3.0])
def test_flow_is_the_derivative_of_the_exact_solution(delta):
    length = np.sqrt(max(-delta, 0) + 1)
    neuron, step = SingleNeuron(-np.sqrt(delta + length**2), [-0.6 * length, 0.8 * length], [0.5, 1.0]), 1e-4
    times = np.array([0.1, 0.5, 2.0])
    found = flow_field(neuron.mu(times), neuron.phi(times), neuron.delta, np.sqrt(1.25))
    for each, of in zip(found, (neuron.mu, neuron.phi), strict=True):
        np.testing.assert_allclose(each, (of(times + step) - of(times - step)) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("delta", [-1e4, -1.0, 1.0, 1e4])
@pytest.mark.parametrize("mu", [1e-9, 1e-3, -1.0, 1e3])
def test_flow_does_not_cancel(mu, delta):
    with mp.workdps(80):
        m, d, s, phi = mp.mpf(mu), mp.mpf(delta), mp.mpf(0.5), 1 - mp.mpf(2) ** -40
        kappa = mp.sqrt(d**2 + 4 * mp.mpf(0.6) * mp.mpf(1.7) * m**2)
        expected = float(2 * mp.mpf(0.6) * mp.mpf(1.7) * m * s * (1 - phi**2) / (kappa - d))
    np.testing.assert_allclose(flow_field(mu, 1 - 2.0**-40, delta, 0.5, 0.6, 1.7)[1], expected, rtol=1e-14)


def test_where_the_outgoing_weight_is_zero_the_angle_rests():
    assert [float(each) for each in flow_field(0.0, 0.5, -2.0, 3.0)] == [3.0, 0.0]


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_without_incoming_weights_there_is_no_angle(delta):
    with pytest.raises(ParameterError, match="`mu` must not be 0 where `delta` ≥ 0"):
        flow_field([0.0, 1.0], 0.5, delta)


def test_flow_broadcasts():
    mu, phi = np.meshgrid(np.linspace(0.1, 2, 4), np.linspace(-1, 1, 5))
    found = flow_field(mu, phi, np.array([-1.0, 0.0, 1.0])[:, None, None])
    assert [each.shape for each in found] == [(3, 5, 4)] * 2
    np.testing.assert_array_equal(found[1][2, 3, 1], flow_field(mu[3, 1], phi[3, 1], 1.0)[1])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1.0, 1.5, 0.0), r"`phi` must lie in \[-1, 1\], got 1.5"),
        ((1.0, 0.5, 0.0, -1.0), "`strength` must not be negative, got -1"),
        ((np.ones(2), np.zeros(3), 0.0), "the arguments of `flow_field` must broadcast"),
        ((1.0, 0.5, 0.0, 1.0, -1.0), "`lr_a` must be positive, got -1"),
    ],
)
def test_bad_points_are_named(arguments, text):
    with pytest.raises(ParameterError, match=text):
        flow_field(*arguments)


def test_flow_of_tensors_is_tensors():
    assert all(isinstance(each, torch.Tensor) for each in flow_field(torch.ones(2), 0.5, 1.0))
