"""Early directions of piecewise linear units: at rest, uphill, XOR; and what all functions of such networks refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from richlearn.errors import ParameterError
from richlearn.theory import (
    _kinks,
    activation_matrix,
    early_directions,
    piecewise_kernel,
    reduced_flow,
    unit_residuals,
    unit_tangent_matrices,
    unit_velocities,
)


def _draw(seed=0, h=5, d=3, n=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(h, d)), rng.normal(size=h), rng.normal(size=(n, d)), rng.normal(size=n)


def _least_push(u, x, y, slope):
    """The least ‖(I − uuᵀ)Σ_i c_i y_i x_i‖ over c_i in [γ, 1] for inputs whose kink u lies on."""
    z = x @ u
    on = np.abs(z) < 1e-10
    across = np.eye(len(u)) - np.outer(u, u)
    fixed = across @ ((np.where(z > 0, 1.0, slope) * ~on * y) @ x)
    if not on.any():
        return np.linalg.norm(fixed)
    return np.sqrt(2 * lsq_linear((across @ (y[on, None] * x[on]).T), -fixed, bounds=(slope, 1.0), tol=1e-14).cost)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 9), st.sampled_from([-0.5, 0.0, 0.2, 0.9]))
def test_early_directions_are_at_rest(seed, d, n, slope):
    w, _, x, y = _draw(seed, d=d, n=n)
    found = early_directions(w, x, y, slope=slope)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-12)
    assert max(_least_push(u, x, y, slope) for u in found) < 1e-9


def test_the_sign_of_the_readout_turns_the_target():
    w, a, x, y = _draw()
    each = [early_directions(w[k : k + 1], x, np.sign(a[k]) * y)[0] for k in range(5)]
    np.testing.assert_allclose(early_directions(w, x, y, np.sign(a)), each, rtol=0, atol=1e-13)


def test_exclusive_or_is_solved_by_the_directions_of_its_four_corners():
    x, y = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), np.array([1.0, 1.0, -1.0, -1.0])
    w, a, _, _ = _draw(h=40, d=2)
    found = early_directions(w, x, y, np.sign(a)) @ x.T / np.sqrt(2)
    wanted = np.where(np.sign(a) > 0, 0, 2)
    np.testing.assert_allclose(np.take_along_axis(np.abs(found), wanted[:, None], axis=1), 1.0, rtol=1e-12)


def test_a_unit_that_no_input_activates_stays():
    x, y = np.array([[1.0, 0.0]]), np.array([-1.0])
    np.testing.assert_allclose(early_directions([[-1.0, 1.0], [1.0, 1.0]], x, y), [[-np.sqrt(0.5), np.sqrt(0.5)], [0.0, 1.0]], atol=1e-12)
    assert (reduced_flow([[-1.0, 1.0]], [1.0], x, y, [10.0]) == [[-1.0, 1.0]]).all()


def test_motion_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(_kinks, "_TURNS", 1)
    w, a, x, y = _draw(h=20)
    with pytest.raises(ParameterError, match="`x` and `y` must let directions settle within 1 changes of pattern"):
        early_directions(w, x, y)
    with pytest.raises(ParameterError, match="`times` must be reached within 1 changes of pattern"):
        reduced_flow(w, a, x, y, [1.0])


W, A, X, Y = [[1.0, 0.0]], [1.0], [[1.0, 1.0]], [1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: activation_matrix(W, [[1.0]]), "`x`"),
        (lambda: activation_matrix(W, X, slope=2.0), "`slope`"),
        (lambda: activation_matrix([[np.nan, 0.0]], X), "`w` must be finite"),
        (lambda: unit_tangent_matrices(W, [1.0, 2.0]), "`w`.*`a`|`a`"),
        (lambda: unit_tangent_matrices(W, A, lr_w=0.0), "`lr_w` must be positive"),
        (lambda: unit_residuals(W, A, X, [1.0, 2.0]), "`y`"),
        (lambda: unit_velocities([[0.0, 0.0]], A, X, Y), "`w`"),
        (lambda: piecewise_kernel(W, A, [[1.0]]), "`x`"),
        (lambda: reduced_flow([[0.0, 0.0]], A, X, Y, [1.0]), "`w0`"),
        (lambda: reduced_flow(W, A, X, Y, [-1.0]), "`times`"),
        (lambda: reduced_flow([W], [A], X, Y, [1.0]), r"`w0` and `a0` must have shapes \(h, d\) and \(h,\)"),
        (lambda: early_directions([[0.0, 0.0]], X, Y), "`w0`"),
        (lambda: early_directions(W, X, Y, sign=0.5), "`sign` must be 1 or −1, got 0.5"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
