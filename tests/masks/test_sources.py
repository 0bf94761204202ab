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
from edgekit.masks.pyramid import Mask, picture_cells
from edgekit.masks.reuse import video_mask
from edgekit.masks.sources import MaskInput, MaskSource, parse_mask_source
from edgekit.spec import AnchorLevel, DetectorSpec

SPEC = DetectorSpec(
    model="m",
    classes=("a",),
    height=80,
    width=80,
    anchors=(AnchorLevel(rows=4, columns=4, sizes=((1, 1),)),),
    mask_grid=(4, 4),
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
    tracks: list[list[float]] | None = None,
) -> MaskInput:
    return MaskInput(
        letterboxed=letterbox(np.zeros((height, width, 3), np.uint8), height=80, width=80),
        spec=SPEC,
        objectness=objectness or Objectness(np.zeros((4, 4), np.float32)),
        truth_xyxy=None if truth is None else np.array(truth, np.float32),
        previous=previous,
        tracks=None if tracks is None else np.array(tracks, np.float32).reshape(-1, 4),
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


def test_a_mask_of_regions(tmp_path: Path) -> None:
    left = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    top = [[0, 0], [1, 0], [1, 0.25], [0, 0.25]]
    path = tmp_path / "zones.json"
    path.write_text(json.dumps({"polygons": [left, top], "names": ["left", "the top"]}))
    assert cells(parse(f"roi({path})")(frame())) == ["####", "##..", "##..", "##.."]
    assert cells(parse(f"roi({path}:the top)")(frame())) == ["####", "....", "....", "...."]
    assert cells(parse(f"roi({path}:left) & roi({path}:the top)")(frame())) == ["##..", "....", "....", "...."]


def test_a_region_that_is_drawn_while_the_camera_runs(tmp_path: Path) -> None:
    path = tmp_path / "zones.json"
    path.write_text('{"polygons": []}')
    source = parse(f"roi({path})")
    assert cells(source(frame(height=40))) == ["....", "####", "####", "...."]  # nothing drawn restricts nothing
    polygon_file(tmp_path, [[0, 0], [0.5, 0], [0.5, 1], [0, 1]])
    (tmp_path / "zone.json").replace(path)
    assert cells(source(frame(height=40))) == ["....", "##..", "##..", "...."]
    path.write_text("no JSON")
    assert cells(source(frame(height=40))) == ["....", "##..", "##..", "...."]


def test_a_file_that_is_used_twice_is_complained_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = polygon_file(tmp_path, [[0, 0], [0.5, 0], [0.5, 1], [0, 1]])
    source = video_mask(f"roi({path}) & (motion | roi({path}:zone 1))", SPEC, keyframe_frames=1)
    source(frame())
    Path(path).write_text("no JSON")
    for _ in range(3):
        assert cells(source(frame())) == ["##.."] * 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_parentheses_and_the_precedence_of_both_spellings(tmp_path: Path) -> None:
    zone = polygon_file(tmp_path, [[0, 0], [0.5, 0], [0.5, 1], [0, 1]])
    some = frame(truth=[[21, 21, 59, 39]])
    assert cells(parse(f"(truth | roi({zone})) & truth")(some)) == cells(parse("truth")(some))
    for text in (f"truth | roi({zone}) & truth", f"truth+{zone}&truth", f"truth | (roi({zone}) & truth)"):
        assert cells(parse(text)(some)) == cells(parse("truth")(some))


def test_an_intersection_asks_the_omg_network_last() -> None:
    objectness = Objectness(np.ones((4, 4), np.float32))
    assert not parse("omg & truth")(frame(truth=[], objectness=objectness)).any()
    assert not parse("(omg | off) & truth")(frame(truth=[], objectness=objectness)).any()
    assert objectness.calls == 0


@pytest.mark.parametrize("text", ["motion", "omg & motion | tracks"])
def test_each_camera_has_a_motion_of_its_own(text: str) -> None:
    one, other = parse(text), parse(text)
    plain = frame(objectness=Objectness(np.ones((4, 4), np.float32)))
    assert one(plain).all()  # a first frame
    assert not one(plain).any()
    assert other(plain).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ogm", "no mask source is called 'ogm': did you mean 'omg'"),
        ("absent.json", "absent.json cannot be read: No such file"),
        ("roi(absent.json:door)", "absent.json cannot be read: No such file"),
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


def test_tracks_are_what_is_followed_where_somebody_follows() -> None:
    seen = found([25, 45, 35, 65], 0.9)
    assert cells(parse("tracks")(frame(previous=seen, tracks=[[5, 5, 9, 9]]))) == ["#...", "....", "....", "...."]
    assert not parse("tracks")(frame(previous=seen, tracks=[])).any()
    outside = [[-90, -90, -50, -50], [300, 10, 340, 20]]  # expected to have left the picture
    assert not parse("tracks")(frame(tracks=outside)).any()
