"""Boxes: overlap, clipping and suppression against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.boxes import area, clip_boxes, iou_matrix, nms, vote


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


def test_the_voters_of_a_known_box() -> None:
    some = boxes((0, 0, 10, 10), (0, 0, 10, 12), (0, 0, 10, 5), (1, 0, 11, 10))
    scores, classes = np.array([0.8, 0.4, 0.6, 0.6], np.float32), np.array([0, 0, 0, 1])
    voted, voted_scores = vote(some, scores, classes, np.array([0]), iou=0.6, least=0.05)
    # The second votes with .4^2 * 10/12 against .8^2; the third overlaps too little, the fourth is of another class.
    bottom = (10 * 0.64 + 12 * 0.16 * 10 / 12) / (0.64 + 0.16 * 10 / 12)
    np.testing.assert_allclose(voted, [[0, 0, 10, bottom]], rtol=1e-6)
    np.testing.assert_allclose(voted_scores, [0.8 / 2 + (0.8 + 0.4) / 10 / 2], rtol=1e-6)


def test_a_box_with_ten_equal_voters_keeps_its_score() -> None:
    some = np.repeat(boxes((2, 2, 8, 9)), 14, axis=0)
    voted, scores = vote(some, np.full(14, 0.7, np.float32), np.zeros(14, int), np.array([3]), iou=0.5, least=0.05)
    np.testing.assert_allclose(voted, [[2, 2, 8, 9]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.7], rtol=1e-6)


def test_a_box_without_area_stays_where_it_is() -> None:
    line = boxes((3, 3, 3, 9), (3, 3, 3, 9))
    voted, _ = vote(line, np.array([0.5, 0], np.float32), np.zeros(2, int), np.array([0, 1]), iou=0.5, least=0.05)
    np.testing.assert_allclose(voted, line)


def test_no_votes_about_nothing() -> None:
    none = np.zeros(0, np.int64)
    for some in (boxes(), boxes((0, 0, 1, 1))):
        classes = np.zeros(len(some), np.int64)
        voted, scores = vote(some, np.zeros(len(some), np.float32), classes, none, iou=0.5, least=0.05)
        assert voted.shape == (0, 4)
        assert scores.shape == (0,)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), iou=st.floats(0.1, 0.9))
def test_votes_equal_the_plain_algorithm(seed: int, count: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    some = scattered(rng, count, within=12, shortest=1)
    scores = rng.random(count).astype(np.float32)
    classes = rng.integers(0, 2, count)
    kept = nms(some, scores, classes, iou=0.5, limit=10)

    voted, voted_scores = vote(some, scores, classes, kept, iou=iou, least=0.2)
    overlap = iou_matrix(some, some)
    for position, index in enumerate(kept):
        voters = [
            k
            for k in range(count)
            if k == index or (classes[k] == classes[index] and scores[k] >= 0.2 and overlap[index, k] >= iou)
        ]
        weights = [float(scores[k]) ** 2 * float(overlap[index, k]) for k in voters]
        expected = np.average(some[voters], axis=0, weights=weights)
        support = sorted((min(scores[k], scores[index]) for k in voters), reverse=True)[:10]
        np.testing.assert_allclose(voted[position], expected, rtol=1e-4, atol=1e-4)
        assert voted_scores[position] == pytest.approx(scores[index] / 2 + sum(support) / 20, rel=1e-4)
        assert voted_scores[position] <= scores[index] + 1e-6
