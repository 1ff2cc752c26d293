"""Weights whose conserved matrices are multiples of I: their equations, bounds and randomness."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.errors import ParameterError
from richlearn.theory.deep_linear import deep_conserved, isotropic_layers, isotropic_pair


def _product(weights):
    """W_D … W_1."""
    return functools.reduce(lambda done, weight: weight @ done, weights)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.7, 50.0])
@pytest.mark.parametrize("norm", [0.0, 1e-3, 2.0])
def test_isotropic_layers_keep_their_equations(depth, epsilon, norm):
    rates = np.linspace(0.5, 2.0, depth + 1)
    weights = isotropic_layers(depth, 4, norm, epsilon, rates=rates, seed=3)
    assert [weight.shape for weight in weights] == [(4, 4)] * depth + [(1, 4)]
    assert np.linalg.norm(_product(weights)) == pytest.approx(norm, rel=1e-12)
    *inner, last = deep_conserved(weights, rates)
    for found in inner:
        np.testing.assert_allclose(found, 0.0, atol=1e-12 * max(epsilon, 1))
    np.testing.assert_allclose(last, -epsilon * np.eye(4), atol=1e-12 * max(epsilon, 1))


@pytest.mark.parametrize(
    ("values", "epsilon", "outputs"),
    [
        ([2.0, 0.5], [0.3, -0.2, 0.4], None),
        ([2.0, 0.5], 0.0, 3),
        ([3.0, 1.0, 0.2, 0.0], [-1.0, 0.5, -2.0], None),  # ε < 0 where c = d
        ([1.0], -0.5, 6),  # … and where c > d
    ],
)
def test_isotropic_layers_of_several_outputs(values, epsilon, outputs):
    weights = isotropic_layers(3, 4, values, epsilon, outputs=outputs, rates=[1.0, 0.5, 2.0, 1.5], seed=1)
    found = np.linalg.svd(_product(weights), compute_uv=False)
    np.testing.assert_allclose(found, np.r_[values, np.zeros(len(found) - len(values))], atol=1e-12)
    levels = epsilon if np.ndim(epsilon) else [0.0, 0.0, epsilon]
    for level, matrix in zip(levels, deep_conserved(weights, [1.0, 0.5, 2.0, 1.5]), strict=True):
        np.testing.assert_allclose(matrix, -level * np.eye(4), atol=1e-12)


def test_direction_is_uniform_and_follows_the_seed():
    directions = np.array([_product(isotropic_layers(2, 3, 1.0, 0.5, seed=seed))[0] for seed in range(1000)])
    np.testing.assert_allclose(directions.mean(0), 0.0, atol=0.06)
    np.testing.assert_allclose(directions.T @ directions / 1000, np.eye(3) / 3, atol=0.05)
    np.testing.assert_array_equal(directions[7], _product(isotropic_layers(2, 3, 1.0, 0.5, seed=7))[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "`depth` must be an integer of at least 1, got 0"),
        ({"dimension": 0}, "`dimension` must be an integer of at least 1"),
        ({"beta_norm": -1.0}, "`beta_norm` must not be negative, got -1"),
        ({"beta_norm": [1.0] * 4}, r"`beta_norm` must be at most min\(outputs, dimension\) = 3 singular values, got shape \(4,\)"),
        ({"epsilon": -0.5}, "`epsilon` must sum to at least 0 .* eigenvalue; got -0.5 with c = 1 < 3"),
        ({"epsilon": [-0.5, 0.2]}, "`epsilon` must sum to at least 0 .* got -0.3 with c = 1 < 3"),
        ({"epsilon": [1.0]}, "`epsilon` must be a number, or 2 of them, one a hidden layer"),
        ({"rates": [1.0, 1.0]}, "`rates` must be 3 numbers, one a layer"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"outputs": 0}, "`outputs` must be an integer of at least 1"),
    ],
)
def test_errors_of_isotropic_layers(changes, message):
    with pytest.raises(ParameterError, match=message):
        isotropic_layers(**{"depth": 2, "dimension": 3, "beta_norm": 1.0} | changes)


sizes = st.integers(1, 6)


@given(h=sizes, d=sizes, c=sizes, delta=st.sampled_from([-30.0, -1.0, -1e-8, 0.0, 1e-8, 1.0, 30.0]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_isotropic_pair_keeps_its_equations_within_its_bounds(h, d, c, delta, seed):
    draw = np.random.default_rng(seed)
    rank = int(draw.integers(0, min(h, d, c) + 1))
    beta = draw.normal(size=(d, rank)) @ draw.normal(size=(rank, c))
    if (delta > 0 and h > c) or (delta < 0 and h > d):
        with pytest.raises(ParameterError, match=f"`width` h must be at most the (outputs c|dimension d) where `delta` .* got {h}"):
            isotropic_pair(h, d, c, delta, beta)
        return
    w, a = isotropic_pair(h, d, c, delta, beta, lr_a=0.4, lr_w=1.9, seed=seed)
    assert (w.shape, a.shape) == ((h, d), (h, c))
    np.testing.assert_allclose(1.9 * a @ a.T - 0.4 * w @ w.T, delta * np.eye(h), atol=1e-12 * 30)
    np.testing.assert_allclose(w.T @ a, beta, atol=1e-12)


def test_isotropic_pair_draws_a_map_of_full_rank():
    maps = [np.matmul(w.T, a) for w, a in (isotropic_pair(2, 4, 3, -0.5, seed=seed) for seed in range(400))]
    assert {int(np.linalg.matrix_rank(beta)) for beta in maps} == {2}
    assert np.mean([np.sum(beta**2) for beta in maps]) == pytest.approx(3.0, rel=0.1)  # d·c·h/(d·h)


def test_extra_directions_of_an_isotropic_pair_are_random():
    axes = [isotropic_pair(1, 3, 1, -1.0, np.zeros((3, 1)), seed=seed)[0][0] for seed in range(500)]
    np.testing.assert_allclose(np.cov(np.transpose(axes)), np.eye(3) / 3, atol=0.07)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 1.0}, "`width` h must be at most the outputs c where `delta` > 0, since Δ = δI has rank h; got 3 > 2"),
        ({"width": 5, "delta": -1.0}, "`width` h must be at most the dimension d where `delta` < 0, since Δ = δI has rank h; got 5 > 4"),
        ({"width": 1, "beta": np.eye(4)[:, :2]}, "`beta` must have at most rank `width` = 1, since β = WᵀA; got rank 2"),
        ({"beta": np.eye(4)}, r"`beta` must have shape \(dimension, outputs\) = \(4, 2\), got \(4, 4\)"),
        ({"delta": [0.0]}, "`delta` must be a number"),
        ({"lr_a": -1.0}, "`lr_a` must be positive"),
        ({"outputs": 0}, "`outputs` must be an integer of at least 1"),
    ],
)
def test_errors_of_isotropic_pair(changes, message):
    with pytest.raises(ParameterError, match=message):
        isotropic_pair(**{"width": 3, "dimension": 4, "outputs": 2, "delta": 0.0} | changes)
