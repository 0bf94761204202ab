"""Opinions of a teacher: who speaks about a box, and what is asked for at it."""

from __future__ import annotations

import pytest
import torch

from edgekit.learning.losses import Truth
from edgekit.learning.opinions import FAINTEST, class_opinions, columns_of
from edgekit.models.yolox import COCO_CLASSES, View

BOX = [10.0, 10, 50, 50]
CLASSES = ("chair", "sofa", "unicorn")
COLUMNS = columns_of(CLASSES, ("person", "chair", "couch"))


def view(*predictions: tuple[list[float], list[float]]) -> View:
    """Predictions of (box, scores of person, chair, couch)."""
    boxes, scores = zip(*predictions, strict=True)
    return View([], torch.tensor([boxes]), torch.tensor([scores]))


def truth(*classes: int, box: list[float] | None = None) -> Truth:
    return Truth(
        boxes=torch.tensor([[box or BOX] * len(classes)]),
        classes=torch.tensor([classes]),
        kind=torch.ones(1, len(classes), dtype=torch.long),
    )


def opinion(seen: View, weight: float = 0.5, of: int = 0) -> list[float]:
    values: list[float] = class_opinions(seen, truth(of), COLUMNS, weight=weight)[0, 0].tolist()
    return values


def test_classes_are_found_under_their_coco_names() -> None:
    assert COLUMNS == [1, 2, None]
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert columns_of(("tvmonitor", "person"), COCO_CLASSES) == [62, 0]


def test_label_and_opinion_are_mixed() -> None:
    assert opinion(view((BOX, [0.0, 0.6, 0.2]))) == pytest.approx([0.8, 0.1, 0])
    assert opinion(view((BOX, [0.0, 0.6, 0.2])), weight=0) == [1, 0, 0]


def test_the_prediction_surest_of_the_boxes_class_speaks() -> None:
    """A person on the sofa has the same place, and is not what the sofa looks like."""
    seen = view((BOX, [0.9, 0.3, 0.1]), (BOX, [0.0, 0.1, 0.7]), ([200.0, 200, 240, 240], [0.0, 0.0, 1.0]))
    assert opinion(seen, weight=1, of=1) == pytest.approx([0.1, 0.7, 0])


def test_what_the_teacher_overlooks_is_half_sure() -> None:
    assert opinion(view(([200.0, 200, 240, 240], [0.0, 0.9, 0.9]))) == [0.5, 0, 0]
    assert opinion(view((BOX, [0.0, FAINTEST / 2, FAINTEST / 2]))) == [0.5, 0, 0]


def test_a_class_that_the_teacher_does_not_know_keeps_its_label() -> None:
    assert opinion(view((BOX, [0.0, 0.9, 0.9])), weight=1, of=2) == [0, 0, 1]


def test_no_boxes_no_opinions() -> None:
    nobody = Truth(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long))
    assert class_opinions(view((BOX, [0.0, 0.9, 0.9])), nobody, COLUMNS, weight=0.5).shape == (1, 0, 3)
