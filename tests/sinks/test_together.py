"""All sinks at once, dead receivers among them: the loop keeps its pace, nothing grows, and the end comes soon."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.cameras import open_source

pytestmark = pytest.mark.slow

PROGRAM = textwrap.dedent("""
    import json, os, signal, sys, time
    from pathlib import Path
    import numpy as np
    from edgekit.cameras import Frame
    from edgekit.detections import Detections
    from edgekit.pipeline import FrameResult
    from edgekit.sinks.faults import Faults
    from edgekit.sinks.jsonl import JsonLines
    from edgekit.sinks.live import LiveNumbers
    from edgekit.sinks.metrics import Metrics
    from edgekit.sinks.mqtt import Mqtt
    from edgekit.sinks.mqtt_address import parse_mqtt
    from edgekit.sinks.queued import Queued, close_together
    from edgekit.sinks.snapshot import annotated_jpeg
    from edgekit.sinks.video import VideoWriter
    from edgekit.sinks.webhook import Webhook
    from edgekit.spec import DetectorSpec
    from edgekit.tracking import Event
    from edgekit.view.address import parse_address
    from edgekit.view.server import Server

    folder, dead_port, frames, pause_s = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    spec = DetectorSpec(model="tiny", classes=("person",), height=64, width=64, anchors=(), mask_grid=(4, 4))
    faults = Faults()
    numbers = LiveNumbers(spec.classes, faults=faults)
    picture = lambda frame, result: annotated_jpeg(frame.image, result, spec)
    lines = Queued(JsonLines(str(folder / "out.jsonl"), spec.classes), name="jsonl", faults=faults)
    video = Queued(VideoWriter(folder / "out.mp4", spec, fps=15, live=True), name="video", faults=faults)
    broker = Mqtt(parse_mqtt(f"mqtt://127.0.0.1:{dead_port}"), numbers, kept_events=100)
    hook = Webhook(f"http://127.0.0.1:{dead_port}/", spec.classes, kept=20, faults=faults)
    server = Server(parse_address("127.0.0.1:0"), numbers, encode=picture, metrics=Metrics(numbers))
    sinks = [lines, video, broker, hook, server]

    def state():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        rss = pages * os.sysconf("SC_PAGE_SIZE")
        descriptors, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
        return {"rss": rss, "descriptors": descriptors, "threads": threads}

    def end(*_):
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, end)
    mask, timings = np.ones((4, 4), bool), {"total": 5.0}
    result = FrameResult(detections=Detections.empty(), mask=mask, active_share=1.0, timings_ms=timings)
    images = np.random.default_rng(0).integers(0, 256, (4, 240, 320, 3), np.uint8)
    spent, states = [], []
    try:
        for index in range(frames):
            if index == 20:
                print(json.dumps({"port": server.address.port}), flush=True)
            if index and index % (frames // 4) == 0:
                states.append(state())
            frame = Frame(image=images[index % 4], index=index, time_s=time.time(), source="yard")
            event = Event(kind="enter", track_id=index, class_id=0, frame=index, time_s=0.0, source="yard", score=0.5,
                          box_xyxy=(0, 0, 1, 1))
            whole = FrameResult(**{**vars(result), "events": (event,)})
            start = time.perf_counter()
            numbers.write(frame, whole)
            for sink in sinks:
                sink.write(frame, whole)
            spent.append(time.perf_counter() - start)
            time.sleep(pause_s)
    finally:
        close_together(sinks)
        counts = [sink.counts() for sink in (lines, video, broker, hook)]
        sums = [c.offered - c.written - c.dropped - c.failed - c.waiting for c in counts]
        report = {"states": states, "median_s": float(np.median(spent)), "frames": len(spent), "sums": sums}
        print(json.dumps(report), flush=True)
""")


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        yield server.getsockname()[1]


@contextmanager
def run(folder: Path, dead_port: int, *, frames: int, pause_s: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(dead_port), str(frames), str(pause_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["port"]
            yield process
        finally:
            process.kill()


def test_the_end_comes_soon_and_files_are_whole(tmp_path: Path, dead_port: int) -> None:
    with run(tmp_path, dead_port, frames=100_000, pause_s=0.02) as process:
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        start_s = time.monotonic()
        assert process.wait(10) == 143
        assert time.monotonic() - start_s < 2
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
    assert report["sums"] == [0, 0, 0, 0]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(report["frames"]))
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert len(list(source)) > 5


def test_nothing_grows_and_the_loop_keeps_its_pace(tmp_path: Path, dead_port: int) -> None:
    with run(tmp_path, dead_port, frames=6000, pause_s=0.001) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
        assert process.wait(10) == 0
    first, *_, last = report["states"]
    assert last["descriptors"] <= first["descriptors"] + 1  # one more while a connection is tried
    assert last["threads"] <= first["threads"] + 1
    assert last["rss"] - first["rss"] < 5e6
    assert report["median_s"] < 1e-3
    assert report["sums"] == [0, 0, 0, 0]
