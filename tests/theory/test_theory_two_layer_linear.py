"""Two-layer linear networks: conserved and tangent matrix against autograd and simulation, regimes against simulation."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from richlearn.errors import ParameterError
from richlearn.kernels import empirical_ntk, kernel_distance
from richlearn.theory.two_layer_linear import conserved_matrix, regime_by_shape, shape_of, tangent_matrix, tangent_matrix_of_units

RATES = {"lr_w": 0.7, "lr_a": 1.9}


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in shapes]


def _flow(w, a, target, time, lr_w=1.0, lr_a=1.0, **options):
    """W and A after `time` of gradient flow on whitened input."""
    (h, d), c = w.shape, a.shape[1]

    def velocity(_, state):
        w, a = state[: h * d].reshape(h, d), state[h * d :].reshape(h, c)
        gap = w.T @ a - target
        return np.concatenate([(-lr_w * a @ gap.T).ravel(), (-lr_a * w @ gap).ravel()])

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13, **options}
    end = solve_ivp(velocity, (0, time), np.concatenate([w.ravel(), a.ravel()]), **options).y[:, -1]
    return end[: h * d].reshape(h, d), end[h * d :].reshape(h, c)


def test_the_conserved_matrix_stays_in_a_simulation():
    w, a, target = _draw((3, 4), (3, 2), (4, 2))
    start, end = conserved_matrix(w, a, **RATES), conserved_matrix(*_flow(w, a, target, 3.0, **RATES), **RATES)
    np.testing.assert_allclose(end, start, rtol=0, atol=1e-10)


def test_the_conserved_matrix_has_the_unit_quantities_on_its_diagonal():
    w, a = _draw((5, 3, 4), (5, 3, 2))
    expected = 0.7 * (a**2).sum(-1) - 1.9 * (w**2).sum(-1)
    np.testing.assert_allclose(np.diagonal(conserved_matrix(w, a, **RATES), axis1=-2, axis2=-1), expected, atol=1e-13)


@pytest.mark.parametrize(("h", "d", "c"), [(3, 4, 2), (1, 2, 3), (5, 2, 2), (2, 3, 1), (2, 1, 3)])
def test_the_tangent_matrix_gives_the_velocity_that_autograd_gives(h, d, c):
    w, a, x, y = (torch.tensor(each) for each in _draw((h, d), (h, c), (6, d), (6, c)))
    leaves = w.clone().requires_grad_(), a.clone().requires_grad_()
    loss = 0.5 * (x @ leaves[0].T @ leaves[1] - y).square().sum()
    step_w, step_a = (-rate * gradient for rate, gradient in zip((0.7, 1.9), torch.autograd.grad(loss, leaves), strict=True))
    velocity = step_w.T @ a + w.T @ step_a
    pull = x.T @ (x @ w.T @ a - y)
    torch.testing.assert_close(velocity.T.flatten(), -tangent_matrix(w, a, **RATES) @ pull.T.flatten(), rtol=1e-12, atol=1e-12)


def test_the_kernel_is_that_of_explicit_jacobians():
    w, a, x = (torch.tensor(each) for each in _draw((3, 4), (3, 2), (5, 4)))
    jacobians = torch.autograd.functional.jacobian(lambda w, a: (x @ w.T @ a).T.flatten(), (w, a))
    expected = sum(rate * each.flatten(1) @ each.flatten(1).T for rate, each in zip((0.7, 1.9), jacobians, strict=True))
    inputs = torch.block_diag(x, x)
    torch.testing.assert_close(inputs @ tangent_matrix(w, a, **RATES) @ inputs.T, expected, rtol=1e-12, atol=1e-12)


def test_the_kernel_is_the_empirical_ntk_in_other_row_order():
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
    x = torch.tensor(_draw((5, 4))[0])
    found = empirical_ntk(network, x, rates={"0.weight": 0.7, "1.weight": 1.9})
    inputs = torch.block_diag(x, x)
    kernel = inputs @ tangent_matrix(network[0].weight, network[1].weight.T, **RATES) @ inputs.T
    order = torch.arange(10).reshape(2, 5).T.flatten()
    torch.testing.assert_close(found, kernel[order][:, order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_the_tangent_matrix_of_the_units_is_that_of_the_weights(scale):
    w, a = _draw((7, 4, 3), (7, 4, 2))
    w = w * scale
    beta, delta = np.einsum("bki,bkj->bkij", w, a), np.diagonal(conserved_matrix(w, a, **RATES), axis1=1, axis2=2)
    expected = tangent_matrix(w, a, **RATES)
    np.testing.assert_allclose(tangent_matrix_of_units(beta, delta, **RATES), expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize(("h", "d", "c", "delta"), [(1, 3, 1, 2.0), (1, 1, 3, -2.0), (2, 3, 2, 0.0)])
def test_a_unit_that_computes_nothing_has_a_tangent_matrix_where_one_is_implied(h, d, c, delta):
    found = tangent_matrix_of_units(np.zeros((h, d, c)), np.full(h, delta))
    np.testing.assert_allclose(found, abs(delta) * np.eye(c * d), atol=0)


def test_tensors_give_tensors():
    w, a = (torch.tensor(each) for each in _draw((3, 4), (3, 2)))
    assert isinstance(conserved_matrix(w, a), torch.Tensor)
    assert isinstance(tangent_matrix(w.numpy(), a), torch.Tensor)


@pytest.mark.parametrize("function", [conserved_matrix, tangent_matrix])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([[1.0]], [[1.0], [2.0]]), r"`w` \(…, h, d\) and `a` \(…, h, c\) must share h, got \(1, 1\) and \(2, 1\)"),
        (([1.0], [[1.0]]), r"`w` must have shape \(…, h, d\), got \(1,\)"),
        (([[np.nan]], [[1.0]]), "`w` must be finite, got nan"),
        (([[1.0]], [[1.0]], -1.0), "`lr_w` must be positive, got -1"),
        (([[1.0]], [[1.0]], 1.0, 0.0), "`lr_a` must be positive, got 0"),
    ],
)
def test_what_weights_may_not_be(function, given, message):
    with pytest.raises(ParameterError, match=message):
        function(*given)


@pytest.mark.parametrize(
    ("beta", "delta", "message"),
    [
        (np.eye(2)[None], [0.0], "`beta_k` must be w_k a_kᵀ, of rank 1"),
        (np.zeros((1, 2, 2)), [1.0], "`beta_k` must not be 0 where `delta_k` is not"),
        (np.zeros((1, 2, 2)), [-1.0], "`beta_k` must not be 0 where `delta_k` is not"),
        (np.zeros((1, 2, 2)), [0.0, 0.0], r"must share h, got \(1, 2, 2\) and \(2,\)"),
    ],
)
def test_what_units_may_not_be(beta, delta, message):
    with pytest.raises(ParameterError, match=message):
        tangent_matrix_of_units(beta, delta)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((5, 3, 2), "funnel"),
        ((5, 2, 2), "funnel"),
        ((5, 5, 2), "wide"),
        ((5, 1, 2), "bottleneck"),
        ((2, 3, 5), "inverted_funnel"),
        ((2, 2, 5), "inverted_funnel"),
        ((3, 3, 3), "wide"),
        ((3, 2, 3), "bottleneck"),
        ((1, 1, 1), "wide"),
    ],
)
def test_shapes(sizes, expected):
    assert shape_of(*sizes) == expected


@pytest.mark.parametrize("d", range(1, 5))
@pytest.mark.parametrize("c", range(1, 5))
@pytest.mark.parametrize("h", range(1, 6))
def test_one_sign_gives_the_regimes_of_the_paper(d, h, c):
    up, down = {
        "funnel": ("lazy", "delayed_rich"),
        "inverted_funnel": ("delayed_rich", "lazy"),
        "wide": ("lazy", "lazy"),
        "bottleneck": ("delayed_rich", "delayed_rich"),
    }[shape_of(d, h, c)]
    assert [regime_by_shape(d, h, c, sign) for sign in (9.0, 0.1, -0.1, -9.0)] == [up, "rich", "rich", down]


def _units(h, d, c, signs, size, seed):
    """Weights with δ_k near `size`·signs, and β small beside 1."""
    w, a = _draw((h, d), (h, c), seed=seed)
    signs = np.array(signs, dtype=float)[:, None]
    w, a = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (w, a))
    return w * np.where(signs < 0, np.sqrt(size), 1e-2), a * np.where(signs > 0, np.sqrt(size), 1e-2)


def _hardest(vectors):
    """The unit direction that rows `vectors` say least about."""
    return np.linalg.svd(np.vstack([vectors, np.zeros(vectors.shape[1])]))[2][-1]


def _moved(w, a, target, time):
    """Kernel distance between a start and what gradient flow makes of it."""
    end = _flow(w, a, target, time, method="LSODA", rtol=1e-8, atol=1e-10)
    assert np.linalg.norm(end[0].T @ end[1] - target) ** 2 < 0.1 + np.sum(np.linalg.svd(target)[1][len(w) :] ** 2)
    return kernel_distance(torch.tensor(tangent_matrix(w, a)), torch.tensor(tangent_matrix(*end)))


@pytest.mark.parametrize(
    ("h", "d", "c", "signs"),
    [
        (2, 4, 2, [1, 1]),
        (2, 4, 2, [-1, -1]),
        (2, 2, 4, [1, 1]),
        (2, 2, 4, [-1, -1]),
        (8, 2, 2, [1] * 8),
        (8, 2, 2, [-1] * 8),
        (1, 2, 2, [1]),
        (1, 2, 2, [-1]),
        (6, 4, 2, [1, 1, 1, 1, -1, -1]),  # mixed signs, enough of one
        (4, 4, 2, [1, -1, -1, -1]),  # mixed signs, too few of either
    ],
)
def test_simulated_kernels_move_as_the_regime_says(h, d, c, signs):
    w, a = _units(h, d, c, signs, 30.0, seed=0)
    target = np.outer(_hardest(w[np.array(signs) < 0]), _hardest(a[np.array(signs) > 0]))
    moved = _moved(w, a, target, 2000.0)
    assert (moved < 1e-4) == (regime_by_shape(d, h, c, np.diagonal(conserved_matrix(w, a))) == "lazy"), moved


def test_a_small_unit_beside_a_large_one_learns_late_what_the_large_one_cannot():
    w, a, target = np.array([[1e-3, 0.0], [0.0, 1e-3]]), np.array([[6.0, 0.0], [0.0, 1e-3]]), np.eye(2)
    ends = [_flow(w, a, target, time) for time in (0.5, 20.0)]
    early, late = (np.diagonal(w.T @ a) for w, a in ends)
    np.testing.assert_allclose(np.stack([early, late]), [[1, 0], [1, 1]], atol=1e-3)
    assert regime_by_shape(2, 2, 2, np.diagonal(conserved_matrix(w, a))) == "delayed_rich"


def test_large_symmetrised_units_are_lazy_by_the_whole_matrix_alone():
    w, a = _draw((4, 2), (4, 2))
    w, a = np.concatenate([w, w]) * 5, np.concatenate([a, -a]) * 5
    a *= np.linalg.norm(w, axis=1, keepdims=True) / np.linalg.norm(a, axis=1, keepdims=True)
    matrix = conserved_matrix(w, a)
    assert regime_by_shape(2, 8, 2, np.diagonal(matrix).round(12)) == "rich"
    assert regime_by_shape(2, 8, 2, matrix) == "lazy"
    assert _moved(w, a, np.array([[1.0, 0.0], [0.0, 0.5]]), 10.0) < 0.01


def test_the_border_of_the_regimes_scales_with_rates_and_target():
    border = 2.0 * np.sqrt(0.25 * 4.0) * 3.0
    options = {"beta_norm": 3.0, "lr_w": 0.25, "lr_a": 4.0}
    assert [regime_by_shape(2, 2, 2, border * factor, **options) for factor in (0.99, 1.01)] == ["rich", "lazy"]
    assert regime_by_shape(2, 2, 2, border * 1.01, **options, threshold=2.1) == "rich"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 2, 2, 1.0), "`dimension` must be at least 1, got 0"),
        ((2, 0, 2, 1.0), "`width` must be at least 1, got 0"),
        ((2, 2, -1, 1.0), "`outputs` must be at least 1, got -1"),
        ((2, 2, 2, [1.0, 2.0, 3.0]), r"`delta` must be a number, \(2,\) or \(2, 2\), got shape \(3,\)"),
        ((2, 2, 2, [[0.0, 1.0], [0.0, 0.0]]), "`delta` as a matrix must be symmetric"),
        ((2, 2, 2, float("inf")), "`delta` must be finite"),
        ((2, 2, 2, 1.0, 0.0), "`beta_norm` must be positive, got 0"),
    ],
)
def test_what_a_regime_cannot_be_asked_of(given, message):
    with pytest.raises(ParameterError, match=message):
        regime_by_shape(*given)
