"""Points, polygons and lines; inside and outside as masks see them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data.letterbox import letterbox
from edgekit.masks.polygon import polygons_to_mask
from edgekit.tracking.geometry import distance_to_outline, inside_polygon, passes_between, side_of_line

SQUARE = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], float)


def test_inside_and_how_far_from_the_outline():
    points = np.array([[20, 20], [12, 20], [5, 20], [20, 34], [33, 34]], float)
    assert inside_polygon(points, SQUARE).tolist() == [True, True, False, False, False]
    assert distance_to_outline(points, SQUARE).tolist() == [10, 2, 5, 4, 5]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8))
def test_masks_and_events_agree_on_what_is_inside(corners):
    """The cells of a mask with a pixel each, against the test of points at their centres."""
    side = 16
    picture = letterbox(np.zeros((side, side, 3), np.uint8), height=side, width=side)
    mask = polygons_to_mask((np.array(corners),), picture, grid=(side, side))
    centres = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), axis=-1).reshape(-1, 2)
    outline = np.array(corners) * side
    sure = distance_to_outline(centres, outline) > 1e-6
    assert (inside_polygon(centres, outline) == mask.reshape(-1))[sure].all()


def test_right_is_right_of_who_walks_along_the_line():
    # y grows downwards: who walks to the right has the lower part of the picture at the right hand.
    start, end = np.array([0.0, 50]), np.array([100.0, 50])
    points = np.array([[50, 60], [50, 40], [500, 53]], float)
    assert side_of_line(points, start, end).tolist() == [10, -10, 3]
    assert side_of_line(points, end, start).tolist() == [-10, 10, -3]


@pytest.mark.parametrize(("x", "passes"), [(50, True), (0, True), (100, True), (101, False), (-1, False)])
def test_only_the_segment_is_passed(x, passes):
    start, end = np.array([0.0, 50]), np.array([100.0, 50])
    assert passes_between(np.array([x, 40.0]), np.array([x, 60.0]), start, end) is passes
