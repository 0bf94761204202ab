#!/usr/bin/env python3
"""What a frame costs besides mask and inference: ``scripts/measure_overhead.py``, with sinks and without.

Pictures of 640x480 go through the loop of ``edgekit run`` with each set of sinks in short turns, so that whatever else
the machine does meets all of them. What ``mask`` and ``detector`` took of a frame's time is left out, and the rest is
set against the time of the detector on whole pictures. A frame's time is

* of a clip, which a thread reads ahead: from the end of the frame before until every sink has taken this one;
* of a camera (``--camera``): from its picture, as a driver gives it, until every sink has taken it. Colours are
  converted and the picture is fitted in within that time.

The target is a tenth. Prints JSON; exits 1 if a median is above it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from soak import free_port

from edgekit.cameras import Frame, Source
from edgekit.cameras.demo import DemoCamera
from edgekit.live.camera import Camera, Watching
from edgekit.live.feeds import Feeds
from edgekit.live.memory import steady_memory
from edgekit.live.outputs import Outputs, Wanted
from edgekit.live.watchdog import Watchdog
from edgekit.metrics.layers import FrameMacs
from edgekit.pipeline import Pipeline, open_pipeline, resolve_model
from edgekit.sinks.summary import Summary

TARGET = 0.10
"""Of the detector's time on whole pictures."""

SINKS = {
    "none": (),
    "track": ("track",),
    "jsonl": ("jsonl",),
    "record": ("record",),
    "view": ("view",),
    "all": ("track", "jsonl", "record", "view"),
    "all, watched": ("track", "jsonl", "record", "view", "watcher"),
}
"""Name of a row -> what is on."""


class Replay(Source):
    """The demo's pictures in BGR, as OpenCV gives them, without end.

    Args:
        camera: the pictures come when they are asked for, rather than as fast as they can be read.
        fps: of a camera, pictures a second; 0 is as fast as the loop.
    """

    endless = True

    def __init__(self, pictures: list[NDArray[np.uint8]], *, camera: bool, fps: float) -> None:
        self._pictures, self.live, self._pause_s = pictures, camera, 1 / fps if fps and camera else 0.0

    def frames(self) -> Iterator[Frame]:
        """Without end."""
        for index in count():
            if self._pause_s:
                time.sleep(self._pause_s)
            captured_s = time.monotonic()
            picture = np.asarray(cv2.cvtColor(self._pictures[index % len(self._pictures)], cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(image=picture, index=index, time_s=index / 15, source="replay", captured_s=captured_s)


@dataclass(kw_only=True)
class Run:
    """One set of sinks, and what its frames took."""

    camera: Camera
    frames: Iterator[Any]
    outputs: Outputs
    summary: Summary
    watchdog: Watchdog = field(default_factory=Watchdog)
    whole_ms: list[float] = field(default_factory=list)
    looking_ms: list[float] = field(default_factory=list)
    """Mask and detector."""

    detector_ms: list[float] = field(default_factory=list)
    parts_ms: list[tuple[float, float, float]] = field(default_factory=list)
    """Until the loop has it; what the pipeline takes besides, tracker included; the sinks."""

    def forget(self) -> None:
        """All numbers so far."""
        for numbers in (self.whole_ms, self.looking_ms, self.detector_ms, self.parts_ms):
            numbers.clear()

    def turn(self, frames: int) -> None:
        """So many frames, as ``edgekit run`` has them."""
        end_s = time.monotonic()
        for _, prepared in islice(self.frames, frames):
            frame = prepared.frame
            ready_s = time.monotonic()
            start_s = frame.captured_s if self.camera.source.live else end_s
            result = self.camera.detect(prepared)
            detected_s = time.monotonic()
            self.summary.write(frame, result)
            self.outputs.write(frame, result)
            self.watchdog.pet(age_s=frame.age_s)
            end_s = time.monotonic()
            looking_ms = result.timings_ms["mask"] + result.timings_ms["detector"]
            self.whole_ms.append(1e3 * (end_s - start_s))
            self.looking_ms.append(looking_ms)
            self.detector_ms.append(result.timings_ms["detector"])
            self.parts_ms.append(
                (
                    1e3 * (ready_s - start_s),
                    1e3 * (detected_s - ready_s) - looking_ms,
                    1e3 * (end_s - detected_s),
                )
            )


WATCH = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/picture.mjpg?camera=replay")
answer = connection.getresponse()
while answer.read(1 << 14):
    pass
"""
"""A program that looks at the page's pictures; another process, as a browser is."""


def open_run(stack: ExitStack, on: tuple[str, ...], pipeline: Pipeline, mask: str, source: Source) -> Run:
    """A run with the sinks ``on``, writing into a folder of its own."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgekit-overhead-")))
    port = free_port()
    camera = Camera(None, source, pipeline, Watching(mask=mask, follow="track" in on))
    feeds = Feeds([(source, camera.prepare)])
    wanted = Wanted(
        jsonl=str(folder / "lines.jsonl") if "jsonl" in on else "off",
        record=str(folder / "frames") if "record" in on else None,
        view=f"127.0.0.1:{port}" if "view" in on else None,
    )
    macs = FrameMacs(resolve_model("default"))
    outputs = stack.enter_context(Outputs(wanted, [camera], feeds, pipeline.spec, macs=macs))
    run = Run(
        camera=camera, frames=iter(stack.enter_context(feeds)), outputs=outputs, summary=Summary(pipeline.classes)
    )
    if "watcher" in on:
        run.turn(2)  # there is no picture of a camera that had no frame
        watcher = subprocess.Popen([sys.executable, "-c", WATCH, str(port)])
        stack.callback(watcher.wait)
        stack.callback(watcher.terminate)
    return run


def figures(run: Run, dense_median_ms: float) -> dict[str, Any]:
    """One row."""
    parts = np.array(run.parts_ms)
    over = np.array(run.whole_ms) - run.looking_ms
    names = ("source_ms", "pipeline_ms", "sinks_ms")
    return {
        "whole_ms": round(float(np.median(run.whole_ms)), 3),
        "mask_and_detector_ms": round(float(np.median(run.looking_ms)), 3),
        "overhead_ms": round(float(np.median(over)), 3),
        "overhead_min_ms": round(float(over.min()), 3),
        "overhead_p90_ms": round(float(np.percentile(over, 90)), 3),
        "share_of_dense": round(float(np.median(over)) / dense_median_ms, 3),
        **{name: round(float(value), 3) for name, value in zip(names, np.median(parts, axis=0), strict=True)},
    }


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Turns of each set of sinks.")
@click.option("--frames", default=60, show_default=True, help="Frames a turn.")
@click.option("--camera", is_flag=True, help="A camera instead of a clip.")
@click.option("--fps", default=0.0, show_default=True, help="Of the camera; 0 is as fast as the loop.")
@click.option("--mask", default="omg", show_default=True, help="As of `edgekit run`.")
@click.option("--only", multiple=True, type=click.Choice(list(SINKS)), help="Only these rows.")
def main(rounds: int, frames: int, camera: bool, fps: float, mask: str, only: tuple[str, ...]) -> None:
    """Measure what a frame costs besides mask and inference."""
    pictures = [np.ascontiguousarray(frame.image[..., ::-1]) for frame in DemoCamera()]
    pipeline = open_pipeline("default", threads=1)
    with ExitStack() as stack:
        stack.enter_context(steady_memory())
        # The dense one goes in the same rhythm: a processor that has slept is slow at first.
        dense = open_run(stack, (), pipeline, "off", Replay(pictures, camera=camera, fps=fps))
        runs = {
            name: open_run(stack, SINKS[name], pipeline, mask, Replay(pictures, camera=camera, fps=fps))
            for name in only or SINKS
        }
        for turn in range(rounds):
            for run in (dense, *runs.values()):
                run.turn(frames)
                if turn == 0:  # memory, caches and the recorder's first pictures
                    run.forget()
    dense_median_ms = float(np.median(dense.detector_ms))
    rows = {name: figures(run, dense_median_ms) for name, run in runs.items()}
    setting = {"source": "camera" if camera else "clip", "fps": fps, "mask": mask}
    click.echo(json.dumps({**setting, "dense_ms": round(dense_median_ms, 3), "rows": rows}, indent=1))
    sys.exit(any(row["share_of_dense"] > TARGET for row in rows.values()))


if __name__ == "__main__":
    main()
