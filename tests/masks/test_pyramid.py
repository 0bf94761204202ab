"""Cells that grow, and cells under boxes that reach out of the picture, as expected boxes of tracks do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.masks.pyramid import Mask, boxes_to_mask, dilate


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-90, -90, -50, -50], ["....", "....", "....", "...."]),
        ([300, 10, 340, 20], ["....", "....", "....", "...."]),
        ([10, 300, 20, 340], ["....", "....", "....", "...."]),
        ([-50, -50, 10, 10], ["#...", "....", "....", "...."]),
        ([70, 30, 500, 500], ["....", "...#", "...#", "...#"]),
        ([-500, -500, 500, 500], ["####"] * 4),
    ],
)
def test_only_what_is_inside_counts(box: list[float], expected: list[str]) -> None:
    mask = boxes_to_mask(np.array([box], np.float32), grid=(4, 4), height=80, width=80)
    assert ["".join(".#"[int(cell)] for cell in row) for row in mask] == expected


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))), st.integers(0, 3))
def test_dilation_reaches_all_eight_neighbours(mask: Mask, cells: int) -> None:
    before = mask.copy()
    rows, columns = np.indices(mask.shape)
    expected = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        expected |= np.maximum(abs(rows - row), abs(columns - column)) <= cells
    assert (dilate(mask, cells) == expected).all()
    assert (mask == before).all()
