"""Two-layer linear networks with Δ = δI: closed forms against simulation."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from richlearn.errors import ParameterError
from richlearn.kernels import kernel_distance
from richlearn.theory.isotropic_linear import BalancedLinear, isotropic_blocks, isotropic_velocity, singular_values_at

RATES = {"lr_w": 0.7, "lr_a": 1.9}
SHAPES = {"funnel": (2, 4, 2), "inverted": (2, 2, 4), "narrow": (2, 3, 4), "wide": (5, 3, 2), "square": (3, 3, 3), "bottleneck": (1, 3, 2)}
DELTAS = (-2.0, -0.1, 0.0, 0.1, 2.0)
CASES = [(name, delta) for name in SHAPES for delta in DELTAS if name != "wide" or delta == 0]


def _orthogonal(random, size):
    return np.linalg.qr(random.normal(size=(size, size)))[0]


def _rows(bases, values, size):
    """A matrix (h, size) with squared singular values `values`, (h,), of which those past `size` are 0."""
    hidden, outside = bases
    return hidden[:, :size] * np.sqrt(values[:size]) @ outside[: len(values)]


def _start(name, delta, scale=1.0, seed=0):
    """W, A with Δ = δI under RATES, and a target, in general position to one another."""
    (h, d, c), random = SHAPES[name], np.random.default_rng(seed)
    rank = min(h, d, c) if delta == 0 else min(h, d if delta > 0 else c)
    free = np.zeros(h)
    free[:rank] = scale * random.uniform(0.3, 1.0, rank)
    hidden = _orthogonal(random, h)
    w = _rows((hidden, _orthogonal(random, d)), free + max(-delta, 0.0), d) / np.sqrt(RATES["lr_a"])
    a = _rows((hidden, _orthogonal(random, c)), free + max(delta, 0.0), c) / np.sqrt(RATES["lr_w"])
    return w, a, random.normal(size=(d, c))


def _flow(w, a, target, times, **options):
    """W (T, h, d) and A (T, h, c) of gradient flow on whitened input."""
    (h, d), c = w.shape, a.shape[1]

    def velocity(_, state):
        w, a = state[: h * d].reshape(h, d), state[h * d :].reshape(h, c)
        gap = w.T @ a - target
        return np.concatenate([(-RATES["lr_w"] * a @ gap.T).ravel(), (-RATES["lr_a"] * w @ gap).ravel()])

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13, **options}
    states = solve_ivp(velocity, (0, times[-1]), np.concatenate([w.ravel(), a.ravel()]), t_eval=times, **options).y.T
    return states[:, : h * d].reshape(-1, h, d), states[:, h * d :].reshape(-1, h, c)


def _transposed(matrix):
    return np.swapaxes(matrix, -1, -2)


def _kernels(w, a):
    """(T, cd, cd), by `np.kron` at each time."""
    (_, d), c = w.shape[-2:], a.shape[-1]
    pairs = zip(RATES["lr_w"] * _transposed(a) @ a, RATES["lr_a"] * _transposed(w) @ w, strict=True)
    return np.stack([np.kron(outer, np.eye(d)) + np.kron(np.eye(c), inner) for outer, inner in pairs])


TIMES = np.array([0.0, 1e-6, 0.1, 0.5, 1.0, 3.0, 10.0])


@pytest.mark.parametrize(("name", "delta"), CASES)
def test_the_solution_is_what_a_simulation_finds(name, delta):
    w, a, target = _start(name, delta)
    solution, (ws, as_) = BalancedLinear(w, a, target, **RATES), _flow(w, a, target, TIMES)
    np.testing.assert_allclose(solution.beta(TIMES), _transposed(ws) @ as_, rtol=0, atol=2e-10)
    np.testing.assert_allclose(solution.blocks(TIMES).outer, RATES["lr_w"] * _transposed(as_) @ as_, rtol=0, atol=2e-10)
    np.testing.assert_allclose(solution.blocks(TIMES).inner, RATES["lr_a"] * _transposed(ws) @ ws, rtol=0, atol=2e-10)
    np.testing.assert_allclose(solution.tangent_matrix(TIMES), _kernels(ws, as_), rtol=0, atol=2e-10)


@pytest.mark.parametrize(("name", "delta"), [("funnel", -0.1), ("funnel", 2.0), ("wide", 0.0), ("bottleneck", -2.0)])
def test_small_starts_and_long_plateaus(name, delta):
    w, a, target = _start(name, delta, scale=1e-6)
    times = np.array([0.0, 1.0, 5.0, 20.0, 60.0])
    ws, as_ = _flow(w, a, target, times, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(BalancedLinear(w, a, target, **RATES).beta(times), _transposed(ws) @ as_, rtol=0, atol=1e-8)


@pytest.mark.parametrize("delta", [-2.0, 0.0, 2.0])
def test_a_start_aligned_with_the_target(delta):
    w = np.sqrt(np.diag([0.5, 0.1]) + max(-delta, 0.0) * np.eye(2)) / np.sqrt(RATES["lr_a"])
    a = np.sqrt(np.diag([0.5, 0.1]) + max(delta, 0.0) * np.eye(2)) / np.sqrt(RATES["lr_w"])
    target = np.diag([1.0, 3.0])
    found = BalancedLinear(w, a, target, **RATES).beta(TIMES)
    sigma = singular_values_at(np.diagonal(w.T @ a), [1.0, 3.0], delta, TIMES, **RATES)
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2).T, sigma, rtol=1e-12)


def _in_many_digits(w, a, target, delta, time):
    """β from the formula for QᵀQ in `mpmath`, with digits for both ends of the exponentials."""
    with mpmath.workdps(60 + int(3 * time * max(abs(delta), 3.0))):
        root_a, root_w, (h, d), c = mpmath.sqrt(RATES["lr_a"]), mpmath.sqrt(RATES["lr_w"]), w.shape, a.shape[1]
        start = mpmath.matrix([[root_a * x for x in w[k].tolist()] + [root_w * x for x in a[k].tolist()] for k in range(h)])
        system = mpmath.diag([-mpmath.mpf(delta) / 2] * d + [mpmath.mpf(delta) / 2] * c)
        for i, j in np.ndindex(d, c):
            system[i, d + j] = system[d + j, i] = root_a * root_w * float(target[i, j])
        values, vectors = mpmath.eigsy(system)
        growth = vectors * mpmath.diag([mpmath.exp(x * time) for x in values]) * vectors.T
        area = vectors * mpmath.diag([mpmath.expm1(2 * x * time) / (2 * x) if x else time for x in values]) * vectors.T
        gram = growth * start.T * ((mpmath.eye(h) + start * area * start.T) ** -1) * start * growth
        return np.array((gram[:d, d:] / (root_a * root_w)).tolist(), dtype=float).reshape(d, c)


@pytest.mark.parametrize(("name", "delta"), [("funnel", 30.0), ("funnel", -30.0), ("narrow", 0.1), ("bottleneck", -300.0), ("square", 2.0)])
@pytest.mark.parametrize("scale", [1.0, 1e-10])
def test_nothing_cancels_or_overflows(name, delta, scale):
    w, a, target = _start(name, delta, scale)
    solution = BalancedLinear(w, a, target, **RATES)
    times = np.array([1e-9, 0.3, 5.0, 17.0 if abs(delta) < 100 else 6.0])
    expected = [_in_many_digits(w, a, target, solution.delta, float(time)) for time in times]
    np.testing.assert_allclose(solution.beta(times), expected, rtol=0, atol=3e-14)


@pytest.mark.parametrize(("name", "delta"), [case for case in CASES if case != ("square", 0.0)])
def test_the_end_is_the_best_fit_of_rank_h(name, delta):
    w, a, target = _start(name, delta)
    singular = np.linalg.svd(target)[1]
    least = np.sum(singular[len(w) :] ** 2) / 2
    np.testing.assert_allclose(BalancedLinear(w, a, target, **RATES).loss([1e6, 1e12, 1e300]), least, rtol=1e-12, atol=1e-28)


@pytest.mark.parametrize("seed", range(6))
def test_a_balanced_square_network_keeps_the_sign_of_its_determinant(seed):
    w, a, target = _start("square", 0.0, seed=seed)
    left = np.linalg.svd(target)[1][-1] ** 2 / 2 if np.linalg.det(w.T @ a) * np.linalg.det(target) < 0 else 0.0
    np.testing.assert_allclose(BalancedLinear(w, a, target, **RATES).loss(1e6), left, rtol=1e-10, atol=1e-28)


def test_a_start_without_what_the_target_asks_for_stays_on_its_saddle():
    w, a, target = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [-1.0, 1.0]])
    flow = BalancedLinear(np.zeros((2, 2)), np.zeros((2, 2)), target)
    np.testing.assert_array_equal(flow.beta([0.0, 1e6]), np.zeros((2, 2, 2)))
    assert np.isnan(flow.kernel_distance([0.0, 1.0])).all()
    np.testing.assert_allclose(BalancedLinear(w, a, np.diag([0.0, 2.0])).beta(1e6), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["funnel", "square"])
def test_a_target_of_zero_or_of_equal_strengths(name):
    w, a, drawn = _start(name, -0.1)
    for target in (np.zeros_like(drawn), np.eye(*drawn.shape)):
        ws, as_ = _flow(w, a, target, TIMES)
        np.testing.assert_allclose(BalancedLinear(w, a, target, **RATES).beta(TIMES), _transposed(ws) @ as_, rtol=0, atol=2e-10)


@pytest.mark.parametrize(("name", "delta"), [("funnel", 2.0), ("inverted", 0.0), ("wide", 0.0), ("bottleneck", -0.1)])
def test_kernel_distance_and_loss_are_those_of_a_simulation(name, delta):
    w, a, target = _start(name, delta)
    solution, (ws, as_) = BalancedLinear(w, a, target, **RATES), _flow(w, a, target, TIMES)
    kernels = torch.tensor(_kernels(ws, as_))
    expected = [kernel_distance(kernels[0], kernel) for kernel in kernels]
    np.testing.assert_allclose(solution.kernel_distance(TIMES), expected, rtol=1e-8, atol=1e-15)
    np.testing.assert_allclose(solution.loss(TIMES), ((_transposed(ws) @ as_ - target) ** 2).sum((1, 2)) / 2, rtol=0, atol=1e-9)


def test_times_may_come_in_any_order_and_shape():
    flow = BalancedLinear(*_start("funnel", 2.0), **RATES)
    times = np.array([[3.0, 0.0], [1e5, 0.1]])
    each = [[flow.beta(float(time)) for time in row] for row in times]
    np.testing.assert_allclose(flow.beta(times), each, rtol=0, atol=1e-15)
    assert flow.kernel_distance(times).shape == flow.loss(times).shape == (2, 2)
    assert flow.beta(np.zeros(0)).shape == (0, 4, 2)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.sampled_from(CASES), st.integers(0, 10**6), st.floats(-12, 0), st.lists(st.floats(0, 1e8), min_size=2, max_size=5))
def test_the_loss_never_rises_and_delta_stays(case, seed, size, times):
    flow = BalancedLinear(*_start(*case, scale=10.0**size, seed=seed), **RATES)
    times = np.sort(times)
    assert (np.diff(flow.loss(times)) <= 1e-13).all()
    beta, (outer, inner) = flow.beta(times), flow.blocks(times)
    squared = RATES["lr_w"] * RATES["lr_a"] * _transposed(beta) @ beta
    np.testing.assert_allclose(outer @ outer - flow.delta * outer, squared, rtol=0, atol=1e-10)
    traces = np.trace(outer, axis1=1, axis2=2) - np.trace(inner, axis1=1, axis2=2)
    np.testing.assert_allclose(traces, flow.delta * SHAPES[case[0]][0], rtol=0, atol=1e-11)


def test_tensors_give_tensors():
    w, a, target = _start("funnel", 2.0)
    assert isinstance(BalancedLinear(torch.tensor(w), a, target, **RATES).loss([1.0]), torch.Tensor)
    flow = BalancedLinear(w, a, target, **RATES)
    assert isinstance(flow.blocks(torch.tensor([1.0])).inner, torch.Tensor)
    assert isinstance(flow.blocks([1.0]).inner, np.ndarray)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([[1.0, 2.0]], [[1.0], [2.0]], [[1.0], [0.0]]), "`w0` .* and `a0` .* must share h"),
        (
            ([[1.0, 2.0]], [[1.0]], [[1.0, 0.0]]),
            r"must have shapes \(h, d\), \(h, c\), \(d, c\), all ≥ 1, got \(1, 2\), \(1, 1\), \(1, 2\)",
        ),
        ((np.zeros((0, 2)), np.zeros((0, 1)), np.zeros((2, 1))), "all ≥ 1, got"),
        (
            (np.eye(2), np.diag([1.0, 2.0]), np.eye(2)),
            r"`w0` and `a0` must have Δ = η_w AAᵀ − η_a WWᵀ = δI_h, got ‖Δ − δI‖ = 2.12 at δ = 1.5",
        ),
        ((np.eye(2), np.eye(2), np.eye(2), 0.0), "`lr_w` must be positive, got 0"),
        ((np.eye(2), np.eye(2), [[np.nan, 0.0], [0.0, 0.0]]), "`target` must be finite, got nan"),
    ],
)
def test_what_an_exact_solution_cannot_start_from(given, message):
    with pytest.raises(ParameterError, match=message):
        BalancedLinear(*given)


def test_negative_times_are_refused():
    with pytest.raises(ParameterError, match="`times` must be ≥ 0, got -1"):
        BalancedLinear(np.eye(2), np.eye(2), np.eye(2)).beta([1.0, -1.0])


@pytest.mark.parametrize(
    ("name", "delta"), [("square", 2.0), ("square", -2.0), ("square", 0.0), ("wide", 0.0), ("funnel", 2.0), ("inverted", -2.0)]
)
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_blocks_are_those_of_the_weights_where_beta_tells_them(name, delta, scale):
    w, a, _ = _start(name, delta, scale)
    outer, inner = isotropic_blocks(w.T @ a, delta, len(w), **RATES)
    np.testing.assert_allclose(outer, RATES["lr_w"] * a.T @ a, rtol=0, atol=1e-13)
    np.testing.assert_allclose(inner, RATES["lr_a"] * w.T @ w, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "delta"), [("funnel", -2.0), ("inverted", 2.0), ("narrow", 2.0), ("narrow", -2.0), ("bottleneck", 0.1)])
def test_blocks_are_those_of_the_weights_while_beta_has_rank_h(name, delta):
    w, a, _ = _start(name, delta)
    outer, inner = isotropic_blocks(w.T @ a, delta, len(w), **RATES)
    np.testing.assert_allclose(outer, RATES["lr_w"] * a.T @ a, rtol=0, atol=1e-13)
    np.testing.assert_allclose(inner, RATES["lr_a"] * w.T @ w, rtol=0, atol=1e-13)


def test_blocks_take_a_batch_with_deltas_of_both_signs():
    starts = [_start("square", delta, seed=seed) for seed, delta in enumerate(DELTAS)]
    found = isotropic_blocks(np.stack([w.T @ a for w, a, _ in starts]), np.array(DELTAS), 3, **RATES)
    np.testing.assert_allclose(found.outer, [RATES["lr_w"] * a.T @ a for _, a, _ in starts], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.inner, [RATES["lr_a"] * w.T @ w for w, _, _ in starts], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("beta", "delta", "width", "message"),
    [
        (np.eye(2), 0.0, 1, "`beta` must have rank ≤ `width` = 1, got rank 2"),
        (np.zeros((3, 2)), 1.0, 1, "`delta` > 0 closes in β only if `width` = c or rank β = `width`: got width 1, c = 2, rank 0"),
        (np.zeros((3, 2)), -1.0, 1, "`delta` < 0 closes in β only if `width` = d or rank β = `width`: got width 1, d = 3, rank 0"),
        (np.eye(2), 1.0, 5, "`delta` > 0 closes in β only if `width` = c or rank β = `width`: got width 5, c = 2, rank 2"),
        (np.eye(2), 1.0, 0, "`width` must be at least 1, got 0"),
        ([1.0], 1.0, 1, r"`beta` must have shape \(…, d, c\), got \(1,\)"),
    ],
)
def test_blocks_that_beta_does_not_tell(beta, delta, width, message):
    with pytest.raises(ParameterError, match=message):
        isotropic_blocks(beta, delta, width)


@pytest.mark.parametrize(("name", "delta"), [("square", 2.0), ("wide", 0.0), ("funnel", -2.0), ("inverted", -2.0)])
def test_the_velocity_is_that_of_the_weights(name, delta):
    w, a, target = _start(name, delta)
    gap = w.T @ a - target
    expected = (-RATES["lr_w"] * a @ gap.T).T @ a + w.T @ (-RATES["lr_a"] * w @ gap)
    np.testing.assert_allclose(isotropic_velocity(w.T @ a, delta, gap, len(w), **RATES), expected, rtol=0, atol=1e-12)


def test_a_residual_has_the_shape_of_beta():
    with pytest.raises(ParameterError, match=r"`residual` must have the shape \(…, d, c\) of `beta`, got \(1, 2\) and \(2, 1\)"):
        isotropic_velocity([[1.0], [1.0]], 0.0, [[1.0, 1.0]], 1)


@pytest.mark.parametrize("delta", [0.0, 1e-9, 0.1, -2.0, 50.0])
@pytest.mark.parametrize("sigma0", [0.0, 1e-8, 0.5, 4.0])
@pytest.mark.parametrize("strength", [0.0, 1e-3, 1.5])
def test_singular_values_are_those_of_a_simulation(delta, sigma0, strength):
    eta, times = np.sqrt(0.7 * 1.9), np.array([0.0, 1e-6, 0.1, 1.0, 5.0, 30.0])
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-26, "t_eval": times}
    expected = solve_ivp(lambda _, sigma: np.hypot(delta, 2 * eta * sigma) * (strength - sigma), (0, 30), [sigma0], **options).y[0]
    np.testing.assert_allclose(singular_values_at(sigma0, strength, delta, times, **RATES), expected, rtol=1e-9, atol=1e-12)


def test_singular_values_keep_their_digits_at_all_scales():
    times = np.array([1e-3, 1.0, 1e6])
    for sigma0, strength, delta in [(1e-12, 1.0, 0.0), (1e-12, 1.0, 1e3), (1.0, 1e-9, 1e-6), (0.0, 1e-6, 1e4)]:
        with mpmath.workdps(60):
            # A separate route: y = κ + 2σ obeys ẏ = 2sy − (y² − δ²)/2, and (y − y₊)/(y − y₋) decays at rate R.
            sigma, s, d = mpmath.mpf(sigma0), mpmath.mpf(strength), mpmath.mpf(delta)
            root, y = mpmath.sqrt(d**2 + 4 * s**2), mpmath.sqrt(d**2 + 4 * sigma**2) + 2 * sigma
            ratios = [(y - 2 * s - root) / (y - 2 * s + root) * mpmath.exp(-root * mpmath.mpf(float(t))) for t in times]
            ys = [2 * s + root * (1 + q) / (1 - q) for q in ratios]
            expected = [float((y - d**2 / y) / 4) for y in ys]
        np.testing.assert_allclose(singular_values_at(sigma0, strength, delta, times), expected, rtol=1e-14)


def test_singular_values_take_batches():
    sigma0, strengths, delta = np.array([[0.1], [0.2]]), np.array([1.0, 2.0, 3.0]), 0.5
    found = singular_values_at(sigma0, strengths, delta, [0.0, 2.0])
    assert found.shape == (2, 3, 2)
    np.testing.assert_array_equal(found[1, 2], singular_values_at(0.2, 3.0, 0.5, [0.0, 2.0]))
    assert isinstance(singular_values_at(torch.tensor(sigma0), strengths, delta, [1.0]), torch.Tensor)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((-1.0, 1.0, 1.0, [1.0]), "`sigma0` must be ≥ 0, got -1"),
        ((1.0, [1.0, -2.0], 1.0, [1.0]), "`strengths` must be ≥ 0, got -2"),
        ((1.0, 1.0, 1.0, [-1.0]), "`times` must be ≥ 0, got -1"),
        ((1.0, 1.0, 1.0, 1.0), r"`times` must have shape \(…, T\), got \(\)"),
        ((1.0, 1.0, float("nan"), [1.0]), "`delta` must be finite, got nan"),
        ((1.0, 1.0, 1.0, [1.0], 0.0), "`lr_w` must be positive, got 0"),
    ],
)
def test_what_singular_values_may_not_start_from(given, message):
    with pytest.raises(ParameterError, match=message):
        singular_values_at(*given)
