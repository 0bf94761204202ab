"""Pictures in another size, in every instruction set, against OpenCV and against the definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.data.letterbox import PADDING_VALUE, letterbox
from edgekit.sparse import _native

SIDES = st.integers(1, 40)


def averaged(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """The definition: every pixel as ``height`` x ``width`` equal ones, whose means are taken."""
    fine = image.astype(np.float64).repeat(height, axis=0).repeat(width, axis=1)
    rows, columns = image.shape[:2]
    return fine.reshape(height, rows, width, columns, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("isa", _native.instruction_sets())
@settings(deadline=None)
@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES, seed=st.integers(0, 2**32 - 1))
@example(rows=45, columns=60, height=30, width=40, seed=0)
@example(rows=1, columns=1, height=1, width=1, seed=0)
@example(rows=14, columns=22, height=7, width=11, seed=0)
def test_results_are_means_of_areas(isa: str, rows: int, columns: int, height: int, width: int, seed: int) -> None:
    height, width = min(height, rows), min(width, columns)
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (rows, columns, 3), np.uint8)
    canvas = np.full((height + 2, width + 2, 3), 77, np.uint8)
    _native.resize(image, canvas[1:-1, 1:-1], isa)
    assert np.abs(canvas[1:-1, 1:-1] - averaged(image, height, width)).max() <= 0.5 + 1e-3
    canvas[1:-1, 1:-1] = 77
    assert (canvas == 77).all(), "nothing beside the place is written"


@pytest.mark.parametrize("isa", _native.instruction_sets())
@settings(deadline=None)
@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES, seed=st.integers(0, 2**32 - 1))
@example(rows=1, columns=1, height=9, width=9, seed=0)
def test_what_becomes_larger_is_bilinear(isa: str, rows: int, columns: int, height: int, width: int, seed: int) -> None:
    height = max(height, rows + 1)
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    canvas = np.full((height + 2, width + 2, 3), 77, np.uint8)
    _native.resize(image, canvas[1:-1, 1:-1], isa)
    # As float: OpenCV's own weights for bytes have 11 bits.
    expected = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(canvas[1:-1, 1:-1] - expected).max() <= 0.5 + 1e-3
    canvas[1:-1, 1:-1] = 77
    assert (canvas == 77).all(), "nothing beside the place is written"


@pytest.mark.parametrize(
    ("rows", "columns"), [(360, 480), (375, 500), (720, 1280), (481, 639), (320, 321), (640, 640), (100, 160), (20, 20)]
)
def test_letterbox_agrees_with_opencv(rows: int, columns: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (rows, columns, 3), np.uint8)
    ours = letterbox(image, height=320, width=320)
    width, height = round(columns * ours.scale), round(rows * ours.scale)
    how = cv2.INTER_AREA if ours.scale < 1 else cv2.INTER_LINEAR
    theirs = cv2.resize(image, (width, height), interpolation=how)
    difference = np.abs(ours.image[ours.top : ours.top + height, ours.left : ours.left + width].astype(int) - theirs)
    assert difference.max() <= 1
    # Ties; and what OpenCV interpolates has weights of 11 bits.
    assert (difference > 0).mean() < (0.05 if ours.scale < 1 else 0.3)


def test_a_view_of_a_picture_is_as_good_as_a_copy() -> None:
    image = np.random.default_rng(1).integers(0, 256, (375, 500, 3), np.uint8)
    for view in (image[:, ::-1], image[..., ::-1], image[3:-2, 5:-1]):
        np.testing.assert_array_equal(
            letterbox(view, height=320, width=320).image, letterbox(view.copy(), height=320, width=320).image
        )


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (2, 3), (320, 320), (319, 320), (640, 640), (700, 640)])
def test_odd_pictures(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 9, np.uint8)
    boxed = letterbox(image, height=320, width=320)
    assert set(np.unique(boxed.image)) <= {9, PADDING_VALUE}
    assert (boxed.image == 9).any()


@pytest.mark.parametrize(
    ("image", "place", "says"),
    [
        ((4, 4, 4), (2, 2, 4), "three channels"),
        ((4, 4, 3), (0, 2, 3), "expected"),
        ((65537, 1, 3), (2, 2, 3), "sides of 1 to 65536"),
    ],
)
def test_wrong_shapes_are_refused(image: tuple[int, ...], place: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _native.resize(np.zeros(image, np.uint8), np.zeros(place, np.uint8))


def test_a_place_with_gaps_is_refused() -> None:
    canvas = np.zeros((4, 4, 3), np.uint8)
    for place in (canvas[:, ::2], canvas[..., ::-1], canvas[::-1]):
        with pytest.raises(ValueError, match="side by side"):
            _native.resize(np.zeros((9, 9, 3), np.uint8), place)
