"""A camera that is faster than the detector: latency does not grow, and every frame is accounted for."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from edgekit.backends import Tensors
from edgekit.cameras import open_source
from edgekit.live.camera import Camera, Watching
from edgekit.live.feeds import Feeds
from edgekit.pipeline import Pipeline, open_pipeline

FPS = 30.0
INFERENCE_S = 0.2
SECONDS = float(os.environ.get("EDGEKIT_OVERLOAD_S", "12"))
SCHEDULING_S = 0.03
"""What a busy machine may take to wake a thread."""


class Slowed:
    """The detector on a processor of five frames a second."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._engine = pipeline.detector
        self.name, self.takes_pixels = self._engine.name, self._engine.takes_pixels

    def run(self, inputs: Tensors) -> Tensors:
        start_s = time.monotonic()
        outputs = self._engine.run(inputs)
        time.sleep(max(0.0, INFERENCE_S - (time.monotonic() - start_s)))
        return outputs


class Writer(threading.Thread):
    """Thirty grey frames a second into a pipe, until time is up."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self.written = 0
        self.intervals_s: list[float] = []

    def run(self) -> None:
        start_s = last_s = time.monotonic()
        while last_s - start_s < SECONDS:
            os.write(self._fd, bytes([self.written % 256]) * (64 * 48))
            now = time.monotonic()
            self.intervals_s.append(now - last_s)
            last_s = now
            self.written += 1
            time.sleep(max(0.0, start_s + self.written / FPS - time.monotonic()))
        os.close(self._fd)


@pytest.mark.slow
def test_latency_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    read_fd, write_fd = os.pipe()
    pipeline = open_pipeline("default", engine="native", mask="off")
    pipeline.detector = Slowed(pipeline)
    ages_s, took_s, indices, levels = [], [], [], []
    with os.fdopen(read_fd, "rb") as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        source = open_source("stdin://?size=64x48&format=gray&live=yes")
        camera, writer = Camera(None, source, pipeline, Watching(mask="off")), Writer(write_fd)
        with Feeds([(source, camera.prepare)]) as feeds:
            writer.start()
            for _, prepared in feeds:
                start_s, frame = time.monotonic(), prepared.frame
                camera.detect(prepared)
                ages_s.append(frame.age_s)
                took_s.append(time.monotonic() - start_s)
                indices.append(frame.index)
                levels.append(int(frame.image[0, 0, 0]))
            counts, (fed,) = source.counters(), feeds.counters()
        writer.join()

    longest_s = float(np.percentile(took_s, 99)) + float(np.percentile(writer.intervals_s, 99))
    assert np.percentile(ages_s, 99) <= longest_s + SCHEDULING_S
    assert len(ages_s) >= 0.7 * SECONDS / INFERENCE_S
    # Not older at the end than at the start: nothing queues up.
    assert np.median(ages_s[-10:]) <= np.median(ages_s[:10]) + SCHEDULING_S
    assert counts.captured == writer.written
    assert counts.captured == counts.delivered + counts.dropped_newer + counts.dropped_stale + counts.waiting
    assert counts.delivered == fed.read == fed.given == len(ages_s)
    assert indices == sorted(set(indices))
    assert levels == [index % 256 for index in indices]  # each is the frame that it says
