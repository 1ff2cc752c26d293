"""Two-layer piecewise linear networks: against autograd, and against integration of all weights."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit

from richlearn.theory import _kinks
from richlearn.theory.piecewise_linear import (
    activation_matrix,
    early_directions,
    piecewise_kernel,
    reduced_flow,
    unit_residuals,
    unit_tangent_matrices,
    unit_velocities,
)

RATES = {"lr_w": 0.7, "lr_a": 1.9}


def _draw(seed=0, h=5, d=3, n=8):
    """w, a, x, y."""
    random = np.random.default_rng(seed)
    return random.normal(size=(h, d)), random.normal(size=h), random.normal(size=(n, d)), random.normal(size=n)


def _network(w, a, x, slope):
    return torch.nn.functional.leaky_relu(x @ w.T, slope) @ a


def _autograd(w, a, x, y, slope):
    """ẇ (h, d) and ȧ (h,) as PyTorch finds them."""
    w, a, x, y = (torch.tensor(each) for each in (w, a, x, y))
    leaves = w.requires_grad_(), a.requires_grad_()
    loss = 0.5 * (_network(*leaves, x, slope) - y).square().sum()
    return [-rate * each.numpy() for rate, each in zip((0.7, 1.9), torch.autograd.grad(loss, leaves), strict=True)]


def test_activation_at_zero_is_that_of_pytorch():
    w, _, x, _ = _draw()
    x[0], slope = 0.0, 0.3
    z = torch.tensor(w @ x.T, requires_grad=True)
    torch.nn.functional.leaky_relu(z, slope).sum().backward()
    np.testing.assert_array_equal(activation_matrix(w, x, slope), z.grad.numpy())


@pytest.mark.parametrize("slope", [0.0, 0.2, -1.0, 1.0])
def test_units_move_as_autograd_says(slope):
    w, a, x, y = _draw()
    to_w, to_a = _autograd(w, a, x, y, slope)
    expected = to_a[:, None] * w + a[:, None] * to_w
    found = -np.einsum("kij,kj->ki", unit_tangent_matrices(w, a, **RATES), unit_residuals(w, a, x, y, slope))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("last", [1.0, 1e-9, 0.0, -1e-9])
def test_radius_and_direction_move_as_autograd_says_at_small_a_too(last):
    w, a, x, y = _draw()
    a[-1] = last
    to_w, to_a = _autograd(w, a, x, y, 0.2)
    lengths = np.linalg.norm(w, axis=1)
    unit = w / lengths[:, None]
    found = unit_velocities(w, a, x, y, 0.2, **RATES)
    np.testing.assert_allclose(found.radial, to_a * lengths + a * (unit * to_w).sum(1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.directional, (to_w - (unit * to_w).sum(1)[:, None] * unit) / lengths[:, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_the_kernel_is_that_of_explicit_jacobians(slope):
    w, a, x, _ = _draw()
    jacobians = torch.autograd.functional.jacobian(lambda w, a: _network(w, a, torch.tensor(x), slope), (torch.tensor(w), torch.tensor(a)))
    expected = sum(rate * each.flatten(1) @ each.flatten(1).T for rate, each in zip((0.7, 1.9), jacobians, strict=True))
    np.testing.assert_allclose(piecewise_kernel(w, a, x, slope, **RATES), expected, rtol=0, atol=1e-12)


def test_the_kernel_is_the_sum_over_the_units_tangent_matrices():
    w, a, x, _ = _draw()
    c, matrices = activation_matrix(w, x, 0.2), unit_tangent_matrices(w, a, **RATES)
    expected = np.einsum("ki,ia,kab,jb,kj->ij", c, x, matrices, x, c)
    np.testing.assert_allclose(piecewise_kernel(w, a, x, 0.2, **RATES), expected, rtol=0, atol=1e-12)


def test_batches_are_many_networks():
    (w, a, x, y), (other_w, other_a, _, _) = _draw(0), _draw(1)
    ws, as_ = np.stack([w, other_w]), np.stack([a, other_a])
    for function, rest in ((unit_residuals, (x, y, 0.2)), (piecewise_kernel, (x, 0.2)), (unit_tangent_matrices, (np.array([1.0, 2.0]),))):
        each = [
            function(w, a, *rest) if function is not unit_tangent_matrices else function(w, a, rate)
            for w, a, rate in zip(ws, as_, (1.0, 2.0), strict=True)
        ]
        np.testing.assert_allclose(function(ws, as_, *rest), each, rtol=0, atol=1e-13)


def test_tensors_give_tensors():
    w, a, x, y = (torch.tensor(each) for each in _draw())
    assert isinstance(activation_matrix(w, x), torch.Tensor)
    assert isinstance(unit_velocities(w.numpy(), a, x.numpy(), y.numpy()).radial, torch.Tensor)
    assert isinstance(reduced_flow(w, a, x, y, [0.1]), torch.Tensor)
    assert isinstance(early_directions(w, x, y), torch.Tensor)


def _flow(w, a, x, y, times, slope, kink=0.0, **options):
    """w (T, h, d) and a (T, h) of gradient flow; σ' rises over a width `kink` instead of in a jump."""
    h, d = w.shape

    def velocity(_, state):
        w, a = state[: h * d].reshape(h, d), state[h * d :]
        z = w @ x.T
        rise = expit(z / kink) if kink else z > 0
        c = slope + (1 - slope) * rise
        pull = (c * (a @ (c * z) - y)) @ x
        return np.concatenate([(-RATES["lr_w"] * a[:, None] * pull).ravel(), -RATES["lr_a"] * (w * pull).sum(1)])

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14, **options}
    states = solve_ivp(velocity, (0, times[-1]), np.concatenate([w.ravel(), a]), t_eval=times, **options).y.T
    return states[:, : h * d].reshape(-1, h, d), states[:, h * d :]


def _turns(monkeypatch):
    """The list in which sides taken at each change of pattern will appear."""
    taken, turn = [], _kinks.ReducedMotion._turn

    def watched(self, state):
        before = self.side.copy()
        turn(self, state)
        taken.extend(self.side[before != self.side].tolist())

    monkeypatch.setattr(_kinks.ReducedMotion, "_turn", watched)
    return taken


TIMES = np.array([0.0, 0.05, 0.3, 1.0])


@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_the_reduced_flow_of_a_linear_network_is_that_of_all_weights(size):
    w, a, x, y = _draw()
    a *= size
    ws, as_ = _flow(w, a, x, y, TIMES, 1.0)
    np.testing.assert_allclose(reduced_flow(w, a, x, y, TIMES, slope=1.0, **RATES), as_[..., None] * ws, rtol=0, atol=2e-9)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_the_reduced_flow_is_that_of_all_weights_where_units_pass_kinks(slope, monkeypatch):
    passed = _turns(monkeypatch)
    for seed in (0, 17, 24, 25):
        passed.clear()
        w, a, x, y = _draw(seed, h=2, n=4)
        found = reduced_flow(w, a, x, y, TIMES[:3], slope=slope, **RATES)
        assert passed
        assert 0 not in passed
        ws, as_ = _flow(w, a, x, y, TIMES[:3], slope)
        np.testing.assert_allclose(found, as_[..., None] * ws, rtol=0, atol=1e-8)


@pytest.mark.parametrize("slope", [0.0, 0.2, -0.5])
@pytest.mark.parametrize("seed", [0, 10, 14])
def test_units_held_at_kinks_move_as_in_the_limit_of_rounded_kinks(slope, seed, monkeypatch):
    taken = _turns(monkeypatch)
    w, a, x, y = _draw(seed, h=6, n=10)
    found = reduced_flow(w, a, x, y, TIMES, slope=slope, **RATES)
    assert 0 in taken
    errors = []
    for kink in (1e-4, 1e-5, 1e-6):
        ws, as_ = _flow(w, a, x, y, TIMES, slope, kink, method="Radau", rtol=1e-9, atol=1e-11)
        errors.append(np.abs(as_[..., None] * ws - found).max())
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 5e-5


def test_opposed_and_repeated_inputs_make_one_kink(monkeypatch):
    taken = _turns(monkeypatch)
    w, a, x, y = _draw(2, h=6)
    x, y = np.concatenate([x, -2 * x[:4], x[4:], 0 * x[:1]]), np.concatenate([y, -y[::-1][:4], -0.5 * y[4:], [1.0]])
    found = reduced_flow(w, a, x, y, TIMES, **RATES)
    assert 0 in taken
    ws, as_ = _flow(w, a, x, y, TIMES, 0.0, 1e-6, method="Radau", rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found, as_[..., None] * ws, rtol=0, atol=1e-4)


@pytest.mark.parametrize("start", [0.3, 0.0, -0.3])
def test_a_readout_may_pass_zero(start):
    w, a, x, y = np.array([[1.0, 0.2]]), np.array([start]), np.array([[1.0, 0.5], [0.3, 1.0]]), np.array([-2.0, -1.0])
    times = np.array([0.0, 0.01, 0.1, 0.5, 3.0])
    ws, as_ = _flow(w, a, x, y, times, 0.3)
    assert as_[-1, 0] < 0
    np.testing.assert_allclose(reduced_flow(w, a, x, y, times, slope=0.3, **RATES), as_[..., None] * ws, rtol=0, atol=1e-8)


def test_incoming_weights_may_pass_zero():
    w, a, x, y = np.array([[-1.0, 1e-3]]), np.array([2.0]), np.eye(2), np.array([2.0, 0.0])
    ws, as_ = _flow(w, a, x, y, TIMES, 0.5)
    np.testing.assert_allclose(reduced_flow(w, a, x, y, TIMES, slope=0.5, **RATES), as_[..., None] * ws, rtol=0, atol=1e-7)


def test_small_starts_keep_relative_digits():
    w, a, x, y = _draw(3)
    w, a = 1e-8 * w, 1e-8 * np.abs(a)
    times = np.array([0.0, 0.1, 0.2])
    ws, as_ = _flow(w, a, x, y, times, 0.5, atol=1e-22)
    expected = as_[..., None] * ws
    np.testing.assert_allclose(
        reduced_flow(w, a, x, y, times, slope=0.5, **RATES), expected, rtol=0, atol=1e-7 * np.abs(expected).max(1).min()
    )


def test_times_may_come_in_any_order():
    start = _draw()
    found = reduced_flow(*start, [1.0, 0.0, 0.3, 0.3])
    np.testing.assert_allclose(found, reduced_flow(*start, [0.0, 0.3, 1.0])[[2, 0, 1, 1]], rtol=0, atol=1e-9)
    assert reduced_flow(*start, np.zeros(0)).shape == (0, 5, 3)


def test_no_data_leave_the_units_where_they_are():
    w, a, _, _ = _draw()
    nothing = np.zeros((0, 3)), np.zeros(0)
    np.testing.assert_allclose(reduced_flow(w, a, *nothing, [5.0])[0], a[:, None] * w, rtol=1e-12)
    np.testing.assert_allclose(early_directions(w, *nothing), w / np.linalg.norm(w, axis=1, keepdims=True), rtol=1e-14)


def _aligned(w, a, x, y, slope, step=5e-4, size=1e-60):
    """Directions of a start of size 1e-30 once the loss has changed by 1e-4 of itself: small steps, in units of the start."""
    while True:
        z = w @ x.T
        c = slope + (1 - slope) * (z > 0)
        off = size * a @ (c * z) - y
        if off @ off < (1 - 1e-4) * (y @ y):
            return w / np.linalg.norm(w, axis=1, keepdims=True)
        pull = (c * off) @ x
        w, a = w - step * a[:, None] * pull, a - step * (w * pull).sum(1)


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_early_directions_are_those_of_a_vanishing_network(seed, d, slope):
    w, a, x, y = _draw(seed, h=6, d=d, n=7)
    a = 1.5 * np.sign(a) * np.linalg.norm(w, axis=1)
    found = early_directions(w, x, y, np.sign(a), slope)
    # A unit that two pulls nearly balance has not quite arrived when the others begin to fit.
    np.testing.assert_allclose(found, _aligned(w, a, x, y, slope), rtol=0, atol=0.02)
