"""The sinks of a run together."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgekit.cameras import Frame, Source
from edgekit.errors import MissingDependencyError, StorageError, UsageError
from edgekit.live.camera import Camera, Watching
from edgekit.live.feeds import Feeds
from edgekit.live.outputs import WAITING_FRAMES, Outputs, Wanted
from edgekit.pipeline import Pipeline, open_pipeline
from edgekit.sinks import video
from edgekit.sinks.jsonl import JsonLines
from edgekit.sinks.metrics import Metrics


class Pictures(Source):
    """Grey pictures, as fast as they are asked for."""

    def __init__(self, count: int = 5) -> None:
        self._count = count

    def frames(self) -> Iterator[Frame]:
        for index in range(self._count):
            yield Frame(image=np.full((48, 64, 3), 90, np.uint8), index=index, time_s=index / 25, source="grey.mp4")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline("default", engine="native")


@contextmanager
def a_run(pipeline: Pipeline, wanted: Wanted, *names: str | None) -> Iterator[Outputs]:
    """All frames of a camera for each name, through the detector into the sinks."""
    cameras = [Camera(name, Pictures(), pipeline, Watching()) for name in names or [None]]
    with Feeds([(camera.source, camera.prepare) for camera in cameras]) as feeds:
        with Outputs(wanted, cameras, feeds, pipeline.spec) as outputs:
            for index, prepared in feeds:
                outputs.write(prepared.frame, cameras[index].detect(prepared))
        yield outputs


def test_files_are_complete_at_the_end(pipeline: Pipeline, tmp_path: Path) -> None:
    wanted = Wanted(jsonl=str(tmp_path / "a.jsonl"), save=str(tmp_path / "a.mp4"), record=str(tmp_path / "frames"))
    with a_run(pipeline, wanted) as outputs:
        assert outputs.complete
    assert [json.loads(line)["frame"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert list((tmp_path / "frames").glob("*.jpg"))


def test_each_camera_has_a_video_and_a_folder_of_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    wanted = Wanted(
        jsonl=str(tmp_path / "all.jsonl"), save=str(tmp_path / "{camera}.mp4"), record=str(tmp_path / "{camera}")
    )
    with a_run(pipeline, wanted, "gate", "yard") as outputs:
        text = Metrics(outputs.numbers).text().decode()
    for name in ("gate", "yard"):
        assert cv2.VideoCapture(str(tmp_path / f"{name}.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5
        assert list((tmp_path / name).glob("*.jpg"))
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert sorted((line["camera"], line["frame"]) for line in lines) == [
        (name, frame) for name in ("gate", "yard") for frame in range(5)
    ]
    samples = {
        (
            sample.name,
            sample.labels.get("camera"),
            sample.labels.get("outcome"),
            sample.labels.get("sink"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for name in ("gate", "yard"):
        assert samples["edgekit_frames_captured_total", name, None, None] == 5
        assert samples["edgekit_frames_processed_total", name, None, None] == 5
    assert samples["edgekit_sink_items_total", None, "written", "jsonl"] == 10
    assert samples["edgekit_sink_queue_depth", None, None, "jsonl"] == 0


def full_disk(path: Path) -> str:
    if sys.platform != "linux":
        pytest.skip("needs /dev/full")
    path.symlink_to("/dev/full")
    return str(path)


def test_a_full_disk_ends_the_run_if_there_is_no_other_output(pipeline: Pipeline, tmp_path: Path) -> None:
    wanted = Wanted(jsonl=full_disk(tmp_path / "full.jsonl"))
    with pytest.raises(StorageError, match="No space left"), a_run(pipeline, wanted):
        pass


def test_beside_another_output_it_stops_that_one_alone(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = Wanted(jsonl=full_disk(tmp_path / "full.jsonl"), save=str(tmp_path / "a.mp4"))
    with a_run(pipeline, wanted) as outputs:
        assert not outputs.complete
        assert outputs.numbers.faults.counts() == {("jsonl", "storage"): 1}
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert sum("No space left" in record.getMessage() for record in caplog.records) == 1


def test_a_port_in_use_leaves_nothing_behind(pipeline: Pipeline, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = Wanted(save=str(tmp_path / "a.mp4"), jsonl="off", view=str(taken.getsockname()[1]))
        with pytest.raises(UsageError, match="in use"), a_run(pipeline, wanted):
            pass
    assert list(tmp_path.iterdir()) == []


def test_two_runs_on_one_output(pipeline: Pipeline, tmp_path: Path) -> None:
    wanted = Wanted(jsonl=str(tmp_path / "a.jsonl"))
    camera = Camera(None, Pictures(), pipeline, Watching())
    feeds = Feeds([(camera.source, camera.prepare)])
    with (
        Outputs(wanted, [camera], feeds, pipeline.spec),
        pytest.raises(StorageError, match="another run is writing to it"),
        a_run(pipeline, wanted),
    ):
        pass


@pytest.mark.parametrize(("option", "package"), [("view", "view"), ("metrics", "view"), ("mqtt", "mqtt")])
def test_an_extra_that_is_not_installed(
    pipeline: Pipeline, option: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("aiohttp", "paho", "paho.mqtt", "paho.mqtt.client"):
        monkeypatch.setitem(sys.modules, module, None)
    wanted = Wanted(jsonl="off", **{option: "mqtt://localhost" if option == "mqtt" else "0"})
    with pytest.raises(MissingDependencyError, match=rf"edgekit-vision\[{package}\]"), a_run(pipeline, wanted):
        pass


class Loop(Pictures):
    """The same, as ``--loop`` has it."""

    endless = True


def test_only_what_has_no_end_is_saved_in_several_files(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "FRAMES_A_FILE", 2)
    for source in (Pictures(), Loop()):
        camera = Camera(None, source, pipeline, Watching())
        with Feeds([(source, camera.prepare)]) as feeds:
            wanted = Wanted(jsonl="off", save=str(tmp_path / f"{type(source).__name__}.mp4"))
            with Outputs(wanted, [camera], feeds, pipeline.spec) as outputs:
                for _, prepared in feeds:
                    outputs.write(prepared.frame, camera.detect(prepared))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["Loop-2.mp4", "Loop-3.mp4", "Loop.mp4", "Pictures.mp4"]


def test_few_frames_of_a_file_wait_for_a_slow_sink(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(JsonLines, "write", lambda _self, _frame, _result: go_on.wait(30))
    source = Pictures(12)
    camera = Camera(None, source, pipeline, Watching())
    feeds = Feeds([(source, camera.prepare)])
    frames = [(one, camera.detect(camera.prepare(one))) for one in source]
    with Outputs(Wanted(jsonl=str(tmp_path / "a.jsonl")), [camera], feeds, pipeline.spec) as outputs:
        loop = threading.Thread(target=lambda: [outputs.write(*one) for one in frames])
        loop.start()
        loop.join(0.5)
        assert loop.is_alive()
        assert outputs.numbers.queues()["jsonl"].waiting == WAITING_FRAMES
        go_on.set()
        loop.join(10)
    assert outputs.numbers.queues()["jsonl"].written == 12
