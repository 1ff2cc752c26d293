"""Regions of a square of inputs: against the activation of random points, areas, and neighbours."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.errors import ParameterError
from richlearn.theory.partition import partition


def _draw(h, seed, bias=0.5):
    random = np.random.default_rng(seed)
    return random.normal(size=(h, 2)), bias * random.normal(size=h)


def _area(vertices):
    x, y = vertices.T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _inside(vertices, points):
    """Which points (n, 2) lie strictly within a counter-clockwise convex polygon."""
    edges, gaps = np.roll(vertices, -1, axis=0) - vertices, points[:, None] - vertices
    return (edges[:, 0] * gaps[..., 1] - edges[:, 1] * gaps[..., 0] > 0).all(1)


def _neighbours(regions):
    """Pairs of regions that have a stretch of their borders in common, found by stepping over the middle of each piece of an edge."""
    corners = np.unique(np.concatenate([region.vertices for region in regions]).round(9), axis=0)
    for first in regions:
        for start, end in zip(first.vertices, np.roll(first.vertices, -1, axis=0), strict=True):
            edge = end - start
            normal = np.array([edge[1], -edge[0]]) / np.linalg.norm(edge)
            along = (corners - start) @ edge / (edge @ edge)
            on = (np.abs((corners - start) @ normal) < 1e-8) & (along > 1e-6) & (along < 1 - 1e-6)
            cuts = np.array([0.0, *np.sort(along[on]), 1.0])
            for middle in (cuts[1:] + cuts[:-1]) / 2:
                beyond = (start + middle * edge + 1e-7 * normal)[None]
                yield from ((first, second) for second in regions if _inside(second.vertices, beyond)[0])


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 20), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([1e-3, 1.0, 50.0]))
def test_each_point_lies_in_one_region_with_its_own_pattern(h, seed, bias, extent):
    w, biases = _draw(h, seed, bias)
    points = np.random.default_rng(seed).uniform(-extent, extent, (300, 2))
    regions = partition(w, biases, extent=extent)
    inside = np.stack([_inside(region.vertices, points) for region in regions])
    np.testing.assert_array_equal(inside.sum(0), 1)
    patterns = np.stack([region.pattern for region in regions])[inside.argmax(0)]
    np.testing.assert_array_equal(patterns, points @ w.T + biases > 0)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 30), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 3.0]))
def test_the_areas_sum_to_the_square(h, seed, bias):
    regions = partition(*_draw(h, seed, bias), extent=2.0)
    areas = [_area(region.vertices) for region in regions]
    assert min(areas) > 0
    assert sum(areas) == pytest.approx(16.0, rel=1e-13)


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_neighbours_differ_in_one_unit_and_so_in_colour(bias):
    pairs = list(_neighbours(partition(*_draw(8, 0, bias))))
    assert len(pairs) >= 16
    assert all((first.pattern != second.pattern).sum() == 1 and first.colour != second.colour for first, second in pairs)


@pytest.mark.parametrize("factor", [2.0, -2.0])
def test_two_units_on_one_line_leave_the_colour_as_it_is(factor):
    w, biases = _draw(1, 0, bias=0.1)
    pairs = list(_neighbours(partition(np.concatenate([w, factor * w]), np.concatenate([biases, factor * biases]))))
    assert len(pairs) == 2
    assert all(first.colour == second.colour and (first.pattern != second.pattern).all() for first, second in pairs)


def test_lines_through_the_origin_cut_twice_as_many_regions():
    assert len(partition(_draw(12, 0)[0])) == 24


def test_lines_in_general_position_within_the_square_cut_as_many_regions_as_can_be():
    assert len(partition(*_draw(7, 0, 0.01), extent=1e3)) == 1 + 7 + 7 * 6 // 2


def test_units_without_weights_cut_nothing():
    regions = partition([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [1e-30, 0.0, 0.0])
    assert sorted(region.pattern.tolist() for region in regions) == [[True, False, False], [True, False, True]]
    assert sorted(region.colour for region in regions) == [0, 1]


def test_a_line_outside_or_along_the_border_cuts_nothing():
    for bias, active in ((2.0, True), (-2.0, False), (1.0, True), (-1.0, False)):
        (region,) = partition([[1.0, 0.0]], [bias])
        assert region.pattern.tolist() == [active]
        assert len(region.vertices) == 4


def test_a_line_through_two_corners_makes_triangles():
    regions = partition([[1.0, -1.0]])
    assert [len(region.vertices) for region in regions] == [3, 3]


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_scale_of_a_unit_does_not_matter(scale):
    w, _ = _draw(3, 0)
    for found, expected in zip(partition(scale * w), partition(w), strict=True):
        np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-14)
        np.testing.assert_array_equal(found.pattern, expected.pattern)


def test_no_units_leave_the_square():
    (region,) = partition(np.zeros((0, 2)), extent=3.0)
    np.testing.assert_array_equal(region.vertices, 3.0 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))
    assert region.pattern.shape == (0,)
    assert region.colour == 0


def test_tensors_give_tensors():
    region = partition(torch.eye(2))[0]
    assert isinstance(region.vertices, torch.Tensor)
    assert region.pattern.dtype == torch.bool


def test_regions_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        partition(np.eye(2))[0].colour = 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"w": np.zeros((3, 3))}, r"`w` must have shape \(h, 2\), got \(3, 3\)"),
        ({"w": np.zeros(2)}, r"`w` must have shape \(h, 2\), got \(2,\)"),
        ({"w": [[np.inf, 0.0]]}, "`w` must be finite, got inf"),
        ({"w": np.eye(2), "biases": [1.0]}, r"`biases` must have shape \(2,\), got \(1,\)"),
        ({"w": np.eye(2), "biases": [1.0, np.nan]}, "`biases` must be finite, got nan"),
        ({"w": np.eye(2), "extent": 0.0}, "`extent` must be positive, got 0"),
    ],
)
def test_what_cannot_be_cut(given, message):
    with pytest.raises(ParameterError, match=message):
        partition(**given)
