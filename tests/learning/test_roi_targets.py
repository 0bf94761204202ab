"""Which RoIs the head is shown and what it should answer, against loops written from the rules."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.learning.proposal_targets import PictureTruth
from edgekit.learning.roi_targets import RoITargets, roi_targets
from edgekit.models.pvanet_rois import decode

SIDE = 160
TRUTH = PictureTruth(
    boxes=np.array([[20, 20, 60, 70], [80, 30, 150, 90]], np.float32),
    classes=np.array([4, 1]),
    ignored=np.array([[10, 100, 60, 150]], np.float32),
)


def iou(roi: NDArray[np.float32], box: NDArray[np.float32]) -> float:
    """Of a RoI with inclusive corners and a box with exclusive ones."""
    left, top = max(roi[0], box[0]), max(roi[1], box[1])
    right, bottom = min(roi[2] + 1, box[2]), min(roi[3] + 1, box[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = (roi[2] - roi[0] + 1) * (roi[3] - roi[1] + 1) + (box[2] - box[0]) * (box[3] - box[1])
    return float(shared / (areas - shared))


def proposals(seed: int, count: int = 400) -> NDArray[np.float32]:
    """Boxes around those of the truth and the ignored one, and anywhere."""
    rng = np.random.default_rng(seed)
    around = np.concatenate([TRUTH.boxes, TRUTH.ignored])[rng.integers(0, 3, count // 2)]
    near = around + rng.normal(0, 8, around.shape)
    first, second = rng.uniform(0, SIDE - 1, (2, count // 2, 2))
    anywhere = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)
    return np.clip(np.concatenate([near, anywhere]), 0, SIDE - 1).astype(np.float32)


def drawn(
    boxes: NDArray[np.float32], *, count: int = 64, mask: NDArray[np.bool_] | None = None, seed: int = 0
) -> RoITargets:
    return roi_targets(boxes, TRUTH, count=count, mask=mask, height=SIDE, width=SIDE, rng=np.random.default_rng(seed))


def test_rois_are_what_the_rules_say() -> None:
    targets = drawn(proposals(0))
    assert len(targets.rois) == 64
    assert len(targets.deltas) == 16
    for number, (roi, name) in enumerate(zip(targets.rois, targets.classes, strict=True)):
        overlaps = [iou(roi, box) for box in TRUTH.boxes]
        if number < 16:
            owner = int(np.argmax(overlaps))
            assert overlaps[owner] >= 0.5
            assert name == TRUTH.classes[owner] + 1
            reached = decode(roi[None], targets.deltas[number : number + 1] * np.array([0.1, 0.1, 0.2, 0.2]))
            np.testing.assert_allclose(reached[0], TRUTH.boxes[owner], atol=1e-3)
        else:
            assert name == 0
            assert max(overlaps) < 0.5
            assert iou(roi, TRUTH.ignored[0]) < 0.5


def test_everything_that_may_be_shown_is_shown_some_time() -> None:
    boxes = proposals(1)
    candidates = [*boxes, *(TRUTH.boxes - np.array([0, 0, 1, 1], np.float32))]
    positive, negative = set(), set()
    for box in candidates:
        best = max(iou(box, other) for other in TRUTH.boxes)
        if best >= 0.5:
            positive.add(tuple(box.tolist()))
        elif iou(box, TRUTH.ignored[0]) < 0.5:
            negative.add(tuple(box.tolist()))
    seen: dict[int, set[tuple[float, ...]]] = {0: set(), 1: set()}
    for seed in range(80):
        targets = drawn(boxes, seed=seed)
        for box, name in zip(targets.rois.tolist(), targets.classes.tolist(), strict=True):
            seen[min(name, 1)].add(tuple(box))
    assert seen == {0: negative, 1: positive}


def test_too_few_objects_leave_the_rest_to_background_and_too_few_proposals_leave_places_empty() -> None:
    far = np.array([[0, 0, 10, 10], [100, 120, 140, 150], [120, 0, 130, 10]], np.float32)
    targets = drawn(far)
    # The true boxes themselves are always there to learn from.
    np.testing.assert_array_equal(targets.rois[:2], TRUTH.boxes - np.array([0, 0, 1, 1], np.float32))
    assert targets.classes.tolist() == [5, 2, 0, 0, 0]


def test_without_truth_all_is_background() -> None:
    empty = PictureTruth(boxes=np.zeros((0, 4), np.float32), classes=np.zeros(0, np.int64), ignored=TRUTH.ignored[:0])
    targets = roi_targets(
        proposals(2), empty, count=8, mask=None, height=SIDE, width=SIDE, rng=np.random.default_rng(0)
    )
    assert targets.classes.tolist() == [0] * 8
    assert targets.deltas.shape == (0, 4)


@pytest.mark.parametrize("cell", [(2, 2), (3, 7)])
def test_a_true_box_under_the_mask_is_no_roi(cell: tuple[int, int]) -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[cell] = True  # the centre of the first box, or of the second
    targets = drawn(np.zeros((0, 4), np.float32), mask=mask)
    shown = 0 if cell == (2, 2) else 1
    np.testing.assert_array_equal(targets.rois, TRUTH.boxes[shown : shown + 1] - np.array([0, 0, 1, 1], np.float32))
