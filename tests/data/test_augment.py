"""Augmentation keeps pictures and boxes together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data.augment import (
    Annotated,
    augment,
    crop,
    expand,
    flip,
    mosaic,
    object_free_window,
    photometric,
    sparse_scene,
)

RED = (255, 0, 0)
BACKDROP = np.full((40, 70, 3), (0, 200, 0), np.uint8)


def marked(*, width: int = 120, height: int = 90) -> Annotated:
    """A grey picture with one red rectangle, boxed exactly."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[20:60, 30:90] = RED
    return Annotated(
        image=image,
        boxes_xyxy=np.array([[30, 20, 90, 60]], np.float32),
        class_ids=np.array([4]),
        ignore=np.array([False]),
    )


def red_box(image: np.ndarray) -> list[int]:
    rows, columns = np.nonzero((image == RED).all(axis=2))
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "change",
    [expand, crop, lambda sample, _: flip(sample)],
    ids=["expand", "crop", "flip"],
)
def test_the_box_stays_on_the_object(change, seed: int) -> None:  # type: ignore[no-untyped-def]
    changed = change(marked(), np.random.default_rng(seed))
    np.testing.assert_allclose(changed.boxes_xyxy[0], red_box(changed.image), atol=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 200), st.integers(0, 5))
def test_any_picture_survives(seed: int, width: int, height: int, boxes: int) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [width, height], (boxes, 2, 2)), axis=1).reshape(boxes, 4)
    sample = Annotated(
        image=rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        boxes_xyxy=corners.astype(np.float32),
        class_ids=np.arange(boxes),
        ignore=rng.random(boxes) < 0.3,
    )
    changed = augment(sample, rng, backdrop=lambda _: BACKDROP if seed % 2 else None)
    assert changed.image.dtype == np.uint8
    assert changed.image.ndim == 3
    assert len(changed.boxes_xyxy) == len(changed.class_ids) == len(changed.ignore)
    assert np.isfinite(changed.boxes_xyxy).all()
    limit = np.array([changed.image.shape[1], changed.image.shape[0]] * 2)
    assert (changed.boxes_xyxy >= -1e-3).all()
    assert (changed.boxes_xyxy <= limit + 1e-3).all()


def test_the_same_generator_gives_the_same_sample() -> None:
    first, second = (augment(marked(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes_xyxy, second.boxes_xyxy)


def test_a_box_cut_to_a_sliver_is_ignored_not_background() -> None:
    slivers = 0
    for seed in range(300):
        wide = marked()
        changed = crop(wide, np.random.default_rng(seed))
        area = (changed.boxes_xyxy[:, 2] - changed.boxes_xyxy[:, 0]) * (
            changed.boxes_xyxy[:, 3] - changed.boxes_xyxy[:, 1]
        )
        for size, ignored in zip(area, changed.ignore, strict=True):
            slivers += ignored
            assert ignored or size >= 0.39 * 60 * 40
    assert slivers


def test_photometric_changes_no_shape() -> None:
    image = marked().image
    changed = photometric(image, np.random.default_rng(1))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8


def test_a_sparse_scene_is_the_picture_on_the_backdrop() -> None:
    for seed in range(10):
        sample = marked()
        changed = sparse_scene(sample, np.random.default_rng(seed), BACKDROP)
        assert changed.image.shape == sample.image.shape
        shrink = (changed.boxes_xyxy[:, 2:] - changed.boxes_xyxy[:, :2]) / (
            sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2]
        )
        assert ((shrink > 1 / 6.5) & (shrink < 1 / 1.4)).all()
        on_backdrop = (changed.image == BACKDROP[0, 0]).all(axis=2).mean()
        assert on_backdrop == pytest.approx(1 - shrink[0].prod(), abs=1e-3)
        left, top, right, bottom = np.rint(changed.boxes_xyxy[0]).astype(int)
        inside = changed.image[top + 1 : bottom - 1, left + 1 : right - 1]
        assert (np.abs(inside.astype(int) - RED) < 60).all()


def test_a_small_backdrop_goes_on_mirrored_at_its_own_scale() -> None:
    stripes = np.zeros((20, 20, 3), np.uint8)
    stripes[:, ::4] = 255
    for seed in range(5):
        changed = sparse_scene(marked(), np.random.default_rng(seed), stripes)
        top, bottom = (np.abs(np.diff(changed.image[row, :, 0].astype(int))) > 30 for row in (0, -1))
        edges = np.maximum(top.sum(), bottom.sum())  # one of the two rows is free of the pasted picture
        assert edges > 120 / 1.4 / 4, "stripes enlarged to the canvas would have 5 pairs of edges"


@pytest.mark.parametrize("seed", range(20))
def test_the_window_touches_no_box(seed: int) -> None:
    sample = marked()
    window = object_free_window(sample.image, sample.boxes_xyxy, np.random.default_rng(seed))
    assert window is None or not (window == RED).all(axis=2).any()


def test_some_pictures_have_a_window_and_full_ones_have_none() -> None:
    sample, everything = marked(), np.array([[0, 0, 120, 90]], np.float32)
    found = [object_free_window(sample.image, sample.boxes_xyxy[:0], np.random.default_rng(k)) for k in range(5)]
    assert all(window is not None and min(window.shape[:2]) >= 32 for window in found)
    assert object_free_window(sample.image, everything, np.random.default_rng(0)) is None


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def four_rectangles() -> list[Annotated]:
    parts = []
    for index, colour in enumerate(COLOURS):
        image = np.full((90, 120, 3), 90, np.uint8)
        image[10:80, 10:110] = colour
        box = np.array([[10, 10, 110, 80]], np.float32)
        parts.append(Annotated(image=image, boxes_xyxy=box, class_ids=np.array([index]), ignore=np.array([False])))
    return parts


@pytest.mark.parametrize("seed", range(20))
def test_a_mosaic_shows_four_pictures_with_their_boxes(seed: int) -> None:
    made = mosaic(four_rectangles(), np.random.default_rng(seed))
    height, width = made.image.shape[:2]
    assert height == width
    assert 120 <= width <= 240
    assert len(made.class_ids) >= 2
    for box, class_id, ignored in zip(made.boxes_xyxy, made.class_ids, made.ignore, strict=True):
        rows, columns = np.nonzero((made.image == COLOURS[class_id]).all(axis=2))
        shown = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, shown, atol=1e-3)
        assert ignored == ((box[2] - box[0]) * (box[3] - box[1]) < 0.4 * 100 * 70)


def test_mosaics_are_made_of_other_samples() -> None:
    asked = []

    def another(_: np.random.Generator) -> Annotated:
        asked.append(len(asked))
        return four_rectangles()[len(asked)]

    made = augment(four_rectangles()[0], np.random.default_rng(3), mosaics=1.0, another=another)
    assert asked == [0, 1, 2]
    assert len(set(made.class_ids)) > 1
    augment(four_rectangles()[0], np.random.default_rng(3), mosaics=0.0, another=another)
    assert len(asked) == 3
