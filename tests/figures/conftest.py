"""Protocols of three kinds: a τ × δ grid, four cells in the plane, a list of schemes."""

import pytest
from synthetic_results import cell_of, protocol_of


@pytest.fixture
def grid():
    cells = [cell_of("unbalanced", tau=tau, delta=delta) for tau in (0.1, 0.5, 2.0) for delta in (-1.0, 0.0, 1.0)]
    return protocol_of("quick", cells, 3)


@pytest.fixture
def plane():
    cells = [cell_of("unbalanced", tau=tau, delta=delta) for tau, delta in ((0.1, 0.0), (2.0, 0.0), (0.1, 1.0), (0.1, -1.0))]
    return protocol_of("teacher_student_2d", cells, 2, dimension=2)


@pytest.fixture
def schemes():
    names = ("standard", "kaiming", "xavier", "orthogonal", "lsuv", "ntk", "mean_field", "mup")
    cells = [cell_of(name) for name in names] + [cell_of("relative_scale", alpha=3.0), cell_of("unbalanced", tau=0.1, delta=1.0)]
    return protocol_of("schemes_teacher_student", cells, 6, baseline="standard")
