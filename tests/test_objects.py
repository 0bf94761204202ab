"""From a head's outputs to objects: the kernels against the same in numpy, written plainly."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix, nms
from edgekit.data.letterbox import Letterboxed, letterbox
from edgekit.decoding.one_stage import VOTING_SCORE, postprocess, sigmoid
from edgekit.detections import Detections
from edgekit.masks.pyramid import Mask
from edgekit.models.anchors import anchor_boxes, anchor_mask, decode
from edgekit.sparse import _native
from edgekit.spec import DetectorSpec


def plainly(
    spec: DetectorSpec,
    logits: NDArray[np.float32],
    offsets: NDArray[np.float32],
    mask: Mask,
    boxed: Letterboxed,
    threshold: float,
) -> Detections:
    active = anchor_mask(spec, mask)
    scores = sigmoid(logits[0]) * active[:, None]
    boxes = boxed.to_source(decode(spec, anchor_boxes(spec), offsets[0]))
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & active
    anchors, class_ids = np.nonzero(inside[:, None] & np.ones_like(scores, np.bool_))
    boxes, scores = boxes[anchors], scores[anchors, class_ids]
    over = np.flatnonzero(scores >= threshold)
    kept = over[nms(boxes[over], scores[over], class_ids[over], iou=spec.nms_iou, limit=spec.max_detections)]
    found_boxes, found_scores = boxes[kept], scores[kept]
    if spec.vote_iou < 1:
        overlap = iou_matrix(boxes[kept], boxes)
        found_boxes, found_scores = np.zeros((len(kept), 4)), np.zeros(len(kept))
        for position, index in enumerate(kept):
            voters = [
                k
                for k in range(len(scores))
                if k == index
                or (
                    class_ids[k] == class_ids[index]
                    and scores[k] >= VOTING_SCORE
                    and overlap[position, k] >= spec.vote_iou
                )
            ]
            weights = [float(scores[k]) ** 2 * float(overlap[position, k]) for k in voters]
            found_boxes[position] = np.average(boxes[voters], axis=0, weights=weights)
            support = sorted((min(scores[k], scores[index]) for k in voters), reverse=True)[:10]
            found_scores[position] = scores[index] / 2 + sum(support) / 20
    order = np.argsort(-found_scores, kind="stable")
    order = order[found_scores[order] >= threshold]
    return Detections(
        boxes_xyxy=found_boxes[order].astype(np.float32),
        scores=found_scores[order].astype(np.float32),
        class_ids=class_ids[kept[order]],
    )


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    threshold=st.sampled_from([0.01, 0.04, 0.2, 0.5]),
    vote_iou=st.sampled_from([0.2, 0.55, 0.9, 1.0]),
    nms_iou=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    most=st.sampled_from([0, 1, 5, 100]),
    cells=st.floats(0, 1),
)
@example(seed=0, threshold=0.01, vote_iou=0.2, nms_iou=0.3, most=100, cells=1.0)
def test_objects_are_those_of_the_plain_algorithm(
    tiny: ModuleType, seed: int, threshold: float, vote_iou: float, nms_iou: float, most: int, cells: float
) -> None:
    rng = np.random.default_rng(seed)
    spec = replace(tiny.SPEC, vote_iou=vote_iou, nms_iou=nms_iou, max_detections=most)
    height, width = (int(side) for side in rng.integers(20, 200, 2))
    boxed = letterbox(np.zeros((height, width, 3), np.uint8), height=64, width=64)
    anchors = len(anchor_boxes(spec))
    logits = rng.normal(-1, 3, (1, anchors, 2)).astype(np.float32)
    offsets = rng.normal(0, rng.choice([0.5, 5.0]), (1, anchors, 4)).astype(np.float32)
    mask = rng.random((4, 4)) < cells
    got = postprocess(spec, logits, offsets, mask, boxed, threshold)
    expected = plainly(spec, logits, offsets, mask, boxed, threshold)
    # What is on the threshold to within rounding may be on either side of it.
    sure = np.abs(expected.scores - threshold) > 1e-5
    if not sure.all() or len(np.unique(expected.scores.round(5))) < len(expected):
        return
    assert got.class_ids.tolist() == expected.class_ids.tolist()
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(got.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)
    assert (got.boxes_xyxy.dtype, got.scores.dtype, got.class_ids.dtype) == (np.float32, np.float32, np.int64)


def find(boxes: list[list[float]], scores: list[float], class_ids: list[int], **changes: object) -> Detections:
    """The objects among boxes whose sides are at least 1, each an anchor of its own; votes from IoU .6 on."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    anchors = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    logits = np.full((len(scores), 2), -30, np.float32)
    for row, (score, name) in enumerate(zip(scores, class_ids, strict=True)):
        logits[row, name] = np.log(score / (1 - score))
    settings = {
        "coding": (0.1, 0.2, 4.0),
        "letterbox": (0.0, 0.0, 1.0),
        "source": (100.0, 100.0),
        "logit_limits": (-3.0, -3.0),
        "score": 0.05,
        "nms_iou": 0.45,
        "most": 10,
        "votes": True,
        "vote_iou": 0.6,
        "vote_score": 0.05,
        "supporters": 10,
        "own_weight": 0.5,
    } | changes
    found = _native.find_objects(
        logits, np.zeros((len(scores), 4), np.float32), anchors, np.ones(len(scores), np.uint8), **settings
    )
    return Detections(boxes_xyxy=found[0], scores=found[1], class_ids=found[2])


def test_the_voters_of_a_known_box() -> None:
    found = find([[0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 5], [1, 0, 11, 10]], [0.8, 0.4, 0.6, 0.6], [0, 0, 0, 1])
    # The second votes with .4^2 * 10/12 against .8^2; the third overlaps too little, the fourth is of another class.
    bottom = (10 * 0.64 + 12 * 0.16 * 10 / 12) / (0.64 + 0.16 * 10 / 12)
    np.testing.assert_allclose(found.boxes_xyxy[0], [0, 0, 10, bottom], rtol=1e-5)
    np.testing.assert_allclose(
        found.scores,
        [
            0.8 / 2 + (0.8 + 0.4) / 20,
            0.33,
        ],
        rtol=1e-5,
    )
    assert found.class_ids.tolist() == [0, 1]


def test_a_box_with_ten_equal_voters_keeps_its_score() -> None:
    found = find([[2, 2, 8, 9]] * 14, [0.7] * 14, [0] * 14)
    np.testing.assert_allclose(found.boxes_xyxy, [[2, 2, 8, 9]], rtol=1e-5)
    np.testing.assert_allclose(found.scores, [0.7], rtol=1e-5)


def test_a_box_under_the_score_of_voters_votes_for_itself() -> None:
    found = find([[0, 0, 10, 10], [0, 0, 10, 10]], [0.03, 0.02], [0, 0], logit_limits=(-9.0, -9.0), score=0.01)
    np.testing.assert_allclose(found.scores, [0.03 / 2 + 0.03 / 20], rtol=1e-4)
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 10, 10]], rtol=1e-5)


def test_nothing_is_found_in_nothing() -> None:
    found = find([], [], [])
    assert (found.boxes_xyxy.shape, found.scores.shape, found.class_ids.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    ("offsets", "anchors", "active"), [((2, 4), (3, 4), (3,)), ((3, 3), (3, 4), (3,)), ((3, 4), (3, 4), (2,))]
)
def test_shapes_that_do_not_fit_are_refused(
    offsets: tuple[int, int], anchors: tuple[int, int], active: tuple[int]
) -> None:
    settings = {"coding": (1, 1, 1), "letterbox": (0, 0, 1), "source": (9, 9), "logit_limits": (0, 0), "score": 0.1}
    with pytest.raises(ValueError, match="expected logits"):
        _native.find_objects(
            np.zeros((3, 2), np.float32), np.zeros(offsets, np.float32), np.zeros(anchors, np.float32),
            np.zeros(active, np.uint8), **settings, nms_iou=0.5, most=1, votes=False, vote_iou=1, vote_score=0,
            supporters=1, own_weight=1,
        )  # fmt: skip
