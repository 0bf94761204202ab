"""The box generator against its rules (SCRL, arXiv 2103.06122, section 3.1), on thousands of random crops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgekit.pretraining import box_generator
from edgekit.pretraining.box_generator import iou, shared_boxes
from edgekit.pretraining.crops import Crop, draw_crop
from edgekit.pretraining.views import cut

SIDE, SMALLEST = 224, 32


def crops(seed: int, *, height: int, width: int) -> tuple[np.random.Generator, Crop, Crop]:
    rng = np.random.default_rng(seed)
    first, second = (draw_crop(rng, height=height, width=width, smallest=0.2) for _ in range(2))
    return rng, first, second


def to_picture(boxes: np.ndarray, crop: Crop) -> np.ndarray:
    """The way back of ``Crop.to_view``, written down on its own."""
    left, top, right, bottom = boxes.T
    if crop.mirrored:
        left, right = SIDE - right, SIDE - left
    along_x, along_y = crop.width / SIDE, crop.height / SIDE
    return np.stack(
        [
            crop.left + left * along_x,
            crop.top + top * along_y,
            crop.left + right * along_x,
            crop.top + bottom * along_y,
        ],
        axis=1,
    )


def extents(first: Crop, second: Crop) -> tuple[float, float]:
    """Width and height of what both crops show, in pixels of the view that magnifies less, along each axis."""
    wide = min(first.right, second.right) - max(first.left, second.left)
    high = min(first.bottom, second.bottom) - max(first.top, second.top)
    return wide * SIDE / max(first.width, second.width), high * SIDE / max(first.height, second.height)


sides = st.integers(40, 640)


@settings(max_examples=300, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 2**32))
def test_boxes_keep_the_rules(height: int, width: int, seed: int) -> None:
    rng, first, second = crops(seed, height=height, width=width)
    boxes = shared_boxes(rng, first, second, side=SIDE)
    wide, high = extents(first, second)
    if int(wide + 1e-9) <= SMALLEST or int(high + 1e-9) <= SMALLEST:
        assert len(boxes[0]) == len(boxes[1]) == 0
        return
    assert boxes[0].shape == boxes[1].shape == (10, 4)
    for group in boxes:
        assert group.min() >= 0
        assert group.max() <= SIDE
    # Both rows of a pair are one place of the picture, which both crops show.
    places = [to_picture(group, crop) for group, crop in zip(boxes, (first, second), strict=True)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-6 * max(height, width))
    # Sides: at least the smallest, at most the intersection's, whole pixels, in the view that magnifies less.
    for axis, crop_side, extent in ((0, "width", wide), (1, "height", high)):
        scale = SIDE / max(getattr(first, crop_side), getattr(second, crop_side))
        lengths = (places[0][:, axis + 2] - places[0][:, axis]) * scale
        assert lengths.min() >= SMALLEST - 1e-6
        assert lengths.max() <= extent + 1e-6
        np.testing.assert_allclose(lengths, lengths.round(), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 2**32))
def test_boxes_of_the_first_view_overlap_by_less_than_a_half(height: int, width: int, seed: int) -> None:
    rng, first, second = crops(seed, height=height, width=width)
    # Where there is room for many boxes, 50 tries always find one.
    wide, high = extents(first, second)
    assume(min(wide, high) > 150)
    boxes, _ = shared_boxes(rng, first, second, side=SIDE)
    overlaps = iou(boxes, boxes)
    assert overlaps[~np.eye(10, dtype=bool)].max() < 0.5


@pytest.mark.parametrize("tries", [1, 2, 50])
def test_at_most_so_many_tries_and_the_last_is_kept(monkeypatch: pytest.MonkeyPatch, tries: int) -> None:
    """In an intersection of 40 by 40 every two boxes overlap by more than a half."""
    asked = []
    draw = box_generator._candidates

    def counted(*arguments: object, **options: int) -> np.ndarray:
        candidates = draw(*arguments, **options)  # type: ignore[arg-type]
        asked.append(candidates)
        return candidates

    monkeypatch.setattr(box_generator, "_candidates", counted)
    crop = Crop(top=0, left=0, height=40, width=40, mirrored=False)
    boxes, _ = shared_boxes(np.random.default_rng(3), crop, crop, side=40, tries=tries)
    assert [len(candidates) for candidates in asked] == [tries] * 10
    assert iou(boxes[1:2], boxes[:1])[0, 0] >= 0.5
    assert boxes[0].tolist() == asked[0][0].tolist(), "the first box is taken at once"
    for box, candidates in zip(boxes[1:], asked[1:], strict=True):
        assert box.tolist() == candidates[-1].tolist()


def test_the_first_candidate_that_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [
        np.array([[0.0, 0, 64, 64], [96, 0, 128, 32]]),
        np.array([[0.0, 0, 64, 70], [128, 128, 192, 192]]),
        np.array([[130.0, 128, 192, 192], [64, 0, 128, 64]]),
    ]
    monkeypatch.setattr(box_generator, "_candidates", lambda *_, **__: drawn.pop(0))
    crop = Crop(top=0, left=0, height=SIDE, width=SIDE, mirrored=False)
    mirrored = Crop(top=0, left=0, height=SIDE, width=SIDE, mirrored=True)
    first, second = shared_boxes(np.random.default_rng(0), crop, mirrored, side=SIDE, count=3, tries=2)
    assert first.tolist() == [[0, 0, 64, 64], [128, 128, 192, 192], [64, 0, 128, 64]]
    assert second.tolist() == [[160, 0, 224, 64], [32, 128, 96, 192], [96, 0, 160, 64]]


def test_an_overlap_of_exactly_a_half_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.array([[0.0, 0, 64, 32], [100, 100, 140, 140]])
    drawn = [np.array([[0.0, 0, 64, 64]] * 2), half]
    monkeypatch.setattr(box_generator, "_candidates", lambda *_, **__: drawn.pop(0))
    crop = Crop(top=0, left=0, height=SIDE, width=SIDE, mirrored=False)
    first, _ = shared_boxes(np.random.default_rng(0), crop, crop, side=SIDE, count=2, tries=2)
    assert first[1].tolist() == [100, 100, 140, 140]


@pytest.mark.parametrize(
    ("second", "count"),
    [
        ({"left": 300}, 0),  # apart
        ({"left": 168}, 0),  # 32 pixels shared: not more than the smallest box
        ({"left": 167}, 10),  # 33
        ({"left": 167, "width": 230}, 0),  # the same 33, but reduced to 32.1 in the view of the larger crop
        ({"top": 192}, 0),
    ],
)
def test_pictures_whose_views_share_too_little_have_no_box(second: dict[str, int], count: int) -> None:
    first = Crop(top=0, left=0, height=200, width=200, mirrored=False)
    other = Crop(**{"top": 0, "left": 0, "height": 200, "width": 200, "mirrored": True, **second})  # type: ignore[arg-type]
    for one, two in ((first, other), (other, first)):
        boxes = shared_boxes(np.random.default_rng(0), one, two, side=200)
        assert [len(group) for group in boxes] == [count, count]


def test_sizes_spread_from_the_smallest_to_the_largest() -> None:
    """Cells are from the whole intersection down to the smallest box, whose sides are then the only ones."""
    crop = Crop(top=0, left=0, height=SIDE, width=SIDE, mirrored=False)
    rng = np.random.default_rng(5)
    boxes = np.concatenate([shared_boxes(rng, crop, crop, side=SIDE, count=1)[0] for _ in range(3000)])
    lengths = boxes[:, 2] - boxes[:, 0]
    assert lengths.min() == SMALLEST
    assert lengths.max() > 215
    # With 1..7 cells, all equally likely, a seventh of the sides comes from 32..224 and a seventh is 32 exactly.
    assert np.mean(lengths == SMALLEST) == pytest.approx(
        1 / 7 + sum(1 / (224 // d - 31) for d in range(1, 7)) / 7, abs=0.03
    )
    assert np.mean(lengths > 112) == pytest.approx((112 / 193) / 7, abs=0.02)
    starts = boxes[:, 0][lengths < 40]
    assert starts.min() < 3
    assert starts.max() > 185


def test_both_boxes_of_a_pair_show_the_same_part_of_the_picture() -> None:
    """In a picture whose colours are its coordinates, through the real resizing and mirroring."""
    height, width = 200, 250
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    picture = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    compared = 0
    for seed in range(12):
        rng, first, second = crops(seed, height=height, width=width)
        views = [cut(picture, crop, side=SIDE) for crop in (first, second)]
        for one, two in zip(*shared_boxes(rng, first, second, side=SIDE), strict=True):
            means = []
            for view, box in zip(views, (one, two), strict=True):
                left, top, right, bottom = box.round().astype(int)
                means.append(view[top:bottom, left:right, :2].reshape(-1, 2).mean(axis=0))
            np.testing.assert_allclose(means[0], means[1], atol=1.5)
            compared += 1
    assert compared > 60


def test_the_same_seed_gives_the_same_boxes() -> None:
    pairs = []
    for _ in range(2):
        rng, first, second = crops(11, height=300, width=300)
        pairs.append(shared_boxes(rng, first, second, side=SIDE))
    assert len(pairs[0][0]) == 10
    for one, two in zip(*pairs, strict=True):
        assert np.array_equal(one, two)
