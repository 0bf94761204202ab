"""Matching: held against every assignment there is, with costs written out in loops."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch

from edgekit.errors import CheckpointError, DataError
from edgekit.learning.detr_matching import Costs, Target, corners, focal, match, pair_costs
from edgekit.models.detr_output import HeadOutput


def random_head(seed: int, *, pictures: int, predictions: int, classes: int) -> HeadOutput:
    generator = torch.Generator().manual_seed(seed)
    return HeadOutput(
        logits=torch.randn(pictures, predictions, classes, generator=generator) * 2,
        boxes=torch.rand(pictures, predictions, 4, generator=generator) * 0.5 + 0.2,
    )


def random_target(seed: int, *, objects: int, classes: int) -> Target:
    generator = torch.Generator().manual_seed(seed)
    return Target(
        labels=torch.randint(classes, (objects,), generator=generator),
        boxes=torch.rand(objects, 4, generator=generator) * 0.5 + 0.2,
    )


def slow_giou(first: list[float], second: list[float]) -> float:
    """Of boxes given by centre and size."""
    a, b = ((x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (first, second))
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(0.0, width) * max(0.0, height)
    union = first[2] * first[3] + second[2] * second[3] - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return overlap / union - (hull - union) / hull


def slow_cost(logits: list[float], box: list[float], label: int, wanted: list[float]) -> float:
    score = 1 / (1 + math.exp(-logits[label]))
    right = 0.25 * (1 - score) ** 2 * -math.log(score)
    wrong = 0.75 * score**2 * -math.log(1 - score)
    distance = sum(abs(a - b) for a, b in zip(box, wanted, strict=True))
    return 2 * (right - wrong) + 5 * distance - 2 * slow_giou(box, wanted)


def test_costs_are_those_of_the_recipe() -> None:
    head, target = random_head(1, pictures=1, predictions=6, classes=3), random_target(2, objects=4, classes=3)
    wanted = [
        [
            slow_cost(logits, box, label, wanted)
            for label, wanted in zip(target.labels.tolist(), target.boxes.tolist(), strict=True)
        ]
        for logits, box in zip(head.logits[0].tolist(), head.boxes[0].tolist(), strict=True)
    ]
    torch.testing.assert_close(pair_costs(head.logits[0], head.boxes[0], target), torch.tensor(wanted))


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_is_cheaper(seed: int) -> None:
    head = random_head(seed, pictures=3, predictions=5, classes=2)
    targets = [random_target(seed + 10 * objects, objects=objects, classes=2) for objects in (3, 0, 4)]
    pairs = match(head, targets)
    assert pairs.pictures.tolist() == [0] * 3 + [2] * 4
    for picture, target in enumerate(targets):
        mine = pairs.pictures == picture
        costs = pair_costs(head.logits[picture], head.boxes[picture], target)
        least = min(
            sum(float(costs[row, column]) for column, row in enumerate(rows))
            for rows in itertools.permutations(range(5), len(target.labels))
        )
        columns = [
            int(torch.nonzero((target.boxes == box).all(1) & (target.labels == label)))
            for box, label in zip(pairs.boxes[mine], pairs.labels[mine], strict=True)
        ]
        rows = pairs.predictions[mine].tolist()
        assert len(set(rows)) == len(set(columns)) == len(target.labels)
        assert sum(float(costs[row, column]) for row, column in zip(rows, columns, strict=True)) == pytest.approx(least)


def test_more_objects_than_predictions_match_the_predictions_there_are() -> None:
    pairs = match(random_head(3, pictures=1, predictions=2, classes=2), [random_target(4, objects=5, classes=2)])
    assert pairs.predictions.tolist() == [0, 1]


def test_a_batch_without_objects_has_no_pairs() -> None:
    pairs = match(random_head(5, pictures=2, predictions=3, classes=2), [random_target(6, objects=0, classes=2)] * 2)
    assert [tuple(value.shape) for value in (pairs.pictures, pairs.labels, pairs.boxes)] == [(0,), (0,), (0, 4)]
    assert pairs.predictions.dtype == pairs.labels.dtype == torch.int64


def test_the_weights_of_the_costs_decide() -> None:
    """One prediction has the class, the other the place."""
    head = HeadOutput(
        logits=torch.tensor([[[5.0], [-5.0]]]), boxes=torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.2, 0.2]]])
    )
    target = Target(labels=torch.tensor([0]), boxes=torch.tensor([[0.7, 0.7, 0.2, 0.2]]))
    assert match(head, [target], costs=Costs(box=0, giou=0)).predictions.tolist() == [0]
    assert match(head, [target], costs=Costs(classification=0)).predictions.tolist() == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_predictions_that_are_not_finite_say_that_training_diverged(value: float) -> None:
    target = random_target(7, objects=2, classes=2)
    for part in ("logits", "boxes"):
        head = random_head(8, pictures=1, predictions=3, classes=2)
        getattr(head, part)[0, 1] = value
        with pytest.raises(CheckpointError, match="training diverged"):
            match(head, [target])


def test_objects_that_are_not_finite_are_the_data_s_fault() -> None:
    target = random_target(7, objects=2, classes=2)
    target.boxes[1, 2] = math.nan
    with pytest.raises(DataError, match="not finite"):
        match(random_head(8, pictures=1, predictions=3, classes=2), [target])


def test_enormous_logits_still_match_and_half_precision_is_matched_in_float32() -> None:
    head = random_head(9, pictures=1, predictions=4, classes=2)
    target = random_target(10, objects=2, classes=2)
    enormous = HeadOutput(logits=head.logits * 1e4, boxes=head.boxes)
    half = HeadOutput(logits=head.logits.bfloat16(), boxes=head.boxes.bfloat16())
    assert len(match(enormous, [target]).predictions) == 2
    assert pair_costs(half.logits[0], half.boxes[0], target).dtype == torch.float32


def test_tiny_boxes_overlap_themselves_entirely() -> None:
    """A tenth of a pixel of a picture of a thousand."""
    box = torch.tensor([[0.5, 0.5, 1e-4, 1e-4]])
    target = Target(labels=torch.tensor([0]), boxes=box)
    cost = pair_costs(torch.zeros(1, 1), box, target, costs=Costs(classification=0))
    assert float(cost) == pytest.approx(-2, abs=1e-3)


def test_focal_loss_and_corners_by_hand() -> None:
    found = focal(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    assert found.tolist() == pytest.approx([0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)])
    assert corners(torch.tensor([0.5, 0.4, 0.2, 0.6])).tolist() == pytest.approx([0.4, 0.1, 0.6, 0.7])


def test_without_scipy() -> None:
    program = (
        "import sys; sys.modules['scipy'] = sys.modules['scipy.optimize'] = None\n"
        "import torch\n"
        "from edgekit.errors import MissingDependencyError\n"
        "from edgekit.learning.detr_matching import match\n"
        "from edgekit.models.detr_output import HeadOutput\n"
        "try: match(HeadOutput(logits=torch.zeros(0, 1, 1), boxes=torch.zeros(0, 1, 4)), [])\n"
        "except MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "scipy is needed to match" in done.stdout
    assert 'pip install "edgekit-vision[train]"' in done.stdout
