"""A sink on its own thread: slow, failing and dead ones, and counts that add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.cameras import Frame, open_source
from edgekit.errors import StorageError
from edgekit.pipeline import FrameResult
from edgekit.sinks.faults import Faults
from edgekit.sinks.jsonl import JsonLines
from edgekit.sinks.outbox import Counts
from edgekit.sinks.queued import Queued, close_together
from edgekit.sinks.video import VideoWriter
from edgekit.spec import DetectorSpec

if TYPE_CHECKING:
    from conftest import MakeFrame, MakeResult


class Gate:
    """A sink that writes only while it is open, and then as ``behave`` says."""

    def __init__(self, behave: Callable[[int], None] = lambda _index: None) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.indices: list[int] = []
        self.closed = False
        self._behave = behave

    def write(self, frame: Frame, _result: FrameResult) -> None:
        self.entered.set()
        assert self.open.wait(10)
        self._behave(frame.index)
        self.indices.append(frame.index)

    def close(self) -> None:
        self.closed = True


def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_a_slow_sink_never_slows_the_loop(make_frame: MakeFrame, make_result: MakeResult) -> None:
    gate = Gate()
    queued = Queued(gate, name="gate", capacity=4)
    frames = [make_frame(index) for index in range(20)]
    result = make_result()
    queued.write(frames[0], result)
    assert gate.entered.wait(5)
    start_s = time.perf_counter()
    for frame in frames[1:]:
        queued.write(frame, result)
    assert time.perf_counter() - start_s < 0.1
    assert queued.counts() == Counts(offered=20, dropped=16, waiting=4)
    gate.open.set()
    queued.close()
    assert gate.indices == [0, 17, 18, 19]
    assert gate.closed
    assert queued.counts() == Counts(offered=20, written=4, dropped=16)


def test_files_wait_and_lose_nothing(make_frame: MakeFrame, make_result: MakeResult) -> None:
    gate = Gate(lambda _index: time.sleep(0.002))
    gate.open.set()
    queued = Queued(gate, name="gate", capacity=2, when_full="wait")
    for index in range(50):
        queued.write(make_frame(index), make_result())
    queued.close()
    assert gate.indices == list(range(50))


def test_a_full_disk_stops_that_sink_only(
    make_frame: MakeFrame, make_result: MakeResult, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults()
    full = Queued(JsonLines("/dev/full", ("person", "cat")), name="jsonl", faults=faults)
    other = Gate()
    other.open.set()
    healthy = Queued(other, name="gate", faults=faults, when_full="wait")
    for index in range(10):
        full.write(make_frame(index), make_result())
        healthy.write(make_frame(index), make_result())
        until(lambda: full.stopped)
    close_together([full, healthy])
    assert other.indices == list(range(10))
    assert full.counts() == Counts(offered=10, failed=1, dropped=9)
    assert faults.counts() == {("jsonl", "storage"): 1}
    assert [record.message for record in caplog.records] == [
        "jsonl: writing to /dev/full failed: No space left on device. The lines before are whole."
    ]


def test_the_only_output_ends_the_run(make_frame: MakeFrame, make_result: MakeResult) -> None:
    queued = Queued(JsonLines("/dev/full", ("person", "cat")), name="jsonl", essential=True)
    queued.write(make_frame(), make_result())
    until(lambda: queued.stopped)
    with pytest.raises(StorageError, match="No space left"):
        queued.write(make_frame(), make_result())
    queued.close()


def test_other_errors_are_tried_again(make_frame: MakeFrame, make_result: MakeResult) -> None:
    def behave(index: int) -> None:
        if index in (1, 2):
            raise OSError(5, "Input/output error")

    gate, faults = Gate(behave), Faults()
    gate.open.set()
    queued = Queued(gate, name="gate", faults=faults, when_full="wait")
    for index in range(5):
        queued.write(make_frame(index), make_result())
    until(lambda: queued.counts().waiting == 0)
    queued.close()
    assert gate.indices == [0, 3, 4]
    assert queued.counts() == Counts(offered=5, written=3, failed=2)
    assert faults.counts() == {("gate", "failed"): 2}


def test_a_dead_sink_does_not_hold_up_the_end(make_frame: MakeFrame, make_result: MakeResult) -> None:
    gates = [Gate(), Gate()]
    faults = Faults()
    sinks = [Queued(gate, name="gate", faults=faults) for gate in gates]
    for sink, gate in zip(sinks, gates, strict=True):
        sink.write(make_frame(0), make_result())
        assert gate.entered.wait(5)
        sink.write(make_frame(1), make_result())
    start_s = time.monotonic()
    close_together(sinks, within_s=0.3)
    assert 0.25 < time.monotonic() - start_s < 1.0
    assert [sink.counts() for sink in sinks] == [Counts(offered=2, dropped=1, waiting=1)] * 2
    assert faults.counts() == {("gate", "hangs"): 2}
    for gate in gates:
        gate.open.set()
    until(lambda: all(gate.closed for gate in gates))


def test_an_error_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Unfinished(Gate):
        def close(self) -> None:
            raise StorageError("the video could not be written.\nLikely cause: the disk is full.")

    Queued(Unfinished(), name="video").close()
    assert caplog.messages == ["video: the video could not be written."]
    with pytest.raises(StorageError, match="could not be written"):
        Queued(Unfinished(), name="video", essential=True).close()


def test_a_video_is_complete_after_the_end(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    queued = Queued(VideoWriter(tmp_path / "out.mp4", spec, fps=10), name="video", capacity=50)
    for index in range(20):
        queued.write(make_frame(index), make_result())
    queued.close()
    assert queued.counts() == Counts(offered=20, written=20)
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert len(list(source)) == 20


def test_a_reader_that_goes_away_ends_the_run() -> None:
    program = textwrap.dedent("""
        import numpy as np, os, sys
        from edgekit.cameras import Frame
        from edgekit.detections import Detections
        from edgekit.pipeline import FrameResult
        from edgekit.sinks.jsonl import JsonLines
        from edgekit.sinks.queued import Queued, close_together
        result = FrameResult(detections=Detections.empty(), mask=np.ones((1, 1), bool), active_share=1.0, timings_ms={})
        sink = Queued(JsonLines("-", ()), name="jsonl", when_full="wait")
        try:
            for index in range(100_000):
                sink.write(Frame(image=np.zeros((1, 1, 3), np.uint8), index=index, time_s=0.0, source="x"), result)
        except BrokenPipeError:
            sys.stderr.write("gone")
            sys.stderr.flush()
            os._exit(0)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()
        assert process.stderr.read() == "gone"
    assert os.WEXITSTATUS(process.returncode) == 0


def test_every_kind_of_sink_ends_in_the_same_span_of_time() -> None:
    class Slow(Gate):
        def close(self) -> None:
            time.sleep(0.3)
            super().close()

    class Broken(Gate):
        def close(self) -> None:
            raise StorageError("the video could not be written.")

    slow = [Slow(), Slow(), Slow()]
    start_s = time.monotonic()
    with pytest.raises(StorageError, match="could not be written"):
        close_together([Broken(), *slow, Queued(Slow(), name="slow")])
    assert time.monotonic() - start_s < 0.8
    assert all(sink.closed for sink in slow)
