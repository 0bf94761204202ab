"""Which anchors learn what, against loops written from the rules."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.learning.proposal_targets import PictureTruth, ProposalTargets, anchors_that_learn, proposal_targets
from edgekit.models.pvanet import FEW_ANCHORS
from edgekit.models.pvanet_rois import AnchorShapes, all_anchors, decode

SHAPES = AnchorShapes(ratios=(0.5, 1, 2), scales=(1, 2, 4))
SIDE, CELLS = 160, 10
ANCHORS = all_anchors(SHAPES, rows=CELLS, columns=CELLS)
LEARNING = anchors_that_learn(SHAPES, rows=CELLS, columns=CELLS, height=SIDE, width=SIDE)
NOTHING = np.zeros((0, 4), np.float32)


def picture(boxes: list[list[float]], ignored: list[list[float]] | None = None) -> PictureTruth:
    return PictureTruth(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.zeros(len(boxes), np.int64),
        ignored=np.array(ignored or [], np.float32).reshape(-1, 4),
    )


def iou(anchor: NDArray[np.float32], box: NDArray[np.float32]) -> float:
    """Of an anchor with inclusive corners and a box with exclusive ones."""
    left, top = max(anchor[0], box[0]), max(anchor[1], box[1])
    right, bottom = min(anchor[2] + 1, box[2]), min(anchor[3] + 1, box[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = (anchor[2] - anchor[0] + 1) * (anchor[3] - anchor[1] + 1) + (box[2] - box[0]) * (box[3] - box[1])
    return float(shared / (areas - shared))


def labels_by_hand(truth: PictureTruth, active: NDArray[np.bool_] | None) -> dict[int, int]:
    """Anchor -> 1 or 0, of all that could be drawn."""
    inside = [
        number
        for number, (left, top, right, bottom) in enumerate(ANCHORS)
        if left >= 0 and top >= 0 and right <= SIDE - 1 and bottom <= SIDE - 1
    ]
    best = {number: max([iou(ANCHORS[number], box) for box in truth.boxes], default=0.0) for number in inside}
    positive = {number for number in inside if best[number] >= 0.7}
    for box in truth.boxes:
        overlaps = {number: iou(ANCHORS[number], box) for number in inside}
        peak = max(overlaps.values())
        positive |= {number for number, overlap in overlaps.items() if overlap > peak - 1e-6 and peak > 0}
    labels = {}
    for number in inside:
        if active is not None and not active[number]:
            continue
        if number in positive:
            labels[number] = 1
        elif best[number] < 0.3 and all(iou(ANCHORS[number], box) < 0.3 for box in truth.ignored):
            labels[number] = 0
    return labels


def drawn(truth: PictureTruth, *, active: NDArray[np.bool_] | None = None, seed: int = 0) -> ProposalTargets:
    return proposal_targets(ANCHORS, truth, learning=LEARNING, active=active, rng=np.random.default_rng(seed))


def everything_drawn(truth: PictureTruth, active: NDArray[np.bool_] | None = None) -> dict[int, int]:
    """Anchor -> label over many draws."""
    labels: dict[int, int] = {}
    for seed in range(60):
        targets = drawn(truth, active=active, seed=seed)
        labels |= dict(zip(targets.anchors.tolist(), targets.labels.tolist(), strict=True))
    return labels


SCENES = {
    "one": picture([[33.0, 30, 66, 61]]),
    "two and a small one": picture([[20.5, 40.5, 80, 70], [90, 90, 150, 158], [4, 4, 11, 10]]),
    "ignored": picture([[20, 40, 52, 72]], [[64, 64, 130, 128]]),
    "only ignored": picture([], [[64, 64, 130, 128]]),
    "empty": picture([]),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("masked", [False, True])
def test_the_anchors_that_learn_are_those_of_the_rules(name: str, masked: bool) -> None:
    truth = SCENES[name]
    active = None
    if masked:
        mask = np.zeros((CELLS, CELLS), np.bool_)
        mask[1:6, 1:5] = True
        active = np.repeat(mask.reshape(-1), len(SHAPES))
    assert everything_drawn(truth, active) == labels_by_hand(truth, active)


def test_deltas_lead_to_the_box_that_overlaps_most() -> None:
    truth = SCENES["two and a small one"]
    targets = drawn(truth)
    assert len(targets.deltas) >= 3
    reached = decode(ANCHORS[targets.anchors[: len(targets.deltas)]], targets.deltas)
    for anchor, box in zip(targets.anchors, reached, strict=False):
        owner = max(truth.boxes, key=lambda candidate: iou(ANCHORS[anchor], candidate))
        # ``decode`` writes the right and lower edge exclusively.
        np.testing.assert_allclose(box, owner, atol=1e-3)


def test_a_picture_full_of_objects_teaches_as_much_background() -> None:
    grid = [[16.0 * x + 0.5, 16.0 * y, 16.0 * x + 16.5, 16.0 * y + 16] for x in range(1, 9) for y in range(9)]
    wide = [[16.0 * x - 8, 16.0 * y - 8, 16.0 * x + 24, 16.0 * y + 24] for x in range(1, 9) for y in range(1, 9)]
    targets = drawn(picture(grid + wide))
    assert (len(targets.deltas), len(targets.anchors)) == (128, 256)
    assert len(set(targets.anchors.tolist())) == 256
    few = drawn(SCENES["one"])
    assert len(few.anchors) == 256
    assert 0 < len(few.deltas) < 128


def test_a_box_is_not_pushed_onto_an_anchor_that_hardly_touches_it() -> None:
    # Its best anchors lie in masked cells; a visible one overlaps it a little.
    mask = np.zeros((CELLS, CELLS), np.bool_)
    mask[3, 7] = True
    targets = drawn(SCENES["one"], active=np.repeat(mask.reshape(-1), len(SHAPES)))
    assert len(targets.deltas) == 0
    assert len(targets.anchors) > 0


def test_the_same_seed_draws_the_same() -> None:
    first, second, other = (drawn(SCENES["one"], seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.anchors, second.anchors)
    assert not np.array_equal(first.anchors, other.anchors)


def test_only_shapes_that_fit_nowhere_learn_across_the_rim() -> None:
    learning = anchors_that_learn(FEW_ANCHORS, rows=10, columns=10, height=160, width=160).reshape(100, -1)
    anchors = all_anchors(FEW_ANCHORS, rows=10, columns=10).reshape(100, -1, 4)
    for shape in range(len(FEW_ANCHORS)):
        inside = [bool((box >= 0).all() and (box <= 159).all()) for box in anchors[:, shape]]
        assert learning[:, shape].tolist() == (inside if any(inside) else [True] * 100)
    published = anchors_that_learn(FEW_ANCHORS, rows=54, columns=90, height=864, width=1440)
    boxes = all_anchors(FEW_ANCHORS, rows=54, columns=90)
    np.testing.assert_array_equal(
        published, (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2] < 1440) & (boxes[:, 3] < 864)
    )
