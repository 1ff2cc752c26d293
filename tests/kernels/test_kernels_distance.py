"""The distance between kernels against the textbook form in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from richlearn.errors import ParameterError
from richlearn.kernels import kernel_distance


def _kernel(seed: int, size: int = 6, rank: int = 4) -> torch.Tensor:
    factor = torch.randn(size, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.T


@given(seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), rank=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_it_is_one_minus_the_cosine_and_within_0_and_1(seeds, rank):
    first, second = (_kernel(seed, rank=rank) for seed in seeds)
    textbook = 1 - float((first * second).sum() / (first.norm() * second.norm()))
    found = kernel_distance(first, second)
    assert found == pytest.approx(textbook, abs=1e-12)
    assert 0 <= found <= 1


def test_it_is_symmetric():
    assert kernel_distance(_kernel(0), _kernel(1)) == pytest.approx(kernel_distance(_kernel(1), _kernel(0)), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_is_at_no_distance_from_itself(dtype):
    kernel = _kernel(0).to(dtype)
    assert kernel_distance(kernel, kernel.clone()) == 0.0


@pytest.mark.parametrize("scale", [1e-12, 3.7, 1e12])
def test_scales_do_not_matter(scale):
    assert kernel_distance(scale * _kernel(0), _kernel(1)) == pytest.approx(kernel_distance(_kernel(0), _kernel(1) * scale), rel=1e-13)
    assert kernel_distance(scale * _kernel(0), _kernel(0)) < 1e-30


@pytest.mark.parametrize("size", [1e-5, 1e-4, 1e-3])
def test_near_0_it_keeps_sign_and_digits_in_float32(size):
    first, turned = _kernel(0).float(), (_kernel(0) + size * _kernel(1)).float()
    a, b = first.double(), turned.double()
    angle = torch.linalg.norm(a / a.norm() - b / b.norm())
    found = kernel_distance(first, turned)
    assert found > 0
    assert found == pytest.approx(float(angle**2 / 2), rel=1e-9)


def test_kernels_of_unlike_shapes_are_refused():
    with pytest.raises(ParameterError, match=r"one probe and one kind, got shapes \(6, 6\) and \(1, 1\)"):
        kernel_distance(_kernel(0), torch.ones(1, 1))


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_squares_neither_overflow_nor_vanish(scale):
    assert kernel_distance(scale * _kernel(0), _kernel(1)) == pytest.approx(kernel_distance(_kernel(0), _kernel(1)), rel=1e-12)


@pytest.mark.parametrize("block", [1, 7, 12, 1000])
def test_blocks_of_any_size_give_one_value(monkeypatch, block):
    expected = kernel_distance(_kernel(0), _kernel(1))
    monkeypatch.setattr("richlearn.kernels._blocks._BLOCK", block)
    assert kernel_distance(_kernel(0), _kernel(1)) == pytest.approx(expected, rel=1e-14)
    assert kernel_distance(_kernel(0).float(), _kernel(0).float()) == 0.0


def test_rectangular_and_transposed_kernels_serve():
    first, second = _kernel(0)[:, :4], _kernel(1)[:, :4]
    textbook = 1 - float((first * second).sum() / (first.norm() * second.norm()))
    assert kernel_distance(first.T, second.T) == pytest.approx(textbook, abs=1e-14)


def test_no_float64_copy_of_a_whole_kernel_is_made():
    kernels = [torch.rand(2000, 2000) for _ in range(2)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kernel_distance(*kernels)
    largest = max(event.cpu_memory_usage for event in seen.events())
    assert 0 < largest <= 8 * 2**18


@pytest.mark.parametrize("entry", [float("nan"), float("inf"), 0.0])
def test_a_kernel_without_a_direction_is_at_no_known_distance(entry):
    assert math.isnan(kernel_distance(_kernel(0), torch.full((6, 6), entry, dtype=torch.float64)))


def test_kernels_without_entries_are_refused():
    with pytest.raises(ParameterError, match=r"`k1` and `k2` must have entries, got shape \(0, 0\)"):
        kernel_distance(torch.ones(0, 0), torch.ones(0, 0))
