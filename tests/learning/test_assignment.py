"""Which anchors learn which boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.learning.assignment import POSITIVES, Targets, assign, pairwise_iou
from edgekit.learning.losses import decode_boxes
from edgekit.learning.one_stage import active_anchors
from edgekit.models.anchors import anchor_boxes, anchor_mask, decode
from edgekit.models.registry import MODELS

SPEC = MODELS["mobilenetv2-ssdlite-omg"].spec(("a", "b"), 320, 320)
ANCHORS = torch.from_numpy(anchor_boxes(SPEC))
COUNT = len(ANCHORS)


def run(
    boxes: list[list[float]],
    classes: list[int],
    kinds: list[int],
    active: Tensor | None = None,
    scores: list[list[float]] | None = None,
) -> Targets:
    predicted = decode_boxes(SPEC, ANCHORS, torch.zeros(1, COUNT, 4))
    return assign(
        scores=torch.full((1, COUNT, 2), 0.1),
        boxes=predicted,
        anchors=ANCHORS,
        active=torch.ones(1, COUNT, dtype=torch.bool) if active is None else active,
        truth_boxes=torch.tensor(boxes).reshape(1, -1, 4),
        truth_classes=torch.tensor(classes)[None],
        truth_kind=torch.tensor(kinds)[None],
        truth_scores=None if scores is None else torch.tensor(scores)[None],
    )


def test_a_box_gets_its_best_anchors_and_the_best_is_asked_for_its_overlap() -> None:
    targets = run([[100, 100, 200, 220]], [1], [1])
    assert 1 <= int(targets.positive.sum()) <= POSITIVES
    best = pairwise_iou(targets.boxes[targets.positive][:1], decode_boxes(SPEC, ANCHORS, torch.zeros(1, COUNT, 4))[0])
    torch.testing.assert_close(targets.scores.max(), best[0, targets.positive[0]].max())
    assert not targets.scores[..., 0].any()
    assert targets.counted.all()


def test_anchors_are_asked_for_the_scores_of_their_box() -> None:
    box = [100.0, 100, 200, 220]
    asked = run([box], [1], [1], scores=[[0.2, 0.6]]).scores
    torch.testing.assert_close(asked, run([box], [1], [1]).scores[..., 1:] * torch.tensor([0.2, 0.6]))


def test_every_box_of_useful_size_finds_an_anchor() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        width, height = (torch.rand(2, generator=generator) * 200 + 16).tolist()
        left, top = (torch.rand(2, generator=generator) * 100).tolist()
        if max(width, height) / min(width, height) < 3:
            assert run([[left, top, left + width, top + height]], [0], [1]).positive.any()


def test_padding_and_no_boxes_assign_nothing() -> None:
    assert not run([[0, 0, 0, 0]], [0], [0]).positive.any()
    assert not run([], [], []).positive.any()


def test_ignored_boxes_are_neither_positive_nor_negative() -> None:
    targets = run([[100, 100, 200, 200]], [0], [-1])
    assert not targets.positive.any()
    assert 0 < int((~targets.counted).sum()) < COUNT / 4


def test_anchors_outside_the_mask_take_no_part() -> None:
    active = torch.zeros(1, COUNT, dtype=torch.bool)
    active[0, ::2] = True
    targets = run([[100, 100, 200, 220]], [0], [1], active)
    assert not targets.positive[0, 1::2].any()
    assert not targets.counted[0, 1::2].any()


def test_an_anchor_wanted_twice_learns_one_box() -> None:
    targets = run([[100, 100, 200, 200], [104, 104, 196, 196]], [0, 1], [1, 1])
    assert (targets.scores.gt(0).sum(dim=-1) <= 1).all()


def test_tensor_versions_equal_the_runtimes() -> None:
    offsets = torch.randn(1, COUNT, 4)
    expected = decode(SPEC, anchor_boxes(SPEC), offsets[0].numpy())
    torch.testing.assert_close(
        decode_boxes(SPEC, ANCHORS, offsets)[0], torch.from_numpy(expected), rtol=1e-4, atol=1e-3
    )
    mask = torch.rand(3, 1, 20, 20) < 0.05
    for row, active in zip(mask, active_anchors(SPEC, mask.float()), strict=True):
        assert torch.equal(active, torch.from_numpy(anchor_mask(SPEC, row[0].numpy())))
