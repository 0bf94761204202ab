"""Losses: zero where nothing is wrong, finite where everything is."""

from __future__ import annotations

import torch

from edgekit.learning.losses import Truth, detection_loss, giou, objectness_loss
from edgekit.models.anchors import anchor_boxes
from edgekit.models.registry import MODELS

SPEC = MODELS["mobilenetv2-ssdlite-omg"].spec(("a", "b"), 64, 64)
ANCHORS = torch.from_numpy(anchor_boxes(SPEC))
COUNT = len(ANCHORS)


def truth(*, boxes: list[list[float]], kind: list[int]) -> Truth:
    return Truth(
        boxes=torch.tensor(boxes).reshape(1, -1, 4),
        classes=torch.zeros(1, len(kind), dtype=torch.long),
        kind=torch.tensor(kind, dtype=torch.long)[None],
    )


def losses(logits: torch.Tensor, offsets: torch.Tensor, answer: Truth) -> tuple[torch.Tensor, torch.Tensor]:
    active = torch.ones(1, COUNT, dtype=torch.bool)
    return detection_loss(SPEC, logits=logits, offsets=offsets, anchors=ANCHORS, active=active, truth=answer)


def test_giou_of_equal_touching_and_distant_boxes() -> None:
    first = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]])
    second = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [9, 0, 10, 1]])
    torch.testing.assert_close(giou(first, second), torch.tensor([1.0, 1 / 3, -0.8]))


def test_silence_on_an_empty_picture_costs_nothing() -> None:
    classification, box = losses(torch.full((1, COUNT, 2), -30.0), torch.zeros(1, COUNT, 4), truth(boxes=[], kind=[]))
    assert float(classification) < 1e-6
    assert float(box) == 0


def test_wrong_answers_cost_and_have_gradients() -> None:
    logits, offsets = torch.zeros(1, COUNT, 2, requires_grad=True), torch.zeros(1, COUNT, 4, requires_grad=True)
    classification, box = losses(logits, offsets, truth(boxes=[[8, 8, 40, 44]], kind=[1]))
    (classification + box).backward()
    assert classification.item() > 0
    assert box.item() > 0
    assert logits.grad is not None
    assert offsets.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert offsets.grad.any()


def test_enormous_predictions_stay_finite() -> None:
    classification, box = losses(
        torch.full((1, COUNT, 2), 1e4), torch.full((1, COUNT, 4), 1e4), truth(boxes=[[8, 8, 40, 44]], kind=[1])
    )
    assert torch.isfinite(classification + box)


def test_boxes_all_ignored_teach_no_class() -> None:
    _, box = losses(torch.zeros(1, COUNT, 2), torch.zeros(1, COUNT, 4), truth(boxes=[[8, 8, 40, 44]], kind=[-1]))
    assert float(box) == 0


def test_objectness_ignores_cells_of_no_weight() -> None:
    logits, labels = torch.tensor([[[[9.0, -9.0]]]]), torch.tensor([[[[0.0, 0.0]]]])
    assert float(objectness_loss(logits, labels, torch.tensor([[[[0.0, 1.0]]]]))) < 1e-3
    assert float(objectness_loss(logits, labels, torch.tensor([[[[1.0, 0.0]]]]))) > 8
