"""Mask sources and the text that names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.errors import UsageError
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource, parse_mask_source, picture_cells
from edgekit.spec import AnchorLevel, DetectorSpec

SPEC = DetectorSpec(
    model="m",
    classes=("a",),
    height=80,
    width=80,
    anchors=(AnchorLevel(rows=4, columns=4, sizes=((1, 1),)),),
    mask_grid=4,
)


class Objectness:
    """Objectness that counts how often it is asked for."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values
        self.calls = 0

    def __call__(self) -> NDArray[np.float32]:
        self.calls += 1
        return self.values


def frame(
    *,
    height: int = 80,
    width: int = 80,
    objectness: Objectness | None = None,
    truth: list[list[float]] | None = None,
    previous: Detections | None = None,
) -> MaskInput:
    return MaskInput(
        letterboxed=letterbox(np.zeros((height, width, 3), np.uint8), height=80, width=80),
        spec=SPEC,
        objectness=objectness or Objectness(np.zeros((4, 4), np.float32)),
        truth_xyxy=None if truth is None else np.array(truth, np.float32),
        previous=previous,
    )


def cells(mask: Mask) -> list[str]:
    return ["".join(".#"[int(cell)] for cell in row) for row in mask]


def parse(text: str) -> MaskSource:
    return parse_mask_source(text, SPEC)


def polygon_file(folder: Path, polygon: list[list[float]]) -> str:
    path = folder / "zone.json"
    path.write_text(json.dumps({"polygons": [polygon]}))
    return str(path)


def test_off_is_everything_even_the_padding() -> None:
    objectness = Objectness(np.zeros((4, 4), np.float32))
    assert cells(parse("off")(frame(height=40, objectness=objectness))) == ["####"] * 4
    assert objectness.calls == 0


def test_omg_takes_cells_that_reach_the_threshold() -> None:
    values = np.full((4, 4), 0.05, np.float32)
    values[1, 2] = SPEC.mask_threshold
    assert cells(parse("omg")(frame(objectness=Objectness(values)))) == ["....", "..#.", "....", "...."]


def test_omg_never_looks_at_padding() -> None:
    wide = frame(height=40, objectness=Objectness(np.ones((4, 4), np.float32)))
    assert cells(parse("omg")(wide)) == ["....", "####", "####", "...."]


def test_omg_is_dilated() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = 1
    grown = DetectorSpec(**{**SPEC.__dict__, "mask_dilation": 1})
    source = frame(objectness=Objectness(values))
    mask = parse("omg")(MaskInput(letterboxed=source.letterboxed, spec=grown, objectness=source.objectness))
    assert cells(mask) == ["##..", "##..", "....", "...."]


def test_truth_is_the_cells_under_the_boxes_of_the_source_picture() -> None:
    wide = frame(height=80, width=160, truth=[[0, 0, 40, 40], [130, 50, 150, 70]])  # scale 1/2, 20 px of bar
    assert cells(parse("truth")(wide)) == ["....", "#...", "...#", "...."]


def test_truth_without_an_object_is_empty() -> None:
    assert not parse("truth")(frame(truth=[])).any()


def test_truth_needs_boxes() -> None:
    with pytest.raises(UsageError, match="'truth' needs ground-truth boxes, and these frames have none"):
        parse("truth")(frame())


def test_a_polygon_follows_the_geometry_of_the_frames(tmp_path: Path) -> None:
    source = parse(polygon_file(tmp_path, [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]))
    assert cells(source(frame())) == ["##.."] * 4
    assert cells(source(frame(height=40))) == ["....", "##..", "##..", "...."]
    assert cells(source(frame())) == ["##.."] * 4


def test_changing_a_polygon_mask_does_not_change_the_next(tmp_path: Path) -> None:
    source = parse(polygon_file(tmp_path, [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]))
    source(frame())[:] = True
    assert cells(source(frame())) == ["##.."] * 4


def test_union_and_intersection(tmp_path: Path) -> None:
    zone = polygon_file(tmp_path, [[0, 0], [0.5, 0], [0.5, 1], [0, 1]])
    some = frame(truth=[[21, 21, 59, 39]])
    assert cells(parse(f"truth+{zone}")(some)) == ["##..", "###.", "##..", "##.."]
    assert cells(parse(f"truth & {zone}")(some)) == ["....", ".#..", "....", "...."]
    assert cells(parse(f"truth+{zone}&truth")(some)) == cells(parse("truth")(some))  # & binds tighter


def test_an_intersection_asks_no_further_once_nothing_is_left() -> None:
    objectness = Objectness(np.ones((4, 4), np.float32))
    assert not parse("truth&omg")(frame(truth=[], objectness=objectness)).any()
    assert objectness.calls == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ogm", "no mask source is called 'ogm': did you mean 'omg'"),
        ("moon", "a polygon file must end in .json"),
        ("omg+", "the mask 'omg\\+' has an empty part"),
        ("", "the mask '' has an empty part"),
        ("omg&&off", "has an empty part"),
        ("absent.json", "absent.json cannot be read: No such file"),
    ],
)
def test_unknown_sources(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_picture_cells_counts_cells_that_straddle_the_edge() -> None:
    assert cells(picture_cells(frame(height=50).letterboxed, SPEC)) == ["####"] * 4
    assert cells(picture_cells(frame(height=20, width=80).letterboxed, SPEC)) == ["....", "####", "####", "...."]


def found(box: list[float], score: float) -> Detections:
    return Detections(
        boxes_xyxy=np.array([box], np.float32), scores=np.array([score], np.float32), class_ids=np.zeros(1, np.int64)
    )


def test_tracks_are_the_cells_around_what_was_found() -> None:
    # Half a cell is 10 pixels: the box reaches from 15 to 45 and from 35 to 75.
    seen = found([25, 45, 35, 65], SPEC.score_threshold)
    assert cells(parse("tracks")(frame(previous=seen))) == ["....", "###.", "###.", "###."]
    # In a picture of half the size, boxes are in its own pixels.
    half = found([12.5, 22.5, 17.5, 32.5], 0.9)
    assert cells(parse("tracks")(frame(height=40, width=40, previous=half))) == ["....", "###.", "###.", "###."]


def test_tracks_leave_padding_out_and_need_a_frame_before() -> None:
    seen = found([0, 0, 80, 40], 0.9)
    assert cells(parse("tracks")(frame(height=40, previous=seen))) == ["....", "####", "####", "...."]
    assert not parse("tracks")(frame()).any()
    assert not parse("tracks")(frame(previous=Detections.empty())).any()


def test_tracks_do_not_follow_what_is_unlikely() -> None:
    assert not parse("tracks")(frame(previous=found([25, 45, 35, 65], SPEC.score_threshold / 2))).any()
