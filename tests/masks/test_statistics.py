"""Mask statistics against counting pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.masks.statistics import active_area_share, active_share, mask_recall

LEFT_HALF = np.array([[True, False], [True, False]])


def boxes(*rows: tuple[float, float, float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_active_share() -> None:
    assert active_share(LEFT_HALF) == 0.5


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 50, 100), 1.0),
        ((50, 0, 100, 100), 0.0),
        ((40, 10, 60, 90), 0.5),
        ((30, 0, 55, 10), 0.8),
        ((-100, 0, 100, 100), 0.5),  # only the part inside the input counts
        ((70, 5, 70, 9), 1.0),  # nothing to lose
        ((200, 200, 300, 300), 1.0),
    ],
)
def test_share_of_a_box(box: tuple[float, float, float, float], share: float) -> None:
    assert active_area_share(boxes(box), LEFT_HALF, 100, 100).tolist() == pytest.approx([share])


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_share_equals_counted_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 4)) < 0.5
    left, top = rng.integers(0, 30, 2)
    right, bottom = rng.integers((left + 1, top + 1), 33)
    pixels = np.kron(mask, np.ones((8, 8)))[top:bottom, left:right]
    assert active_area_share(boxes((left, top, right, bottom)), mask, 32, 32)[0] == pytest.approx(pixels.mean())


def test_recall_counts_boxes_that_keep_their_share() -> None:
    three = boxes((0, 0, 50, 100), (30, 0, 60, 10), (50, 0, 100, 100))  # shares 1, 2/3, 0
    assert mask_recall(three, LEFT_HALF, 100, 100) == pytest.approx(1 / 3)
    assert mask_recall(three, LEFT_HALF, 100, 100, min_share=0.6) == pytest.approx(2 / 3)


def test_recall_without_boxes_is_one() -> None:
    assert mask_recall(boxes(), LEFT_HALF, 100, 100) == 1.0
