"""Effective rank and overlaps of eigenspaces against SciPy."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from richlearn.errors import ParameterError
from richlearn.kernels.spectrum import effective_rank, eigenspace_overlap, participation_ratio, subspace_overlap, top_eigenvectors

RANKS = [effective_rank, participation_ratio]
USELESS = [torch.zeros(3, 3), torch.full((3, 3), torch.nan), torch.full((3, 3), torch.inf)]


def _kernel(seed, size=6, rank=6):
    factor = torch.randn(size, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.T


def _rotation(seed, size=6):
    return torch.linalg.qr(_kernel(seed, size)).Q


@given(seed=st.integers(0, 10**6), size=st.integers(1, 9), rank=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_effective_rank_is_the_exponential_of_the_entropy(seed, size, rank):
    kernel = _kernel(seed, size, rank)
    values = scipy.linalg.svdvals(kernel.numpy())
    assert effective_rank(kernel) == pytest.approx(math.exp(entropy(values)), rel=1e-9)
    assert 1 - 1e-12 <= participation_ratio(kernel) <= effective_rank(kernel) + 1e-9 <= min(size, rank) + 1e-6


def test_participation_ratio_counts_eigenvalues():
    values = np.linalg.eigvalsh(_kernel(0).numpy())
    assert participation_ratio(_kernel(0)) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_projector_has_its_rank(rank, count):
    basis = _rotation(0)[:, :count]
    assert rank(basis @ basis.T) == pytest.approx(count, rel=1e-11)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1e300])
def test_ranks_do_not_depend_on_scale(rank, scale):
    assert rank(scale * _kernel(0)) == pytest.approx(rank(_kernel(0)), rel=1e-12)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles(seed, count):
    first, second = _kernel(seed), _kernel(seed + 1)
    bases = [scipy.linalg.eigh(k.numpy(), subset_by_index=(6 - count, 5))[1] for k in (first, second)]
    expected = (np.cos(scipy.linalg.subspace_angles(*bases)) ** 2).mean()
    assert eigenspace_overlap(first, second, count) == pytest.approx(expected, abs=1e-9)


def test_equal_spaces_overlap_whole_even_where_the_eigenvectors_differ():
    basis, turn = _rotation(0), _rotation(1, 2)
    other = torch.cat([basis[:, :2] @ turn, basis[:, 2:]], dim=1)
    first, second = (b @ torch.diag(torch.tensor([9.0, 8, 3, 2, 1, 0.5], dtype=torch.float64)) @ b.T for b in (basis, other))
    assert eigenspace_overlap(first, second, 2) == pytest.approx(1, abs=1e-12)
    assert eigenspace_overlap(first, second, 1) < 0.999
    assert 1 - 1e-12 < eigenspace_overlap(first, 7 * first, 2) <= 1


def test_orthogonal_spaces_do_not_overlap():
    first, second = torch.diag(torch.tensor([3.0, 2, 0, 0])), torch.diag(torch.tensor([0.0, 0, 3, 2]))
    assert eigenspace_overlap(first, second, 2) == pytest.approx(0, abs=1e-24)


def test_the_vectors_kept_are_no_view_of_all():
    vectors = top_eigenvectors(_kernel(0), 2)
    assert vectors.untyped_storage().nbytes() == 8 * 12


@pytest.mark.parametrize("kernel", USELESS)
def test_what_has_no_directions_gives_nan(kernel):
    assert all(math.isnan(rank(kernel)) for rank in RANKS)
    assert math.isnan(eigenspace_overlap(torch.eye(3), kernel, 1))


@pytest.mark.parametrize("function", [*RANKS, lambda kernel: top_eigenvectors(kernel, 1)])
def test_only_square_kernels_have_a_spectrum(function):
    with pytest.raises(ParameterError, match=r"`kernel` must be a square matrix of at least one row, got shape \(2, 3\)"):
        function(torch.ones(2, 3))


@pytest.mark.parametrize("count", [0, 7])
def test_the_number_of_eigenvectors_is_checked(count):
    with pytest.raises(ParameterError, match=f"`count` must be at least 1 and at most the kernel's 6 rows, got {count}"):
        eigenspace_overlap(_kernel(0), _kernel(1), count)


def test_bases_of_unlike_shapes_are_refused():
    with pytest.raises(ParameterError, match=r"one probe and one `count`, got shapes \(6, 2\) and \(6, 3\)"):
        subspace_overlap(_rotation(0)[:, :2], _rotation(0)[:, :3])
