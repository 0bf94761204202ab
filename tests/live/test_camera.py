"""One camera of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.cameras import Frame, Source, open_source
from edgekit.errors import UsageError
from edgekit.live.camera import Camera, Watching, check_one_each, name_sources, of_camera
from edgekit.pipeline import Pipeline, open_pipeline


class Pictures(Source):
    """Grey pictures, one each tenth of a second."""

    def frames(self) -> Iterator[Frame]:
        for index in range(3):
            image = np.full((48, 64, 3), 90, np.uint8)
            yield Frame(image=image, index=index, time_s=index / 10, source="grey.mp4")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline("default", engine="native")


def test_names_of_sources() -> None:
    assert name_sources(["demo"]) == [(None, "demo")]
    assert name_sources(["gate=usb://0"]) == [("gate", "usb://0")]
    assert name_sources(["demo", "yard=rtsp://h/s?a=b"]) == [("camera-1", "demo"), ("yard", "rtsp://h/s?a=b")]
    assert name_sources(["rtsp://h/s?a=b"]) == [(None, "rtsp://h/s?a=b")]
    assert name_sources(["./a=b.mp4", "/x=y"]) == [("camera-1", "./a=b.mp4"), ("camera-2", "/x=y")]
    with pytest.raises(UsageError, match="two sources are called 'a'"):
        name_sources(["a=demo", "a=0"])


def test_what_several_cameras_cannot_share() -> None:
    check_one_each("--save", "out.mp4", 1)
    check_one_each("--save", "{camera}.mp4", 3)
    check_one_each("--save", None, 3)
    with pytest.raises(UsageError, match=r"videos/\{camera\}-out.mp4"):
        check_one_each("--save", "videos/out.mp4", 2)
    with pytest.raises(UsageError, match="empty"):
        check_one_each("--zones", "", 1)
    assert of_camera("{camera}/{camera}.json", "gate") == "gate/gate.json"


def test_frames_get_the_camera_s_name(pipeline: Pipeline) -> None:
    with Pictures() as source:
        camera = Camera("gate", source, pipeline, Watching())
        prepared = camera.prepare(next(source))
        result = camera.detect(prepared)
    assert prepared.frame.camera == "gate"
    assert result.timings_ms["letterbox"] == prepared.letterbox_ms > 0
    assert result.tracks is None
    assert result.events == ()


def test_each_camera_s_mask_has_its_own_memory(pipeline: Pipeline, tmp_path: Path) -> None:
    for name, left in (("a", 0.0), ("b", 0.5)):
        corners = [[left, 0], [left + 0.5, 0], [left + 0.5, 1], [left, 1]]
        (tmp_path / f"{name}.json").write_text(json.dumps({"polygons": [corners]}))
    watching = Watching(mask=f"off & roi({tmp_path}/{{camera}}.json)")
    with Pictures() as source:
        frame = next(source)
        cameras = [Camera(name, source, pipeline, watching) for name in ("a", "b")]
        masks = [camera.detect(camera.prepare(frame)).mask for camera in cameras]
    half = masks[0].shape[1] // 2
    assert masks[0][:, :half].any()
    assert not masks[0][:, half:].any()
    assert masks[1][:, half:].any()
    assert not masks[1][:, :half].any()


def test_following_gives_tracks_and_their_events(pipeline: Pipeline) -> None:
    with open_source("demo") as source:
        camera = Camera(None, source, pipeline, Watching(follow=True))
        results = [camera.detect(camera.prepare(next(source))) for _ in range(20)]
    assert results[-1].tracks
    assert {event.kind for result in results for event in result.events} >= {"enter"}
    least = pipeline.spec.score_threshold
    assert all((result.detections.scores >= least).all() for result in results)


def test_a_score_of_the_user_holds_with_tracks_too(pipeline: Pipeline) -> None:
    with open_source("demo") as source:
        camera = Camera(None, source, pipeline, Watching(follow=True, score=0.8))
        results = [camera.detect(camera.prepare(next(source))) for _ in range(5)]
    assert all((result.detections.scores >= 0.8).all() for result in results)


def test_a_zones_file_that_is_not_there(pipeline: Pipeline, tmp_path: Path) -> None:
    with Pictures() as source, pytest.raises(UsageError, match="cannot be read"):
        Camera(None, source, pipeline, Watching(follow=True, zones=str(tmp_path / "none.json")))


@pytest.mark.parametrize(("mask", "asked"), [("omg", False), ("omg | tracks", True)])
def test_only_a_mask_of_tracks_asks_where_they_are_expected(
    pipeline: Pipeline, mask: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Frame] = []
    with open_source("demo") as source:
        camera = Camera(None, source, pipeline, Watching(follow=True, mask=mask))
        assert camera._follower is not None
        expected = camera._follower.expected
        monkeypatch.setattr(camera._follower, "expected", lambda frame: calls.append(frame) or expected(frame))
        camera.detect(camera.prepare(next(source)))
    assert bool(calls) == asked
