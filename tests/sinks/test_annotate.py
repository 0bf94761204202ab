"""What is drawn: boxes, labels, and darkness where the detector did not look."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.data.letterbox import letterbox
from edgekit.pipeline import Segments
from edgekit.sinks.annotate import ZONE_COLOUR, annotate, shade_background
from edgekit.sinks.colours import class_colour
from edgekit.spec import DetectorSpec
from edgekit.tracking import Track
from edgekit.tracking.zones import Line, Zone, Zones

if TYPE_CHECKING:
    from conftest import MakeFrame, MakeResult


def test_the_picture_itself_is_untouched(spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult) -> None:
    image = make_frame(height=480, width=640).image
    before = image.copy()
    drawn = annotate(image, make_result([[100, 120, 250, 400]]), spec)
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert tuple(drawn[300, 100]) == class_colour(0)  # the left side of the box
    assert (drawn[300, 105:240] == 200).all()  # inside: as bright as it was
    assert (drawn[300, 400:] == 80).all()  # the right half was not looked at


def near(pixel: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    """Thin lines are softened."""
    return bool(np.abs(pixel.astype(int) - colour).max() < 64)


def test_tracks_take_the_place_of_detections(
    spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    image = make_frame(height=480, width=640).image
    shared = {"score": 0.5, "age_s": 1.0}
    tracks = (
        Track(id=7, class_id=0, box_xyxy=(100, 120, 250, 400), seen=True, **shared),
        Track(id=8, class_id=1, box_xyxy=(300, 120, 310, 400), seen=False, **shared),
    )
    drawn = annotate(image, make_result([[20, 300, 60, 450]], tracks=tracks), spec)
    assert tuple(drawn[300, 100]) == class_colour(0)
    assert near(drawn[300, 300], class_colour(1))
    assert (drawn[400, 15:65] == 200).all()  # the detection
    without = annotate(image, make_result([[100, 120, 250, 400]]), spec)
    assert (drawn[90:120, 100:300] != without[90:120, 100:300]).any()  # the label has the number


def test_zones_and_lines(spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult) -> None:
    image = make_frame(height=480, width=640).image
    square = Zone(corners=np.array([[0.1, 0.25], [0.4, 0.25], [0.4, 0.75], [0.1, 0.75]]), name="yard")
    line = Line(name="gate", start=(0.6, 0.0), end=(0.6, 1.0))
    drawn = annotate(image, make_result([]), spec, zones=Zones(zones=(square,), lines=(line,)))
    assert near(drawn[240, 64], ZONE_COLOUR)
    assert near(drawn[240, 383], ZONE_COLOUR)
    assert (drawn[240, 80:240] == 200).all()


def test_square_picture_is_shaded_cell_by_cell(spec: DetectorSpec) -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    mask = np.zeros((4, 4), np.bool_)
    mask[1, 2] = True
    shaded = shade_background(image, mask, spec)
    assert (shaded[16:32, 32:48] == 100).all()
    assert (shaded == 100).all(axis=2).sum() == 16 * 16
    assert (shaded[0, 0] == 40).all()


@given(height=st.integers(1, 200), width=st.integers(1, 200), row=st.integers(0, 3), column=st.integers(0, 3))
def test_shading_agrees_with_the_letterbox(height: int, width: int, row: int, column: int) -> None:
    spec = DetectorSpec(model="m", classes=("a",), height=64, width=64, anchors=(), mask_grid=(4, 4))
    mask = np.zeros((4, 4), np.bool_)
    mask[row, column] = True
    shaded = shade_background(np.full((height, width, 3), 250, np.uint8), mask, spec)
    boxed = letterbox(np.zeros((height, width, 3), np.uint8), height=64, width=64)
    for y, x in ((0, 0), (height // 2, width // 2), (height - 1, width - 1)):
        point = boxed.to_input(np.array([[x + 0.5, y + 0.5, x + 0.5, y + 0.5]], np.float32))[0]
        if (np.abs(point % 16 - 8) > 7.99).any():
            continue  # on the line between two cells either is right
        inside = 16 * column <= point[0] < 16 * column + 16 and 16 * row <= point[1] < 16 * row + 16
        assert (shaded[y, x, 0] == 250) == inside


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (200, 3), (1080, 1920)])
def test_any_size_and_boxes_at_the_edges(
    spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult, height: int, width: int
) -> None:
    boxes = [[0, 0, width, height], [0, 0, 1, 1], [width - 1, height - 1, width, height]]
    drawn = annotate(make_frame(height=height, width=width).image, make_result(boxes, [0, 1, 1]), spec)
    assert drawn.shape == (height, width, 3)


def test_classes_have_bright_and_different_colours() -> None:
    colours = [class_colour(class_id) for class_id in range(20)]
    assert min(max(colour) for colour in colours) == 255
    assert min(sum(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in combinations(colours, 2)) > 25


def test_segments_are_coloured_under_a_legend(
    spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    image = make_frame(height=480, width=640).image
    labels = np.zeros((12, 16), np.uint8)
    labels[:3, 8:], labels[3:6, 8:] = 1, 2  # of 40 pixels a cell
    segments = Segments(
        labels=labels, shares=np.array([0.125, 0.125], np.float32), scores=np.array([0.7, 0.6], np.float32)
    )
    drawn = annotate(image, make_result([[10, 10, 90, 90]], segments=segments), spec)
    assert (drawn[:240, :320] == 200).all()  # neither box nor darkness
    for row, class_id in ((60, 0), (180, 1)):
        mixed = np.round(0.45 * 200 + 0.55 * np.array(class_colour(class_id)))
        assert np.abs(drawn[row, 500].astype(int) - mixed).max() <= 1
        assert (drawn[480 - 40 :, :200].reshape(-1, 3) == class_colour(class_id)).all(axis=1).any()
    none = Segments(labels=np.zeros((1, 1), np.uint8), shares=np.zeros(2, np.float32), scores=np.zeros(2, np.float32))
    assert np.array_equal(annotate(image, make_result([], segments=none), spec), image)
