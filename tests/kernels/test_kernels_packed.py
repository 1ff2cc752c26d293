"""Symmetric halves of kernels against the whole."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.errors import ParameterError
from richlearn.kernels import kernel_distance
from richlearn.kernels.packed import pack_symmetric, packed_distance


def _kernel(seed, size=6):
    factor = torch.randn(size, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    kernel = factor @ factor.T
    return (kernel + kernel.T) / 2


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_half_is_the_upper_triangle_in_the_kernels_dtype(size, dtype):
    kernel = _kernel(0, size).to(dtype)
    half = pack_symmetric(kernel)
    assert half.dtype == dtype
    np.testing.assert_array_equal(half.numpy(), kernel.numpy()[np.triu_indices(size)])


def test_a_half_does_not_keep_the_kernel_alive():
    kernel = _kernel(0, 1)
    half = pack_symmetric(kernel)
    kernel.zero_()
    assert half != 0


@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), block=st.sampled_from([1, 5, 2**18]))
@settings(max_examples=50, deadline=None)
def test_halves_are_as_far_apart_as_their_kernels(seed, size, block):
    first, second = _kernel(seed, size), _kernel(seed + 1, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richlearn.kernels._blocks._BLOCK", block)
        found = float(packed_distance(pack_symmetric(first), pack_symmetric(second)))
    assert found == pytest.approx(kernel_distance(first, second), rel=1e-11, abs=1e-30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_half_is_at_no_distance_from_itself(dtype):
    half = pack_symmetric(_kernel(0).to(dtype))
    assert float(packed_distance(half, half.clone())) == 0.0


@pytest.mark.parametrize("size", [1e-5, 1e-4, 1e-3])
def test_near_0_halves_keep_sign_and_digits_in_float32(size):
    first, second = _kernel(0).float(), (_kernel(0) + size * _kernel(1)).float()
    a, b = first.double(), second.double()
    expected = float(torch.linalg.norm(a / a.norm() - b / b.norm()) ** 2 / 2)
    assert float(packed_distance(pack_symmetric(first), pack_symmetric(second))) == pytest.approx(expected, rel=1e-9)


def test_halves_of_nan_are_at_no_known_distance():
    half = pack_symmetric(_kernel(0))
    assert math.isnan(packed_distance(half, torch.full_like(half, torch.nan)))


def test_halves_of_unlike_kernels_are_refused():
    with pytest.raises(ParameterError, match="halves of 21 and 15 entries: was the reference taken on another probe"):
        packed_distance(pack_symmetric(_kernel(0)), pack_symmetric(_kernel(0, 5)))


@pytest.mark.parametrize("shape", [(2, 3), (0, 0)])
def test_only_a_square_kernel_has_a_half(shape):
    with pytest.raises(ParameterError, match=r"`kernel` must be a square matrix of at least one row, got shape \("):
        pack_symmetric(torch.ones(shape))
