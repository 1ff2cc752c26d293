"""The closed-form neuron against its differential equation (DOP853), 100-digit arithmetic, and explicit Jacobians."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy.integrate import solve_ivp

from richlearn.errors import ParameterError
from richlearn.theory.single_neuron import SingleNeuron, Stages

SIGNED = st.sampled_from([-1.0, 1.0])
START = SingleNeuron(0.7, [-1.0, 0.4, 0.2], [0.5, 1.0, -0.3], lr_a=0.6, lr_w=1.7)


def integrate(a0, w0, beta, lr_a, lr_w, times, gram=1.0):
    """States (T, 1 + d) of the flow whose loss has the Hessian `gram` (a number or a matrix) in β."""
    gram = np.eye(len(w0)) * gram if np.ndim(gram) == 0 else gram

    def rhs(_, z):
        residual = gram @ (z[0] * z[1:] - beta)
        return np.concatenate([[-lr_a * (z[1:] @ residual)], -lr_w * z[0] * residual])

    start = np.concatenate([[a0], w0])
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-15 * np.linalg.norm(start)}
    return solve_ivp(rhs, (0, max(times)), start, t_eval=times, **options).y.T


def stacked(neuron, times):
    a, w = neuron.at(times)
    return np.concatenate([a[..., None], w], -1)


def error(found, expected):
    """The largest error of a state relative to its norm."""
    return (np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max()


def closed_form(a0, w0, beta, lr_a, lr_w, digits=120):
    """t ↦ (a, w) by the formulas of the docstring as printed, in `digits` digits."""
    with mp.workdps(digits):
        a0, lr_a, lr_w = (mp.mpf(float(each)) for each in (a0, lr_a, lr_w))
        w0, beta = ([mp.mpf(float(each)) for each in vector] for vector in (w0, beta))
        overlap, s2 = mp.fdot(w0, beta), mp.fdot(beta, beta)
        delta = lr_w * a0**2 - lr_a * mp.fdot(w0, w0)
        root = mp.sqrt(delta**2 + 4 * lr_a * lr_w * s2)
        plus, minus = root + delta, root - delta
        u, v = (plus * a0 + 2 * lr_a * overlap) / (2 * root), (minus * a0 - 2 * lr_a * overlap) / (2 * root)

    def at(t):
        with mp.workdps(digits):
            t = mp.mpf(t)
            x, y = mp.exp(-root * t), mp.exp(-plus * t)
            mixed = (x - y) / delta if delta else t * x
            square = u**2 * (1 - y) / plus + 2 * u * v * mixed + v**2 * y * (1 - mp.exp(-minus * t)) / minus
            d = mp.sqrt(y + 2 * lr_w * square)
            along = (minus * u - plus * v * x) / (2 * lr_a * d * s2)
            return [(u + v * x) / d, *(along * b + (w - overlap / s2 * b) * mp.sqrt(y) / d for w, b in zip(w0, beta, strict=True))]

    return at


def mp_error(found, expected):
    gap = [mp.mpf(float(x)) - y for x, y in zip(found, expected, strict=True)]
    return float(mp.sqrt(mp.fdot(gap, gap) / mp.fdot(expected, expected)))


@st.composite
def starts(draw):
    """a0, w0, beta*, rates: |δ| from 0 and 1e-12 to 1e3, both signs of a0 and a0 = 0, strengths and rates apart."""
    d = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    lr_a, lr_w = (10 ** draw(st.floats(-1, 1)) for _ in range(2))
    beta, w0 = (each / np.linalg.norm(each) for each in rng.standard_normal((2, d)))
    beta = beta * 10 ** draw(st.floats(-1, 1))
    delta = draw(SIGNED) * draw(st.one_of(st.just(0.0), st.floats(-12, 3).map(lambda power: 10**power)))
    small = draw(st.one_of(st.just(0.0), st.floats(-2, 0.5).map(lambda power: 10**power)))
    other = np.sqrt((abs(delta) + (lr_a if delta > 0 else lr_w) * small**2) / (lr_w if delta > 0 else lr_a))
    a0, length = (other, small) if delta > 0 else (small, other)
    return draw(SIGNED) * a0, length * w0, beta, lr_a, lr_w


def against_ode(case, limit):
    a0, w0, beta, lr_a, lr_w = case
    neuron = SingleNeuron(a0, w0, beta, lr_a, lr_w)
    strength, delta = np.linalg.norm(beta), float(neuron.delta)
    root = np.hypot(delta, 2 * np.sqrt(lr_a * lr_w) * strength)
    terms = (root + delta) * abs(a0) / 2, lr_a * np.linalg.norm(w0) * strength
    assume(max(terms) > 0)
    assume(abs((root + delta) * a0 / 2 + lr_a * w0 @ beta) > 1e-2 * max(terms))  # else the integrator is the one that errs
    times = np.array([0.0, 0.01, 0.1, 0.5, 1, 3, 10, 100]) / root
    assert error(stacked(neuron, times), integrate(*case, times)) < limit


@settings(deadline=None, max_examples=100, derandomize=True)
@given(starts())
def test_solution_agrees_with_the_integrated_equation(case):
    against_ode(case, 1e-9)


@pytest.mark.slow
@settings(deadline=None, max_examples=1000, derandomize=True)
@given(starts())
def test_solution_agrees_with_the_integrated_equation_on_many_starts(case):
    against_ode(case, 1e-8)


@pytest.mark.parametrize("case", [(0.7, (-1, 0.4), (0.5, 1), 0.6, 1.7), (0, (1, 2), (0.5, 1), 2, 1), (5, (3, 4), (-0.5, 1), 1, 1)])
def test_reference_satisfies_the_equation_in_many_digits(case):
    at, (_, _, beta, lr_a, lr_w) = closed_form(*case), case
    with mp.workdps(100):
        for t in (mp.mpf("0.01"), mp.mpf(1) / 3, mp.mpf(4)):
            a, *w = at(t)
            residual = [a * x - mp.mpf(float(b)) for x, b in zip(w, beta, strict=True)]
            exact = [-mp.mpf(lr_a) * mp.fdot(w, residual), *(-mp.mpf(lr_w) * a * r for r in residual)]
            found = [mp.diff(lambda t, i=i: at(t)[i], t, h=mp.mpf(10) ** -30) for i in range(3)]
            assert max(abs(x - y) for x, y in zip(found, exact, strict=True)) < mp.mpf(10) ** -28


def separatrix(rng, d):
    """A start on the stable manifold (to rounding) of any δ ≤ 0, in float64: (a0, w0, beta, lr_a, lr_w)."""
    lr_a, lr_w = 10 ** rng.uniform(-1, 1, 2)
    beta, a0, across = rng.standard_normal(d), rng.choice([-1, 1]) * 10 ** rng.uniform(-1, 1), rng.standard_normal(d)
    s = np.linalg.norm(beta)
    across = (across - across @ beta / s**2 * beta) * rng.choice([0, 1e-6, 1])

    def argument(along):
        delta = lr_w * a0**2 - lr_a * (across @ across + along**2)
        return abs(a0) / 2 * (delta + np.hypot(delta, 2 * np.sqrt(lr_a * lr_w) * s)) - lr_a * along * s

    low, high = 0.0, 10 * np.sqrt(lr_w / lr_a) * abs(a0)
    for _ in range(200):
        low, high = ((low + high) / 2, high) if argument((low + high) / 2) > 0 else (low, (low + high) / 2)
    return a0, across - np.sign(a0) * high * beta / s, beta, lr_a, lr_w


@pytest.mark.parametrize("distance", [1e-6, -1e-6, 1e-9, -1e-12, 1e-15])
def test_next_to_the_separatrix_every_digit_is_kept(distance):
    rng = np.random.default_rng(int(abs(np.log10(abs(distance)))))
    for d in (1, 2, 3) * 5:
        a0, w0, beta, lr_a, lr_w = separatrix(rng, d)
        w0 = w0 + distance * abs(a0) * beta / np.linalg.norm(beta)
        neuron, at = SingleNeuron(a0, w0, beta, lr_a, lr_w), closed_form(a0, w0, beta, lr_a, lr_w, 400)
        root = np.hypot(float(neuron.delta), 2 * np.sqrt(lr_a * lr_w) * np.linalg.norm(beta))
        times = np.array([0.1, 1, 5, 10, 15, 20, 30, 40, 80]) / root
        assert max(mp_error(x, at(t)) for x, t in zip(stacked(neuron, times), times, strict=True)) < 1e-11


@pytest.mark.parametrize("angle", [1e-2, 1e-6, 1e-10])
def test_almost_antiparallel_balanced_start_keeps_every_digit(angle):
    case = 1.0, [-np.cos(angle), np.sin(angle)], [1.0, 0.0], 1.0, 1.0
    neuron, at, times = SingleNeuron(*case), closed_form(*case, 400), np.linspace(0.5, 40, 40)
    assert max(mp_error(x, at(t)) for x, t in zip(stacked(neuron, times), times, strict=True)) < 1e-12


@pytest.mark.parametrize("delta", [-1e3, -1.0, -1e-12, 0.0, 1e-12, 1.0, 1e3])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_long_times_against_many_digits(delta, sign):
    lr_a, lr_w, beta = 0.5, 3.0, np.array([0.3, -0.8])
    w0 = np.array([0.6, 0.8]) * np.sqrt((max(-delta, 0) + 0.25 * lr_w) / lr_a)
    a0 = sign * np.sqrt((max(delta, 0) + lr_a * (w0 @ w0)) / lr_w) if delta > 0 else sign * 0.5
    neuron, at = SingleNeuron(a0, w0, beta, lr_a, lr_w), closed_form(a0, w0, beta, lr_a, lr_w, 1000)
    for t in (0.0, 1e-9, 1e-3, 1.0, 37.0, 1e3, 1e4, 1e6):
        assert mp_error(stacked(neuron, t), at(t)) < 1e-13


@pytest.mark.parametrize("delta", [-1e3, -1.0, 0.0, 1.0, 1e3])
def test_at_a_million_the_flow_stands_at_its_limit_point(delta):
    a0, length = np.sqrt(max(delta, 0) + 1), np.sqrt(max(-delta, 0) + 1)
    neuron = SingleNeuron(a0, [-0.6 * length, 0.8 * length], [0.6, 0.8])
    for found, expected in zip(neuron.at(1e6), neuron.final(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(neuron.beta(1e6), [0.6, 0.8], rtol=1e-13)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_solution_is_continuous_where_delta_changes_sign(sign):
    delta = sign * np.array([0.0, 1e-300, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11])
    neuron = SingleNeuron(np.sqrt(1 + delta), [-0.28, 0.96], [0.5, 1.5])
    states = stacked(neuron, np.geomspace(1e-3, 1e6, 60))
    assert np.abs(states - states[0]).max() < 1e-10


def test_a_sign_change_of_the_outgoing_weight_is_followed():
    case = 0.5, np.array([-2.0, 0.3]), np.array([1.0, 0.5]), 1.0, 1.0
    times = np.linspace(0, 20, 50)
    a, _ = SingleNeuron(*case).at(times)
    assert a[0] > 0 > a[-1]
    assert error(stacked(SingleNeuron(*case), times), integrate(*case, times)) < 1e-10


SPECIAL = {
    "no target, upstream": (2.0, [1.0, 1.0], [0.0, 0.0]),
    "no target, balanced": (-1.0, [0.6, 0.8], [0.0, 0.0]),
    "no target, downstream": (-1.0, [2.0, 1.0], [0.0, 0.0]),
    "w0 = 0": (-1.5, [0.0, 0.0], [0.5, 1.0]),
    "a0 = 0": (0.0, [0.5, -1.0], [0.5, 1.0]),
    "parallel": (0.5, [1.5, 3.0], [0.5, 1.0]),
    "antiparallel, upstream": (3.0, [-0.5, -1.0], [0.5, 1.0]),
    "antiparallel, downstream": (0.5, [-0.5, -1.0], [0.5, 1.0]),
    "d = 1": (-0.4, [0.7], [-1.3]),
    "tiny target": (1.0, [0.5, 1.0], [1e-9, 1e-9]),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_starts_agree_with_the_integrated_equation(name):
    a0, w0, beta = (np.array(each) for each in SPECIAL[name])
    times = np.array([0.0, 0.1, 1.0, 5.0, 15.0])
    assert error(stacked(SingleNeuron(a0, w0, beta, 0.7, 1.6), times), integrate(a0, w0, beta, 0.7, 1.6, times)) < 1e-10


@pytest.mark.parametrize("name", [name for name in SPECIAL if name not in ("tiny target", "no target, balanced")])
def test_limit_point_of_special_starts(name):
    neuron = SingleNeuron(*SPECIAL[name])
    for found, expected in zip(neuron.at(1e3), neuron.final(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_balanced_neuron_without_target_decays_like_one_over_root_t():
    neuron = SingleNeuron(1.0, [0.0, 1.0], [0.0, 0.0])
    np.testing.assert_allclose(neuron.at(1e6)[0], 1 / np.sqrt(1 + 2e6), rtol=1e-14)
    assert [each.tolist() for each in neuron.final()] == [0.0, [0.0, 0.0]]
    assert neuron.final_kernel_distance() == 0


@pytest.mark.parametrize(("a0", "w0"), [(0.0, [0.0, 0.0]), (0.0, [2.0, 0.0])])
def test_a_stationary_start_stays(a0, w0):
    neuron = SingleNeuron(a0, w0, [0.0, 1.0])
    np.testing.assert_array_equal(stacked(neuron, [0.0, 1.0, 1e6]), [[a0, *w0]] * 3)
    assert np.isnan(neuron.stages()).all()


def test_start_on_the_stable_manifold_goes_to_the_saddle():
    neuron = SingleNeuron(1.0, [-1.0, 0.0], [1.0, 0.0])
    assert neuron.basin == 0
    assert [each.tolist() for each in neuron.final()] == [0.0, [0.0, 0.0]]
    np.testing.assert_allclose(stacked(neuron, 1e6), [0.0, 0.0, 0.0], atol=1e-300)
    np.testing.assert_allclose(neuron.loss(1e6), 0.5)


def test_at_the_saddle_what_lies_across_the_target_remains():
    neuron = SingleNeuron(1.0, [-0.5, 1.5], [1.0, 0.0])  # δ = −3/2, R = 5/2, R₊ = 1: u = 0
    a, w = neuron.final()
    assert (neuron.basin, a) == (0, 0)
    np.testing.assert_allclose(w, [0, np.sqrt(1.5)], rtol=1e-15)
    np.testing.assert_allclose(stacked(neuron, 1e6), [a, *w], atol=1e-15)


def integrated_basin(case):
    _, _, beta, lr_a, lr_w = case
    root = 2 * np.sqrt(lr_a * lr_w) * np.linalg.norm(beta)
    return np.sign(integrate(*case, [0.0, 60 / root])[-1, 0])


def test_basin_agrees_with_integration():
    rng = np.random.default_rng(4)
    seen = set()
    for _ in range(40):
        a0, w0, beta, rates = 0.6 * rng.standard_normal(), rng.standard_normal(2), rng.standard_normal(2), 10 ** rng.uniform(-0.5, 0.5, 2)
        case = a0, w0, beta, *rates
        assert SingleNeuron(*case).basin == integrated_basin(case)
        seen.add((np.sign(a0), float(SingleNeuron(*case).basin)))
    assert seen == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


def jacobian_kernel(a, w, x, lr_a, lr_w):
    inputs = torch.from_numpy(x)
    of_a, of_w = torch.func.jacrev(lambda a, w: a * (inputs @ w), (0, 1))(torch.tensor(a, dtype=torch.float64), torch.from_numpy(w))
    return (lr_a * of_a[:, None] * of_a + lr_w * of_w @ of_w.T).numpy()


def test_kernel_is_that_of_explicit_jacobians():
    x = np.random.default_rng(0).standard_normal((5, 3))
    for t in (0.0, 0.7, 40.0):
        a, w = START.at(t)
        np.testing.assert_allclose(START.kernel(t, x), jacobian_kernel(float(a), w, x, 0.6, 1.7), rtol=1e-13)


def test_kernel_is_x_m_x():
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(START.kernel([0.1, 2.0], x), x @ START.matrix([0.1, 2.0]) @ x.T, rtol=1e-12, atol=1e-12)


def test_matrix_has_the_eigenvalues_that_delta_and_kappa_name():
    kappa, delta = START.kappa([0.3, 3.0]), START.delta
    expected = np.stack([(kappa + delta) / 2, (kappa + delta) / 2, kappa], -1)
    np.testing.assert_allclose(np.linalg.eigvalsh(START.matrix([0.3, 3.0])), expected, rtol=1e-13)


def test_kappa_is_the_root_of_delta_and_mu():
    times = np.linspace(0, 5, 9)
    np.testing.assert_allclose(START.kappa(times), np.sqrt(START.delta**2 + 4 * 0.6 * 1.7 * START.mu(times) ** 2), rtol=1e-13)


def test_beta_mu_phi_and_loss_follow_from_the_state():
    a, w = START.at(0.4)
    beta = np.array([0.5, 1.0, -0.3])
    np.testing.assert_allclose(START.beta(0.4), a * w, rtol=1e-14)
    np.testing.assert_allclose(START.mu(0.4), a * np.sqrt(w @ w), rtol=1e-14)
    np.testing.assert_allclose(START.phi(0.4), w @ beta / np.sqrt((w @ w) * (beta @ beta)), rtol=1e-13)
    np.testing.assert_allclose(START.loss(0.4), ((a * w - beta) ** 2).sum() / 2, rtol=1e-13)


def test_angle_to_nothing_is_nan():
    assert np.isnan(SingleNeuron(1.0, [1.0, 0.0], [0.0, 0.0]).phi(1.0))
    assert np.isnan(SingleNeuron(1.0, [0.0, 0.0], [1.0, 0.0]).phi(0.0))


def textbook_distance(k1, k2):
    """1 − ⟨K₁, K₂⟩/(‖K₁‖‖K₂‖) of nested lists in mpmath."""
    k1, k2 = ([x for row in k for x in row] for k in (k1, k2))
    return 1 - mp.fdot(k1, k2) / mp.sqrt(mp.fdot(k1, k1) * mp.fdot(k2, k2))


def mp_matrix(state, lr_a, lr_w):
    a, *w = state
    return [[mp.mpf(lr_w) * a**2 * (i == j) + mp.mpf(lr_a) * w[i] * w[j] for j in range(len(w))] for i in range(len(w))]


@pytest.mark.parametrize("case", [(0.7, (-1, 0.4), (0.5, 1)), (30, (1, 2, -1), (0.5, 1, 0)), (0, (1, 2), (0.5, 1)), (2, (0, 0), (1, 1))])
@pytest.mark.parametrize("t", [1e-7, 1e-3, 0.5, 50.0])
def test_kernel_distance_does_not_cancel(case, t):
    lr_a, lr_w = 0.6, 1.7
    at, found = closed_form(*case, lr_a, lr_w), SingleNeuron(*case, lr_a, lr_w).kernel_distance(t)
    with mp.workdps(100):
        expected = float(textbook_distance(mp_matrix(at(0), lr_a, lr_w), mp_matrix(at(t), lr_a, lr_w)))
    np.testing.assert_allclose(np.sqrt(found), np.sqrt(expected), rtol=1e-12, atol=1e-15)


def test_kernel_distance_is_that_of_kernels_on_whitened_inputs():
    x = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 3)))[0]
    first, later = START.kernel(0.0, x), START.kernel(2.0, x)
    expected = 1 - (first * later).sum() / np.linalg.norm(first) / np.linalg.norm(later)
    np.testing.assert_allclose(START.kernel_distance(2.0), expected, rtol=1e-10)


def test_kernel_distance_starts_at_zero_and_ends_at_its_limit():
    assert START.kernel_distance(0.0) == 0
    np.testing.assert_allclose(START.kernel_distance(1e6), START.final_kernel_distance(), rtol=1e-13)


def test_kernel_of_one_input_direction_does_not_turn():
    neuron = SingleNeuron([0.4, 0.4], [[0.7], [0.0]], [-1.3])
    assert neuron.kernel_distance([0.0, 1.0]).tolist() == [[0, 0], [0, 0]]


def test_distance_from_a_kernel_that_is_zero_is_nan():
    assert np.isnan(SingleNeuron(0.0, [0.0, 0.0], [0.0, 1.0]).kernel_distance([0.0, 1.0])).all()


def test_stages_agree_with_the_integrated_equation():
    case = 0.6, np.array([-1.0, 0.4]), np.array([0.5, 1.0]), 0.6, 1.7
    times = np.linspace(0, 30, 60001)
    states = integrate(*case, times)
    loss = ((states[:, :1] * states[:, 1:] - case[2]) ** 2).sum(1) / 2
    matrices = 1.7 * states[:, 0, None, None] ** 2 * np.eye(2) + 0.6 * states[:, 1:, None] * states[:, None, 1:]
    unit = matrices / np.linalg.norm(matrices, axis=(1, 2), keepdims=True)
    distance = ((unit - unit[0]) ** 2).sum((1, 2)) / 2
    fit, align = SingleNeuron(*case).stages()
    assert abs(fit - times[np.argmax(loss <= (loss[0] + loss[-1]) / 2)]) <= 5e-4
    assert abs(align - times[np.argmax(distance >= distance[-1] / 2)]) <= 5e-4


def test_stages_are_the_half_way_times_of_each_entry_of_a_batch():
    rng = np.random.default_rng(0)
    neuron = SingleNeuron(rng.standard_normal((4, 50)), 3 * rng.standard_normal((4, 50, 3)), rng.standard_normal((50, 3)))
    fit, align = neuron.stages()
    loss, distance = neuron.loss(fit[..., None])[..., 0], neuron.kernel_distance(align[..., None])[..., 0]
    np.testing.assert_allclose(loss, neuron.loss(0.0) / 2, rtol=1e-9)
    np.testing.assert_allclose(distance, neuron.final_kernel_distance() / 2, rtol=1e-9)


def test_of_several_crossings_the_first_counts():
    rng = np.random.default_rng(1)
    a0, beta = rng.standard_normal(300), rng.standard_normal((300, 2))
    w0 = -a0[:, None] * beta / np.linalg.norm(beta, axis=1, keepdims=True) + 0.05 * rng.standard_normal((300, 2))
    neuron = SingleNeuron(a0, w0, beta)
    align, share = neuron.stages().align, np.linspace(0, 1, 500, endpoint=False)
    assert (neuron.kernel_distance(align[:, None] * share) < neuron.final_kernel_distance()[:, None] / 2).all()
    later = neuron.kernel_distance(align[:, None] * np.linspace(1.01, 30, 500))
    assert ((later < neuron.final_kernel_distance()[:, None] / 2).any(1)).sum() > 50


def test_a_lazy_neuron_fits_and_barely_turns():
    neuron = SingleNeuron(1e4, [1.0, 0.0], [0.0, 1.0])
    fit, align = neuron.stages()
    np.testing.assert_allclose(fit, np.log(2) / 2 / 1e8, rtol=1e-6)  # β relaxes at rate δ
    assert 0 < neuron.final_kernel_distance() < 1e-15
    assert np.isfinite(align)


def test_delayed_rich_alignment_follows_its_slow_law():
    delta, phi0 = 400.0, 0.1
    neuron = SingleNeuron(1e-3, np.sqrt(delta) * np.array([phi0, np.sqrt(1 - phi0**2)]), [1.0, 0.0])
    times = np.array([100.0, 500.0, 1500.0])
    expected = 1 / np.sqrt(1 + (1 / phi0**2 - 1) * np.exp(-2 * times / delta))  # φ̇ = φ(1 − φ²)/|δ|
    np.testing.assert_allclose(neuron.phi(times), expected, rtol=1e-3)


def test_regime_by_its_thresholds():
    neuron = SingleNeuron([2.0, 1.0, 0.1], [[-1.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]], [0.0, 1.0])
    assert neuron.regime().tolist() == ["lazy", "rich", "delayed_rich"]
    assert neuron.regime(lazy=4.0, delayed=9.0).tolist() == ["rich"] * 3
    assert SingleNeuron(2.0, [-1.0, 0.0], [0.0, 1.0]).regime() == "lazy"
    assert SingleNeuron(2.0, [-1.0, 0.0], [0.0, 1.0], lr_a=4.0).regime() == "rich"


PLANE = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0], [1.0, 0.0, 1.0]])  # XᵀX = 4Π, Π of rank 2


@pytest.mark.parametrize("x", [np.array([[0.5, 1.0, -2.0]]), PLANE])
@pytest.mark.parametrize("a0", [-1.2, 0.0, 0.4])
def test_low_rank_data_agrees_with_the_integrated_equation(x, a0):
    w0, y, times = np.array([1.0, -0.5, 0.3]), np.array([1.1, -0.4, 2.0])[: len(x)], np.array([0.0, 0.1, 0.5, 2.0, 5.0])
    expected = integrate(a0, w0, np.linalg.pinv(x) @ y, 0.6, 1.7, times, gram=x.T @ x)
    assert error(stacked(SingleNeuron.on_data(a0, w0, x, y, 0.6, 1.7), times), expected) < 1e-10


def low_rank():
    y = np.array([1.1, -0.4, 2.0])
    return SingleNeuron.on_data(-1.2, [1.0, -0.5, 0.3], PLANE, y, 0.6, 1.7), y


def test_low_rank_loss_is_above_the_least_possible_one():
    neuron, y = low_rank()
    losses = ((PLANE @ neuron.beta([0.0, 0.3, 1e3]).T - y[:, None]) ** 2).sum(0) / 2
    np.testing.assert_allclose(neuron.loss([0.0, 0.3]), (losses - losses[-1])[:2], rtol=1e-12)


def test_low_rank_kernel_distance_is_that_of_the_kernels_on_the_data():
    neuron, _ = low_rank()
    first, later = neuron.kernel(0.0, PLANE), neuron.kernel(0.8, PLANE)
    expected = 1 - (first * later).sum() / np.linalg.norm(first) / np.linalg.norm(later)
    np.testing.assert_allclose(neuron.kernel_distance(0.8), expected, rtol=1e-10)


def test_low_rank_kernel_is_that_of_the_whole_network():
    neuron, _ = low_rank()
    a, w = neuron.at(0.8)
    x = np.random.default_rng(0).standard_normal((4, 3))
    np.testing.assert_allclose(neuron.kernel(0.8, x), jacobian_kernel(float(a), w, x, 0.6, 1.7), rtol=1e-13)
    np.testing.assert_allclose(neuron.delta, 1.7 * a**2 - 0.6 * w @ w, rtol=1e-12)


def test_low_rank_limit_and_stages_are_those_of_the_flow():
    neuron, _ = low_rank()
    np.testing.assert_allclose(np.concatenate([np.atleast_1d(each) for each in neuron.final()]), stacked(neuron, 1e4), rtol=1e-12)
    np.testing.assert_allclose(neuron.loss(neuron.stages().fit), neuron.loss(0.0) / 2, rtol=1e-9)
    np.testing.assert_allclose(neuron.kernel_distance(neuron.stages().align), neuron.final_kernel_distance() / 2, rtol=1e-9)


def test_low_rank_basin_and_regime_depend_on_what_the_data_sees():
    neuron = SingleNeuron.on_data(0.1, [-2.0, 50.0], [[1.0, 0.0]], [1.0])
    assert (neuron.basin, neuron.regime()) == (-1, "delayed_rich")
    assert SingleNeuron.on_data(2.0, [0.1, 50.0], [[1.0, 0.0]], [1.0]).regime() == "lazy"


def test_whitened_data_is_the_plain_neuron():
    x = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 3)))[0]
    y = np.arange(7.0)
    neuron, plain = SingleNeuron.on_data(0.5, [1.0, 2.0, 3.0], x, y), SingleNeuron(0.5, [1.0, 2.0, 3.0], y @ x)
    np.testing.assert_allclose(stacked(neuron, [0.0, 0.1, 9.0]), stacked(plain, [0.0, 0.1, 9.0]), rtol=1e-12)


def test_a_copy_with_other_rates_keeps_its_data():
    neuron, _ = low_rank()
    slower = dataclasses.replace(neuron, lr_a=0.3, lr_w=0.85)
    np.testing.assert_allclose(stacked(slower, 2.0), stacked(neuron, 1.0), rtol=1e-12)


def test_batches_broadcast_and_equal_their_entries():
    a0, w0, beta = np.array([[1.0], [-0.3]]), np.arange(6.0).reshape(3, 2), np.array([0.5, -1.0])
    neuron, times = SingleNeuron(a0, w0, beta, lr_w=[1.0, 2.0, 3.0]), np.array([0.0, 0.5, 1.0, 2.0])
    assert [each.shape for each in neuron.at(times)] == [(2, 3, 4), (2, 3, 4, 2)]
    one = SingleNeuron(-0.3, w0[1], beta, lr_w=2.0)
    np.testing.assert_array_equal(stacked(neuron, times)[1, 1], stacked(one, times))
    own = np.broadcast_to(times, (2, 3, 4))
    np.testing.assert_array_equal(stacked(neuron, own), stacked(neuron, times))


def test_shapes_without_and_with_a_time_axis():
    neuron = SingleNeuron([1.0, 2.0], [0.5, 1.0, 0.0], [0.0, 1.0, 0.0])
    x = np.ones((5, 3))
    for times, axis in ((1.0, ()), ([1.0], (1,)), ([], (0,))):
        assert neuron.matrix(times).shape == (2, *axis, 3, 3)
        assert neuron.kernel(times, x).shape == (2, *axis, 5, 5)
        assert neuron.beta(times).shape == (2, *axis, 3)
        assert {getattr(neuron, name)(times).shape for name in ("mu", "phi", "kappa", "loss", "kernel_distance")} == {(2, *axis)}


def test_an_empty_batch_gives_empty_results():
    neuron = SingleNeuron(np.zeros(0), np.zeros((0, 2)), [0.0, 1.0])
    assert neuron.at([0.0, 1.0])[1].shape == (0, 2, 2)
    assert neuron.stages().fit.shape == neuron.basin.shape == neuron.regime().shape == (0,)


def test_tensors_come_back_as_tensors():
    neuron = SingleNeuron(torch.tensor(0.7), torch.tensor([-1.0, 0.4]), torch.tensor([0.5, 1.0]))
    a, w = neuron.at(torch.tensor([0.0, 1.0]))
    assert (a.dtype, w.shape) == (torch.float64, (2, 2))
    assert isinstance(neuron.stages(), Stages)
    assert isinstance(neuron.stages().align, torch.Tensor)
    assert isinstance(SingleNeuron(0.7, [-1.0, 0.4], [0.5, 1.0]).loss(torch.tensor(1.0)), torch.Tensor)
    assert isinstance(SingleNeuron.on_data(0.7, [-1.0, 0.4], torch.eye(2), [0.5, 1.0]).delta, torch.Tensor)


def test_a_neuron_is_frozen():
    source = np.array([-1.0, 0.4])
    neuron = SingleNeuron(0.7, source, [0.5, 1.0])
    source[0] = 9.0
    assert neuron.w0.tolist() == [-1.0, 0.4]
    with pytest.raises(ValueError, match="read-only"):
        neuron.w0[0] = 9.0
    with pytest.raises(dataclasses.FrozenInstanceError, match="a0"):
        neuron.a0 = 1.0


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (-1.0, "`times` must not be negative, got -1"),
        ([0.0, np.nan], "`times` must be finite, got nan"),
        (np.inf, "`times` must be finite, got inf"),
        (np.ones((2, 2)), r"`times` must have shape \(\), \(T,\) or \(\*batch, T\) with batch \(\), got \(2, 2\)"),
    ],
)
def test_bad_times_are_named(times, text):
    with pytest.raises(ParameterError, match=text):
        START.at(times)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1.0, [1.0, 2.0], [1.0]), r"`w0` and `beta_star` must have one d ≥ 1, got shapes \(2,\) and \(1,\)"),
        ((1.0, [], []), "must have one d ≥ 1"),
        ((1.0, 1.0, [1.0]), r"`w0` must have shape \(…, d\), got \(\)"),
        ((np.nan, [1.0], [1.0]), "`a0` must be finite, got nan"),
        ((1.0, [1.0], [1.0], 0.0), "`lr_a` must be positive, got 0"),
        ((np.ones(2), np.ones((3, 1)), [1.0]), "`lr_a`, `lr_w` must broadcast, got"),
        ((1e200, [1.0], [1.0]), "must leave δ² and ‖β\\*‖² finite in float64"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(ParameterError, match=text):
        SingleNeuron(*arguments)


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (
            [[1.0, 0.0], [0.0, 2.0]],
            [1.0, 1.0],
            "`x` must have xᵀx = λΠ, all .* equal, got non-zero eigenvalues from 1 to 4",
        ),
        ([[0.0, 0.0]], [1.0], "got none that is not 0"),
        (np.zeros((0, 2)), [], "got none that is not 0"),
        ([[1.0, 0.0]], [1.0, 2.0], r"`x` and `y` must have shapes \(n, d\) and \(…, n\), got \(1, 2\) and \(2,\)"),
    ],
)
def test_bad_data_is_named(x, y, text):
    with pytest.raises(ParameterError, match=text):
        SingleNeuron.on_data(1.0, [1.0, 1.0], x, y)


def test_kernel_needs_inputs_of_the_right_width():
    with pytest.raises(ParameterError, match=r"`x` must have shape \(n, 3\), got \(4, 2\)"):
        START.kernel(1.0, np.ones((4, 2)))


def test_regime_needs_positive_thresholds():
    with pytest.raises(ParameterError, match="`lazy` must be positive, got -1"):
        START.regime(lazy=-1.0)
