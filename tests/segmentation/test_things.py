"""From maps of labels to things."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2", reason="connected parts are found by OpenCV")

from edgekit.segmentation.things import Thing, find_things


def found(scores: NDArray[np.float32], *, smallest_px: float, join_px: float = 0.0) -> list[Thing]:
    """The things in scores [1 + C, H, W]."""
    labels, confidence = scores.argmax(axis=0).astype(np.uint8), scores.max(axis=0)
    return find_things(labels, confidence, smallest_px=smallest_px, join_px=join_px)


def scores_of(labels: list[str], *, background: float = 0.5, found: float = 0.75) -> NDArray[np.float32]:
    """[3, H, W] from rows of ``.``, ``a`` and ``b``."""
    letters = np.array([list(row) for row in labels])
    a, b = (np.where(letters == letter, found, 0.25) for letter in "ab")
    return np.stack([np.full(letters.shape, background), a, b]).astype(np.float32)


def test_parts_that_touch_at_a_corner_are_one_thing() -> None:
    (thing,) = found(scores_of(["aa..", "aa..", "..a.", "...a"]), smallest_px=1)
    assert (thing.class_id, thing.box_xywh, int(thing.mask.sum())) == (0, (0, 0, 4, 4), 6)


def test_things_of_two_classes_are_apart_and_the_best_comes_first() -> None:
    scores = scores_of(["aab.", "aab.", "....", "...a"])
    scores[2][scores[2] > 0.5] = 0.9
    things = found(scores, smallest_px=1)
    assert [(thing.class_id, thing.box_xywh) for thing in things] == [
        (1, (2, 0, 1, 2)), (0, (0, 0, 2, 2)), (0, (3, 3, 1, 1)),
    ]  # fmt: skip
    assert [thing.score for thing in things] == pytest.approx([0.9, 0.75, 0.75])


def test_the_score_is_the_mean_over_the_things_own_pixels() -> None:
    scores = scores_of(["aaa", "a.a", "aaa"])
    scores[1, 0] = 0.55
    (thing,) = found(scores, smallest_px=2)
    assert thing.score == pytest.approx((3 * 0.55 + 5 * 0.75) / 8)


def test_small_things_are_left_out_and_small_holes_filled() -> None:
    rows = ["aaaaa", "a.a.a", "aaa.a", "aaaaa", ".....", "a...."]
    (thing,) = found(scores_of(rows), smallest_px=2)
    assert thing.box_xywh == (0, 0, 5, 4)
    assert thing.mask[1, 1]  # one pixel
    assert not thing.mask[1, 3]  # two


def test_parts_that_are_near_are_one_thing_without_what_is_between_them() -> None:
    scores = scores_of(["aa..a...a", "aa......a"])
    assert len(found(scores, smallest_px=1)) == 3
    near, far = sorted(found(scores, smallest_px=1, join_px=2), key=lambda thing: thing.left)
    assert (near.box_xywh, int(near.mask.sum())) == ((0, 0, 5, 2), 5)
    assert far.box_xywh == (8, 0, 1, 2)
    assert len(found(scores, smallest_px=3, join_px=2)) == 1


def test_a_bay_is_no_hole() -> None:
    (thing,) = found(scores_of(["aaa", "a.a", "a.a"]), smallest_px=5)
    assert int(thing.mask.sum()) == 7


def test_nothing_exceeds_the_background() -> None:
    assert found(scores_of(["..", "aa"], background=0.8), smallest_px=0) == []
