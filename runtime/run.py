"""Detect objects in whatever comes from a camera, stream, video, folder or the demo: ``edgekit run``.

source -> newest frame -> pipeline -> sinks. Data goes to stdout as JSON lines, everything else to stderr.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.cameras import Source
    from edgekit.pipeline import Pipeline
    from edgekit.sinks import Sink
    from edgekit.sinks.summary import Summary

log = logging.getLogger("edgekit")

SLIDES_PER_S = 2.0
"""Frame rate of a video saved from pictures."""

LIVE_FPS = 15.0
"""Frame rate of a video saved from a live source that does not state its own."""


@click.command(cls=Program)
@click.argument("bundle", required=False)
@click.option("-m", "--model", metavar="BUNDLE", help="The same as the argument BUNDLE.")
@click.option(
    "--source", metavar="URI", help="Camera index, rtsp:// or http:// URL, video, folder, glob, picture, or demo."
)
@click.option("--camera", type=click.IntRange(min=0), metavar="N", help="Camera index; the same as --source N.")
@click.option("--loop", is_flag=True, help="Start again at the end of a video, folder or the demo.")
@click.option(
    "--engine", default="auto", show_default=True,
    help="auto, native, tflite, openvino, onnxruntime, tflite-sparse and so on, or torch.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the bundle's, at most the processors]"
)
@click.option("--mask", default="omg", show_default=True, help="Where to look: omg, off, tracks, FILE.json, a+b, a&b.")
@click.option(
    "--mask-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Keep a mask for up to N frames while nothing moves outside it: for fixed cameras.",
)  # fmt: skip
@click.option(
    "--mask-hold", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Keep a cell active for N more frames: for cameras on which objects flicker.",
)  # fmt: skip
@click.option(
    "--conf", "--threshold", type=click.FloatRange(0, 1), help="Lowest score to report.  [default: as the bundle says]"
)
@click.option("--iou", type=click.FloatRange(0, 1), help="Overlap at which one of two boxes of a class is dropped.")
@click.option("--jsonl", default="-", show_default=True, help="Where JSON lines go: - is stdout; a FILE; off.")
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Annotated video: .mp4, .mkv, .webm or .avi."
)
@click.option("--max-frames", type=click.IntRange(min=1), help="Stop after so many frames.")
def main(
    bundle: str | None,
    model: str | None,
    source: str | None,
    camera: int | None,
    loop: bool,
    engine: str,
    threads: int | None,
    mask: str,
    mask_every: int,
    mask_hold: int,
    conf: float | None,
    iou: float | None,
    jsonl: str,
    save: Path | None,
    max_frames: int | None,
) -> None:
    """Detect objects in every frame of a source with BUNDLE: a bundle, a checkpoint, or `default`.

    \b
    edgekit run --source demo --save demo.mp4
    edgekit run detector.edgekit --camera 0 --jsonl - | jq -c '[.frame, .detections]'
    edgekit run --source 'rtsp://user:password@host/stream' --mask driveway.json --jsonl events.jsonl

    A camera or stream gives its newest frame each time; a video or folder gives every frame. Ctrl-C ends the run and
    completes its files.
    """
    from edgekit.cameras import open_source
    from edgekit.masks.reuse import on_video
    from edgekit.pipeline import open_pipeline
    from edgekit.sinks.summary import Summary

    model_name, source_name = _what_to_run(bundle, model, source, camera)
    _keep_input(source_name, save)
    with ExitStack() as stack:
        stack.enter_context(_ends_once())
        frames = stack.enter_context(open_source(source_name, loop=loop))
        pipeline = open_pipeline(model_name, engine=engine, mask=mask, threads=threads)
        pipeline = pipeline.with_mask(on_video(pipeline.mask_source, every=mask_every, hold=mask_hold))
        if iou is not None:
            pipeline.spec = replace(pipeline.spec, nms_iou=iou)
        log.info("%s on %s, mask %s", model_name, pipeline.engine_name, mask)
        summary = Summary(pipeline.classes)
        stack.callback(lambda: _report(summary, frames))  # runs last but for the source: after the files are complete
        sinks = _open_sinks(stack, pipeline, frames, jsonl=jsonl, save=save)
        for frame in frames:
            result = pipeline.process(frame.image, frame.truth_xyxy, conf)
            summary.write(frame, result)
            for sink in sinks:
                sink.write(frame, result)
            if summary.frames == max_frames:
                break


def _what_to_run(bundle: str | None, model: str | None, source: str | None, camera: int | None) -> tuple[str, str]:
    """The model and the source, from the four ways to say them."""
    from edgekit.cameras import is_source_name
    from edgekit.errors import UsageError

    if bundle is not None and model is not None:
        raise UsageError(f"two models were given, {bundle!r} and {model!r}: leave one out")
    if source is not None and camera is not None:
        raise UsageError(f"two sources were given, --source {source} and --camera {camera}: leave one out")
    model = bundle if bundle is not None else model
    source = str(camera) if camera is not None else source
    if source is None and model is not None and is_source_name(model) and not Path(model).exists():
        model, source = None, model  # `edgekit run demo`
    if source is None:
        raise UsageError(
            "no source was given: where should frames come from?\n"
            "Try: edgekit run --source demo; or --camera 0, or --source FILE, FOLDER or URL"
        )
    return model or "default", source


def _keep_input(source: str, save: Path | None) -> None:
    """Refuse to replace the video that is being read by the annotated one."""
    from edgekit.errors import UsageError

    if save is not None and save.exists() and Path(source).exists() and save.samefile(source):
        raise UsageError(f"--save {save} is the source itself: choose another name")


def _open_sinks(stack: ExitStack, pipeline: Pipeline, source: Source, *, jsonl: str, save: Path | None) -> list[Sink]:
    """The sinks that were asked for; the stack closes them."""
    from edgekit.opencv import require_opencv
    from edgekit.sinks.jsonl import JsonLines
    from edgekit.sinks.status import StatusLine

    sinks: list[Sink] = []

    def add(sink: Sink) -> None:
        stack.callback(sink.close)
        sinks.append(sink)

    if save is not None:
        require_opencv("write a video")
        from edgekit.sinks.video import VideoWriter

        fps = source.fps or (LIVE_FPS if source.live else SLIDES_PER_S)
        add(VideoWriter(save, pipeline.spec, fps=fps, live=source.live))
    if jsonl != "off":
        add(JsonLines(jsonl, pipeline.classes))
    if jsonl != "-" or not sys.stdout.isatty():  # on one terminal the lines and the status would overwrite each other
        add(StatusLine(sys.stderr, pipeline.classes))
    return sinks


def _report(summary: Summary, source: Source) -> None:
    for line in summary.lines(dropped=source.dropped):
        log.info("%s", line)


@contextmanager
def _ends_once() -> Iterator[None]:
    """SIGTERM (143) unwinds the stack as Ctrl-C (130) does, and a second signal does not cut the unwinding short."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def end(number: int, _frame: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        if number == signal.SIGTERM:
            raise SystemExit(128 + number)
        raise KeyboardInterrupt

    before = [signal.signal(one, end) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


if __name__ == "__main__":
    main()
