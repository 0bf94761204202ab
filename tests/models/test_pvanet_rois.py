"""Anchors, box coding, proposals and RoI pooling against the published tables and plain loops."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix
from edgekit.models import pvanet_head
from edgekit.models.pvanet import FEW_ANCHORS, MANY_ANCHORS
from edgekit.models.pvanet_rois import (
    AnchorShapes,
    all_anchors,
    cell_anchors,
    clip,
    decode,
    encode,
    pool_rois,
    propose,
    roi_edges,
    to_exclusive,
)


@pytest.mark.parametrize(
    ("shapes", "count", "first", "last"),
    [
        (MANY_ANCHORS, 42, [-20, -1, 35, 16], [-136, -424, 151, 439]),
        (FEW_ANCHORS, 25, [-26.5, -10, 41.5, 25], [-168, -344, 183, 359]),
    ],
)
def test_anchors_are_the_published_ones(
    shapes: AnchorShapes, count: int, first: list[float], last: list[float]
) -> None:
    anchors = cell_anchors(shapes)
    assert anchors.shape == (count, 4)
    assert len(shapes) == count
    assert anchors[0].tolist() == first
    assert anchors[-1].tolist() == last


def test_anchor_sides_are_rounded_before_they_are_scaled() -> None:
    sides = cell_anchors(AnchorShapes(ratios=MANY_ANCHORS.ratios, scales=(1,)))
    assert (sides[:, 2:] - sides[:, :2] + 1).tolist() == [
        [28, 9], [23, 12], [20, 13], [16, 16], [13, 20], [11, 22], [9, 27],
    ]  # fmt: skip


def test_anchors_go_by_row_column_and_shape() -> None:
    anchors = all_anchors(FEW_ANCHORS, rows=3, columns=4).reshape(3, 4, 25, 4)
    np.testing.assert_array_equal(anchors[2, 1], cell_anchors(FEW_ANCHORS) + np.array([16, 32, 16, 32]))


def test_coding_has_the_published_plus_one() -> None:
    box = np.array([[10, 20, 29, 59]], np.float32)  # 20 wide, 40 high
    np.testing.assert_allclose(decode(box, np.zeros((1, 4), np.float32)), [[10, 20, 30, 60]])
    shifted = decode(box, np.array([[0.5, -0.25, math.log(2), 0]], np.float32))
    np.testing.assert_allclose(shifted, [[10, 10, 50, 50]], rtol=1e-6)
    assert decode(box, np.zeros((1, 12), np.float32)).shape == (1, 12)
    assert decode(box[:0], np.zeros((0, 8), np.float32)).shape == (0, 8)
    assert np.isfinite(decode(box, np.full((1, 4), 1e4, np.float32))).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_encoding_is_undone_by_decoding(seed: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 500, (2, 5, 2))
    boxes, targets = np.concatenate([corners, corners + generator.uniform(15, 300, (2, 5, 2))], -1).astype(np.float32)
    expected = targets + np.array([0, 0, 1, 1], np.float32)
    np.testing.assert_allclose(decode(boxes, encode(boxes, targets)), expected, atol=1e-2)


def test_clipping_and_the_way_out() -> None:
    boxes = np.array([[-5, -5, 700, 400, 3, 4, 5, 6]], np.float32)
    assert clip(boxes, height=320, width=640).tolist() == [[0, 0, 639, 319, 3, 4, 5, 6]]
    assert to_exclusive(boxes[:, 4:]).tolist() == [[3, 4, 6, 7]]


def slow_proposals(
    scores: NDArray[np.float32], deltas: NDArray[np.float32], *, height: int, width: int, before: int, after: int
) -> tuple[list[list[float]], list[float]]:
    """py-faster-rcnn's steps one anchor at a time."""
    shapes, found = FEW_ANCHORS, []
    for row in range(scores.shape[1]):
        for column in range(scores.shape[2]):
            for number, anchor in enumerate(cell_anchors(shapes).astype(np.float64)):
                left, top, right, bottom = anchor + np.array([column, row, column, row]) * 16
                dx, dy, dw, dh = deltas[4 * number : 4 * number + 4, row, column].astype(np.float64)
                w, h = right - left + 1, bottom - top + 1
                x, y = left + 0.5 * w + dx * w, top + 0.5 * h + dy * h
                w, h = math.exp(dw) * w, math.exp(dh) * h
                box = [x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h]
                box = [min(max(side, 0), limit - 1) for side, limit in zip(box, [width, height] * 2, strict=True)]
                if box[2] - box[0] + 1 < 16 or box[3] - box[1] + 1 < 16:
                    continue
                back, fore = (math.exp(scores[place, row, column]) for place in (number, number + len(shapes)))
                found.append((fore / (back + fore), box))
    found = sorted(found, key=lambda pair: -pair[0])[:before]
    kept: list[tuple[float, list[float]]] = []
    for score, box in found:
        if all(slow_overlap(box, other) <= 0.7 for _, other in kept):
            kept.append((score, box))
    return [box for _, box in kept[:after]], [score for score, _ in kept[:after]]


def slow_overlap(one: list[float], two: list[float]) -> float:
    """Intersection over union with the +1 convention."""
    sides = [min(one[k + 2], two[k + 2]) - max(one[k], two[k]) + 1 for k in (0, 1)]
    if min(sides) <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, two)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


@pytest.mark.parametrize(("before", "after"), [(12000, 200), (60, 10)])
def test_proposals_are_those_of_a_plain_loop(before: int, after: int) -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(50, 4, 6)).astype(np.float32)
    deltas = generator.normal(size=(100, 4, 6), scale=0.3).astype(np.float32)
    boxes, probabilities = propose(scores, deltas, FEW_ANCHORS, height=64, width=96, before=before, after=after)
    expected, chances = slow_proposals(scores, deltas, height=64, width=96, before=before, after=after)
    np.testing.assert_allclose(boxes, expected, atol=1e-3)
    np.testing.assert_allclose(probabilities, chances, rtol=1e-5)
    assert len(boxes) > 5


def test_proposals_obey_the_mask_and_the_smallest_side() -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(50, 8, 8)).astype(np.float32)
    still = np.zeros((100, 8, 8), np.float32)
    mask = np.zeros((8, 8), np.bool_)
    mask[2:4, 5] = True
    boxes, _ = propose(scores, still, FEW_ANCHORS, height=128, width=128, before=12000, mask=mask)
    assert 0 < len(boxes) <= 50
    for box in boxes:  # each comes from an anchor of an active cell
        allowed = np.concatenate([cell_anchors(FEW_ANCHORS) + np.array([80, y, 80, y]) for y in (32, 48)])
        decoded = clip(allowed + np.array([0, 0, 1, 1], np.float32), height=128, width=128)
        assert np.abs(decoded - box).sum(axis=1).min() < 1e-3
    nothing, none = propose(scores, still, FEW_ANCHORS, height=128, width=128, before=12000, mask=~mask & mask)
    assert nothing.shape == (0, 4)
    assert none.shape == (0,)
    # A picture that was enlarged eightfold in x: what is left of its boxes is too narrow.
    wide, _ = propose(scores, still, FEW_ANCHORS, height=128, width=128, before=12000, resized=(8.0, 1.0))
    assert (wide[:, 2] - wide[:, 0] + 1 >= 128).all()
    overlaps = iou_matrix(to_exclusive(boxes), to_exclusive(boxes)) - np.eye(len(boxes))
    assert overlaps.max() <= 0.7


def test_edges_round_halves_away_from_zero() -> None:
    rois = np.array([[8, 24, 40, 56], [-8, -24, 7.9, 8], [100, 100, 20, 20]], np.float32)
    assert roi_edges(rois).tolist() == [[1, 2, 3, 4], [-1, -2, 0, 1], [6, 6, 6, 6]]


def slow_pooling(features: NDArray[np.float32], rois: NDArray[np.float32]) -> NDArray[np.float32]:
    """Caffe's rule, one bin at a time, in float32 as there."""
    channels, rows, columns = features.shape
    pooled = np.zeros((len(rois), channels, 6, 6), np.float32)
    for number, roi in enumerate(rois):
        left, top, right, bottom = (
            int(math.copysign(math.floor(abs(float(side) * 0.0625) + 0.5), side)) for side in roi
        )
        bin_height = np.float32(max(bottom - top + 1, 1)) / np.float32(6)
        bin_width = np.float32(max(right - left + 1, 1)) / np.float32(6)
        for row in range(6):
            for column in range(6):
                y = [int(np.floor(np.float32(row) * bin_height)), int(np.ceil(np.float32(row + 1) * bin_height))]
                x = [int(np.floor(np.float32(column) * bin_width)), int(np.ceil(np.float32(column + 1) * bin_width))]
                y = [min(max(side + top, 0), rows) for side in y]
                x = [min(max(side + left, 0), columns) for side in x]
                if y[1] > y[0] and x[1] > x[0]:
                    pooled[number, :, row, column] = features[:, y[0] : y[1], x[0] : x[1]].max(axis=(1, 2))
    return pooled


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pooling_is_that_of_a_plain_loop(seed: int) -> None:
    """RoIs inside the map, across its edge, outside it, of no width, and upside down."""
    generator = np.random.default_rng(seed)
    rows, columns = generator.integers(1, 20, 2)
    features = generator.normal(size=(3, rows, columns)).astype(np.float32)
    reach = 16 * max(rows, columns)
    rois = np.sort(generator.integers(-reach // 2, 2 * reach, (6, 2, 2)) / 2, axis=1).reshape(6, 4).astype(np.float32)
    rois[0, 2:] = rois[0, :2]
    rois[1] = rois[1, [2, 3, 0, 1]]
    rois[2] = [0, 0, 16 * columns - 1, 16 * rows - 1]
    expected = slow_pooling(features, rois)
    np.testing.assert_array_equal(pool_rois(features, rois), expected)
    ours = pvanet_head.pool_rois(torch.from_numpy(features), torch.from_numpy(rois))
    np.testing.assert_array_equal(ours.numpy(), expected)


def test_pooling_passes_gradients_to_the_maxima() -> None:
    features = torch.arange(16.0).reshape(1, 4, 4).requires_grad_()
    pvanet_head.pool_rois(features, torch.tensor([[0.0, 0.0, 80.0, 80.0]])).sum().backward()
    # Six bins of one cell in each direction, four of which lie on the map.
    assert features.grad is not None
    assert features.grad.tolist() == torch.ones(1, 4, 4).tolist()


def test_a_board_needs_no_pytorch() -> None:
    program = "import sys, edgekit.models.pvanet_rois; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_rois_are_no_features() -> None:
    nothing = np.zeros((0, 4), np.float32)
    assert pool_rois(np.zeros((3, 4, 4), np.float32), nothing).shape == (0, 3, 6, 6)
    assert pvanet_head.pool_rois(torch.zeros(3, 4, 4), torch.from_numpy(nothing)).shape == (0, 3, 6, 6)
