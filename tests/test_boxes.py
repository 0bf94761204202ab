"""Boxes: overlap, clipping and suppression against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.boxes import area, clip_boxes, iou_matrix, nms


def boxes(*rows: tuple[float, float, float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def scattered(rng: np.random.Generator, count: int, *, within: int, shortest: int) -> NDArray[np.float32]:
    """[count, 4] boxes with whole corners and sides of ``shortest`` to 19."""
    corner = rng.integers(0, within, (count, 2))
    return np.concatenate([corner, corner + rng.integers(shortest, 20, (count, 2))], axis=1).astype(np.float32)


def test_iou_of_known_boxes() -> None:
    first = boxes((0, 0, 10, 10), (5, 5, 5, 9))
    second = boxes((0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10), (2, 2, 4, 4))
    np.testing.assert_allclose(iou_matrix(first, second), [[1, 1 / 3, 0, 0.04], [0, 0, 0, 0]], atol=1e-7)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_iou_without_boxes(n: int, m: int) -> None:
    assert iou_matrix(np.zeros((n, 4), np.float32), np.zeros((m, 4), np.float32)).shape == (n, m)


def test_iou_of_two_boxes_without_area_is_zero() -> None:
    assert iou_matrix(boxes((3, 3, 3, 3)), boxes((3, 3, 3, 3))).tolist() == [[0.0]]


def test_area_of_an_inverted_box_is_zero() -> None:
    assert area(boxes((0, 0, 2, 3), (2, 0, 0, 3), (2, 3, 0, 0))).tolist() == [6, 0, 0]


def test_clip() -> None:
    clipped = clip_boxes(boxes((-5, -5, 5, 5), (90, 40, 200, 200), (-9, -9, -1, -1)), height=50, width=100)
    assert clipped.tolist() == [[0, 0, 5, 5], [90, 40, 100, 50], [0, 0, 0, 0]]


def test_nms_is_by_class_and_best_first() -> None:
    same = (0, 0, 10, 10)
    kept = nms(
        boxes(same, same, same, (20, 20, 30, 30)),
        np.array([0.5, 0.9, 0.7, 0.8], np.float32),
        np.array([0, 0, 1, 0]),
        iou=0.5,
        limit=10,
    )
    assert kept.tolist() == [1, 3, 2]


def test_nms_keeps_an_overlap_of_exactly_the_limit() -> None:
    pair = boxes((0, 0, 2, 1), (0, 0, 1, 1))  # iou 1/2
    arguments = (np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64))
    assert len(nms(pair, *arguments, iou=0.5, limit=10)) == 2
    assert len(nms(pair, *arguments, iou=0.49, limit=10)) == 1


def test_nms_of_nothing() -> None:
    assert nms(boxes(), np.zeros(0, np.float32), np.zeros(0, np.int64), iou=0.5, limit=10).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), limit=st.integers(0, 20))
def test_nms_equals_the_plain_algorithm(seed: int, count: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    some = scattered(rng, count, within=30, shortest=0)
    scores = rng.integers(0, 8, count).astype(np.float32) / 8  # many ties
    classes = rng.integers(0, 3, count)

    overlap = iou_matrix(some, some)
    expected: list[int] = []
    for i in sorted(range(count), key=lambda index: -scores[index]):
        if all(classes[i] != classes[j] or overlap[j, i] <= 0.4 for j in expected):
            expected.append(i)
    assert nms(some, scores, classes, iou=0.4, limit=limit).tolist() == expected[:limit]
