"""Alignment with the targets against dense NumPy: H and YYᵀ written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.errors import ParameterError
from richlearn.kernels.alignment import kernel_alignment

SAMPLES, OUTPUTS = 7, 3


def _draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _kernel(seed, size=SAMPLES):
    factor = _draw(seed, size, 5) + 0.5
    return factor @ factor.T


TARGETS = _draw(9, SAMPLES, OUTPUTS) + 1


def _dense(kernel, target_kernel, outputs, centred):
    """The definition, H ⊗ I written out."""
    samples = len(kernel) // outputs
    centring = np.kron(np.eye(samples) - centred * np.ones((samples, samples)) / samples, np.eye(outputs))
    first, second = (centring @ k @ centring for k in (kernel.numpy(), target_kernel.numpy()))
    return (first * second).sum() / (np.linalg.norm(first) * np.linalg.norm(second))


@given(seed=st.integers(0, 10**6), centred=st.booleans(), block=st.sampled_from([1, 30, 2**18]))
@settings(max_examples=40, deadline=None)
def test_a_traced_kernel_meets_the_targets_kernel(seed, centred, block):
    kernel, targets = _kernel(seed), _draw(seed + 1, SAMPLES, OUTPUTS) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richlearn.kernels._blocks._BLOCK", block)
        found = kernel_alignment(kernel, targets, centred=centred)
    assert found == pytest.approx(_dense(kernel, targets @ targets.T, 1, centred), abs=1e-12)
    assert 0 <= found <= 1


@pytest.mark.parametrize("block", [1, 100, 2**18])
@pytest.mark.parametrize("centred", [False, True])
def test_a_full_kernel_meets_all_outputs_as_one_vector(monkeypatch, centred, block):
    kernel, vector = _kernel(0, SAMPLES * OUTPUTS), TARGETS.reshape(-1)
    monkeypatch.setattr("richlearn.kernels._blocks._BLOCK", block)
    found = kernel_alignment(kernel, TARGETS, centred=centred)
    assert found == pytest.approx(_dense(kernel, torch.outer(vector, vector), OUTPUTS, centred), abs=1e-12)


def test_uncentred_it_is_the_energy_of_the_target():
    kernel, y = _kernel(0), TARGETS[:, 0]
    expected = float(y @ kernel @ y / (y.norm() ** 2 * kernel.norm()))
    assert kernel_alignment(kernel, y, centred=False) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("centred", [False, True])
def test_the_targets_own_kernel_is_aligned(centred):
    assert kernel_alignment(3 * TARGETS @ TARGETS.T, TARGETS, centred=centred) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("scale", [1e-170, 1e-5, 1e170])
def test_scales_do_not_matter(centred, scale):
    expected = kernel_alignment(_kernel(0), TARGETS, centred=centred)
    assert kernel_alignment(scale * _kernel(0), 7 * TARGETS, centred=centred) == pytest.approx(expected, rel=1e-11)


def test_centring_forgets_the_means_of_kernel_and_targets():
    shift = _draw(3, SAMPLES)
    moved = _kernel(0) + shift[:, None] + shift[None, :] + 5
    assert kernel_alignment(moved, TARGETS + 2) == pytest.approx(kernel_alignment(_kernel(0), TARGETS), rel=1e-12)


def test_float32_is_summed_in_float64():
    kernel, targets = _kernel(0).float(), TARGETS.float()
    assert kernel_alignment(kernel, targets) == pytest.approx(kernel_alignment(kernel.double(), targets.double()), rel=1e-14)


@pytest.mark.parametrize(
    ("kernel", "targets"),
    [
        (torch.full((SAMPLES, SAMPLES), torch.nan), TARGETS),
        (torch.full((SAMPLES, SAMPLES), torch.inf), TARGETS),
        (torch.zeros(SAMPLES, SAMPLES), TARGETS),
        (torch.full((SAMPLES, SAMPLES), 0.1), TARGETS),
        (_kernel(0), torch.full((SAMPLES, 1), 0.1)),
    ],
)
def test_what_has_no_direction_has_no_alignment(kernel, targets):
    assert math.isnan(kernel_alignment(kernel, targets))


@pytest.mark.parametrize(
    ("kernel", "targets", "message"),
    [
        (torch.ones(2, 3), TARGETS, r"`kernel` must be a square matrix of at least one row, got shape \(2, 3\)"),
        (torch.ones(5, 5), TARGETS, r"must have n = 7 rows \(traced\) or n·c = 21 rows \(full\) for `targets` of shape \(7, 3\), got 5"),
        (
            torch.ones(3, 3),
            torch.tensor([0, 1, 2]),
            r"floating-point values \(n, c\), one-hot for classes, got torch.int64 of shape \(3,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(kernel, targets, message):
    with pytest.raises(ParameterError, match=message):
        kernel_alignment(kernel, targets)
