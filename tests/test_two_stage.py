"""The steps around a Faster R-CNN's graphs, in compiled kernels: the same as in numpy and as in plain loops."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.backends import engine_problem
from edgekit.boxes import iou_matrix, nms
from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.models.pvanet_rois import (
    STRIDE,
    AnchorShapes,
    cell_anchors,
    clip,
    decode,
    pool_rois,
    propose,
    to_exclusive,
)
from edgekit.two_stage import VOTE_SCORE, find_objects, pool_rows, propose_rows, roi_mask

pytestmark = pytest.mark.skipif(engine_problem("native") is not None, reason="the kernels are not built")

SHAPES = AnchorShapes(ratios=(0.5, 1, 2), scales=(2, 3, 6, 16))
ORIGIN = cell_anchors(SHAPES)
BOXED = letterbox(np.zeros((300, 200, 3), np.uint8), height=96, width=128)
ANCHORS = len(SHAPES)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """[K, H, W] as a row a cell."""
    return np.ascontiguousarray(maps.reshape(len(maps), -1).T)


def random_rois(generator: np.random.Generator, count: int, *, height: int, width: int) -> NDArray[np.float32]:
    corners = np.sort(generator.uniform(0, 1, (count, 2, 2)) * [width - 1, height - 1], axis=1)
    return corners.reshape(count, 4).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_proposals_are_those_of_numpy(seed: int) -> None:
    """The same RoIs in the same order, to the last bit: with ties, masks, resized pictures, NaN and infinities."""
    generator = np.random.default_rng(seed)
    rows, columns = generator.integers(1, 12, 2)
    scores = generator.normal(size=(2 * ANCHORS, rows, columns)).astype(np.float32)
    deltas = generator.normal(size=(4 * ANCHORS, rows, columns), scale=generator.choice([0, 0.3, 2]))
    deltas = deltas.astype(np.float32)
    if generator.random() < 0.3:
        scores = scores.round()  # many equal ones
    if generator.random() < 0.3:
        for values in (scores, deltas):
            values.flat[generator.integers(0, values.size, 20)] = generator.choice([np.nan, np.inf, -np.inf], 20)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = propose(
            scores, deltas, SHAPES,
            **(settings := {
                "height": int(rows) * STRIDE,
                "width": int(columns) * STRIDE,
                "before": int(generator.choice([1, 30, 12000])),
                "after": int(generator.choice([0, 5, 200])),
                "resized": tuple(generator.uniform(0.5, 1.5, 2)),
                "mask": None if generator.random() < 0.5 else generator.random((rows, columns)) < 0.5,
            }),
        )  # fmt: skip
    boxes, chances = propose_rows(rows_of(scores), rows_of(deltas), ORIGIN, **settings)
    np.testing.assert_array_equal(boxes, wanted[0])
    np.testing.assert_allclose(chances, wanted[1], rtol=1e-6)
    assert boxes.shape == (len(chances), 4)
    assert not np.isnan(boxes).any()


def test_proposals_of_a_whole_picture() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(2 * ANCHORS, 40, 66)).astype(np.float32)
    deltas = generator.normal(size=(4 * ANCHORS, 40, 66), scale=0.3).astype(np.float32)
    for after in (200, 2000):
        wanted, _ = propose(scores, deltas, SHAPES, height=640, width=1056, before=12000, after=after)
        found, _ = propose_rows(
            rows_of(scores), rows_of(deltas), ORIGIN, height=640, width=1056, before=12000, after=after
        )
        np.testing.assert_array_equal(found, wanted)
        assert len(found) == after


def test_nothing_to_propose() -> None:
    scores, deltas = np.full((6, 2 * ANCHORS), np.nan, np.float32), np.zeros((6, 4 * ANCHORS), np.float32)
    for logits, mask in ((scores, None), (np.zeros_like(scores), np.zeros((2, 3), np.bool_))):
        boxes, chances = propose_rows(logits, deltas, ORIGIN, height=32, width=48, before=100, mask=mask)
        assert (boxes.shape, chances.shape) == ((0, 4), (0,))
    pooled = pool_rows(np.ones((6, 5), np.float32), boxes, height=32, width=48, places=3)
    assert pooled.shape == (1, 180, 3, 1)
    assert not pooled.any()
    assert not roi_mask(0, places=3).any()
    assert not objects_of(boxes, np.zeros((3, 4)), np.zeros((3, 16)), score_threshold=0)


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_pooling_is_that_of_numpy(seed: int) -> None:
    """RoIs inside the map, across its edge, outside it, of no width, and upside down; any number of channels."""
    generator = np.random.default_rng(seed)
    rows, columns, channels = (int(size) for size in generator.integers(1, [20, 20, 80]))
    features = generator.normal(size=(channels, rows, columns)).astype(np.float32)
    reach = STRIDE * max(rows, columns)
    rois = np.sort(generator.integers(-reach // 2, 2 * reach, (7, 2, 2)) / 2, axis=1).reshape(7, 4).astype(np.float32)
    rois[0, 2:] = rois[0, :2]
    rois[1] = rois[1, [2, 3, 0, 1]]
    rois[2] = [0, 0, STRIDE * columns - 1, STRIDE * rows - 1]
    places = 7 + int(generator.integers(0, 3))
    found = pool_rows(rows_of(features), rois, height=rows * STRIDE, width=columns * STRIDE, places=places)
    assert found.shape == (1, channels * 36, places, 1)
    by_roi = found[0, :, :, 0].T
    assert by_roi.flags.c_contiguous, "what engines of this layout need not copy"
    np.testing.assert_array_equal(by_roi[:7].reshape(7, channels, 6, 6), pool_rois(features, rois))
    assert not by_roi[7:].any()
    assert roi_mask(7, places=places).ravel().tolist() == [1.0] * 7 + [0.0] * (places - 7)


def objects_of(
    rois: NDArray[np.float32], logits: NDArray[np.float32], deltas: NDArray[np.float32], **options: float
) -> Detections:
    """Of a picture of 200 x 300 pixels in an input of 128 x 96."""
    settings = {"height": 96, "width": 128, "letterboxed": BOXED, **options}
    return find_objects(rois, logits.astype(np.float32), deltas.astype(np.float32), **settings)  # type: ignore[arg-type]


def slow_objects(
    rois: NDArray[np.float32],
    logits: NDArray[np.float32],
    deltas: NDArray[np.float32],
    *,
    score_threshold: float,
    vote_iou: float = 0.5,
    most: int = 100,
) -> list[tuple[float, int, list[float]]]:
    """Score, class and box of each object: PVANet.detect's boxes and probabilities, thresholded, suppressed, voted."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    chances = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    boxes = to_exclusive(clip(decode(rois, deltas), height=96, width=128).reshape(len(rois), -1, 4))
    boxes = BOXED.to_source(boxes.reshape(-1, 4)).reshape(boxes.shape)
    objects = []
    for class_id in range(logits.shape[1] - 1):
        mine, scores = boxes[:, class_id + 1], chances[:, class_id + 1]
        some = (scores >= min(score_threshold, VOTE_SCORE)) & (mine[:, 2:] > mine[:, :2]).all(axis=1)
        mine, scores = mine[some], scores[some]
        for index in nms(mine, scores, np.zeros(len(mine), np.int64), iou=0.4, limit=len(mine)):
            voters = iou_matrix(mine[index : index + 1], mine)[0] >= vote_iou
            voters[index] = True
            box = (mine[voters] * scores[voters, None]).sum(axis=0, dtype=np.float64) / scores[voters].sum()
            if scores[index] >= score_threshold:
                objects.append((float(scores[index]), class_id, box.tolist()))
    return sorted(objects, key=lambda item: -item[0])[:most]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_objects_are_those_of_a_plain_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count, classes = (int(size) for size in generator.integers(1, [40, 6]))
    rois = random_rois(generator, count, height=96, width=128)
    rois[count // 2 :] = rois[: count - count // 2] + generator.uniform(-3, 3, (count - count // 2, 4))  # to be dropped
    logits = generator.normal(size=(count, classes + 1), scale=3).astype(np.float32)
    deltas = generator.normal(size=(count, 4 * (classes + 1)), scale=0.2).astype(np.float32)
    options = {
        "score_threshold": float(generator.choice([0, 0.005, 0.01, 0.3])),
        "most": int(generator.choice([3, 100])),
    }
    wanted = slow_objects(rois, logits, deltas, **options)  # type: ignore[arg-type]
    found = objects_of(rois, logits, deltas, **options)
    assert found.class_ids.tolist() == [class_id for _, class_id, _ in wanted]
    np.testing.assert_allclose(found.scores, [score for score, _, _ in wanted], rtol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy.reshape(-1), [side for *_, box in wanted for side in box], atol=1e-3)
    assert found.boxes_xyxy.dtype == np.float32


def test_without_a_vote_boxes_stay() -> None:
    generator = np.random.default_rng(3)
    rois = random_rois(generator, 1, height=96, width=128)[[0, 0]] + np.float32([[0], [1]])
    logits = np.array([[0, 3], [0, 2.5]], np.float32)
    deltas = np.zeros((2, 8), np.float32)
    alone = objects_of(rois, logits, deltas, score_threshold=0.1, vote_iou=1)
    voted = objects_of(rois, logits, deltas, score_threshold=0.1)
    assert len(alone) == len(voted) == 1
    assert alone.scores == voted.scores
    assert (voted.boxes_xyxy > alone.boxes_xyxy).any()
    inside = to_exclusive(clip(decode(rois[:1], deltas[:1, 4:]), height=96, width=128))
    np.testing.assert_allclose(alone.boxes_xyxy, BOXED.to_source(inside), rtol=1e-5)


def test_numbers_that_are_none_are_no_objects() -> None:
    rois = np.array([[0, 0, 50, 50], [10, 10, 90, 90], [5, 5, 60, 60], [0, 0, np.inf, np.nan]], np.float32)
    logits = np.array([[0, np.nan, 9], [0, np.inf, 9], [0, 9, 0], [0, 0, 9]], np.float32)
    deltas = np.zeros((4, 12), np.float32)
    deltas[2, 8] = np.nan  # of the class that it is not
    found = objects_of(rois, logits, deltas, score_threshold=0.1)
    assert found.class_ids.tolist() == [0]
    deltas[2, 6] = np.inf  # of the width: as large as the picture
    (box,) = objects_of(rois, logits, deltas, score_threshold=0.1).boxes_xyxy
    assert box[[0, 2]].tolist() == [0, 200]


def test_shapes_that_do_not_fit() -> None:
    scores, deltas = np.zeros((6, 2 * ANCHORS), np.float32), np.zeros((6, 4 * ANCHORS), np.float32)
    options = {"height": 32, "width": 48, "before": 10}
    for logits, corrections in ((scores[:5], deltas[:5]), (scores, deltas[:5]), (scores[:, 1:], deltas)):
        with pytest.raises(ValueError, match=r"expected logits \[rows \* columns, 2A\]"):
            propose_rows(logits, corrections, ORIGIN, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a flag for each cell"):
        propose_rows(scores, deltas, ORIGIN, **options, mask=np.ones((2, 2), np.bool_))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="before >= 0 and after of 0 to"):
        propose_rows(scores, deltas, ORIGIN, **{**options, "before": -1})  # type: ignore[arg-type]
    features, rois = np.zeros((6, 3), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match=r"expected features \[rows \* columns, C\]"):
        pool_rows(features[:5], rois, height=32, width=48, places=2)
    with pytest.raises(ValueError, match="and places for as many"):
        pool_rows(features, rois, height=32, width=48, places=1)
    for bad in (np.nan, np.inf, -1e9):
        with pytest.raises(ValueError, match="expected corners of rois within"):
            pool_rows(features, np.full((1, 4), bad, np.float32), height=32, width=48, places=1)
    with pytest.raises(ValueError, match=r"expected rois \[R, 4\], logits \[R, K \+ 1\]"):
        objects_of(rois, np.zeros((2, 3)), np.zeros((2, 11)), score_threshold=0.1)
    with pytest.raises(ValueError, match="sides of 1 to"):
        objects_of(rois, np.zeros((2, 3)), np.zeros((2, 12)), score_threshold=0.1, height=0)


def test_a_board_needs_no_pytorch() -> None:
    program = "import sys, edgekit.two_stage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
