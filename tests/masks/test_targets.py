"""Labels and weights of the objectness network."""

from __future__ import annotations

import numpy as np

from edgekit.masks.pyramid import boxes_to_mask
from edgekit.masks.targets import objectness_targets


def targets(boxes: list[list[float]], ignore: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    return objectness_targets(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(ignore, np.bool_), grid=4, height=64, width=64
    )


def test_labels_are_the_perfect_mask() -> None:
    boxes = [[3, 20, 40, 50], [60, 60, 64, 64]]
    labels, _ = targets(boxes, [False, False])
    np.testing.assert_array_equal(
        labels > 0, boxes_to_mask(np.array(boxes, np.float32), grid=(4, 4), height=64, width=64)
    )


def test_cells_of_small_boxes_weigh_more() -> None:
    _, weights = targets([[0, 0, 16, 16], [32, 32, 64, 64]], [False, False])
    assert weights[0, 0] > weights[2, 2] > weights[1, 0] == 1


def test_barely_touched_cells_weigh_little() -> None:
    labels, weights = targets([[0, 0, 33, 16]], [False])
    assert labels[0, 2] == 1
    assert 0 < weights[0, 2] < 0.5


def test_ignored_boxes_weigh_nothing_unless_an_object_lies_there() -> None:
    labels, weights = targets([[0, 0, 32, 32], [0, 0, 16, 16]], [True, False])
    assert (labels[0, 0], labels[1, 1]) == (1, 0)
    assert weights[1, 1] == 0
    assert weights[0, 0] > 0
    assert weights[3, 3] == 1


def test_no_boxes_is_all_background() -> None:
    labels, weights = targets([], [])
    assert not labels.any()
    assert (weights == 1).all()
