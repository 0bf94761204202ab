"""Detect objects in whatever comes from cameras, streams, videos, folders or the demo: ``edgekit run``.

sources -> newest frames -> pipeline -> tracks -> sinks. Data goes to stdout as JSON lines, everything else to stderr.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import Attempts, Program, Share

if TYPE_CHECKING:
    from edgekit.live.feeds import Feeds
    from edgekit.sinks.summary import Summary

log = logging.getLogger("edgekit")


@click.command(cls=Program)
@click.argument("bundle", required=False)
@click.option("-m", "--model", metavar="BUNDLE", help="The same as the argument BUNDLE.")
@click.option(
    "--source", "sources", metavar="[NAME=]URI", multiple=True,
    help="usb://0, csi://0, rtsp:// or http:// URL, stdin://, video, folder, glob, picture, or demo. May be repeated.",
)  # fmt: skip
@click.option("--camera", type=click.IntRange(min=0), metavar="N", help="USB camera; the same as --source usb://N.")
@click.option("--loop", is_flag=True, help="Start again at the end of a video, folder or the demo.")
@click.option(
    "--retries", type=Attempts(), metavar="N|forever",
    help="Attempts to open a camera or stream, then exit 4.  [default: at the start none, forever afterwards]",
)  # fmt: skip
@click.option("--max-age-ms", type=click.FloatRange(0, min_open=True), help="Drop a camera's frames that are older.")
@click.option(
    "--engine", default="auto", show_default=True,
    help="auto, native, tflite, openvino, onnxruntime, tflite-sparse and so on, or torch.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the bundle's, at most the processors]"
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FILE",
    help="What a segmenter looks for instead of its bundle's own; `edgekit prompts` makes such files.",
)  # fmt: skip
@click.option(
    "--mask", default="omg", show_default=True,
    help="Where to look: omg, off, motion, tracks, roi(ZONES.json), tcl(WORDS.edgekit), and a|b, a&b, (a) of them.",
)  # fmt: skip
@click.option(
    "--mask-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Keep a mask for up to N frames while nothing moves outside it: for fixed cameras.",
)  # fmt: skip
@click.option(
    "--mask-hold", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Keep a cell active for N more frames: for cameras on which objects flicker.",
)  # fmt: skip
@click.option(
    "--keyframe", "keyframe_s", type=click.FloatRange(0, min_open=True), metavar="S",
    help="Look at the whole every S seconds, sooner where that finds what the mask missed: for motion and tracks.",
)  # fmt: skip
@click.option(
    "--budget", type=Share(), metavar="SHARE",
    help="Most cells to look at, 0.3 or 30%: the likeliest are kept. Convolutions and tokens obey it alike.",
)  # fmt: skip
@click.option("--track/--no-track", "follow", default=None, help="Follow objects.  [default: if anything needs it]")
@click.option("--zones", metavar="FILE.json", help="Zones and lines whose events are wanted; --view draws in it.")
@click.option("--dwell", "dwell_s", type=float, default=10.0, show_default=True, metavar="S", help="Long in a zone.")
@click.option(
    "--conf", "--threshold", type=click.FloatRange(0, 1), help="Lowest score to report.  [default: as the bundle says]"
)
@click.option("--iou", type=click.FloatRange(0, 1), help="Overlap at which one of two boxes of a class is dropped.")
@click.option("--jsonl", default="-", show_default=True, help="Where JSON lines go: - is stdout; a FILE; off.")
@click.option("--save", metavar="FILE", help="Annotated video: .mp4, .mkv, .webm or .avi.")
@click.option("--record", metavar="DIR", help="Keep raw frames: to train or calibrate with.")
@click.option("--record-every", "record_every_s", type=float, metavar="S", help="Every S seconds, besides on motion.")
@click.option("--record-mb", type=float, default=1000.0, show_default=True, help="The oldest make room for new ones.")
@click.option("--view", metavar="[HOST:]PORT", help="Browser page with the picture, charts and an editor of zones.")
@click.option("--metrics", metavar="[HOST:]PORT", help="/metrics for Prometheus, and /healthz; the page has both too.")
@click.option("--mqtt", metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT][/PREFIX]; password: EDGEKIT_MQTT_PASSWORD.")
@click.option("--mqtt-ca", type=click.Path(path_type=Path), metavar="FILE", help="Certificates for mqtts://.")
@click.option("--webhook", metavar="URL", help="Where events are posted; signed if EDGEKIT_WEBHOOK_KEY is set.")
@click.option("--max-frames", type=click.IntRange(min=1), help="Stop after so many frames.")
def main(
    bundle: str | None, model: str | None, sources: tuple[str, ...], camera: int | None, loop: bool,
    retries: float | None, max_age_ms: float | None, engine: str, threads: int | None, prompts: Path | None,
    conf: float | None, iou: float | None, max_frames: int | None, **settings: Any,
) -> int:  # fmt: skip
    """Detect objects in every frame of a source with BUNDLE: a bundle, a checkpoint, or `default`.

    \b
    edgekit run --source demo --save demo.mp4
    edgekit run detector.edgekit --camera 0 --jsonl - | jq -c '[.frame, .detections]'
    edgekit run --source 'rtsp://user:password@host/stream' --mask 'motion | tracks' --keyframe 2 --view 8080
    edgekit run words.edgekit --camera 0 --prompts others.json --view 8080
    edgekit run --source gate=usb://0 --source yard=rtsp://host/stream --zones '{camera}.json' --mqtt mqtt://broker

    Of a bundle that segments by words, the connected parts of masks are what is found. A camera or stream gives its
    newest frame each time, a video or folder every frame. Ctrl-C ends the run and completes its files. {camera} in the
    name of a file is the name of the camera.
    """
    from edgekit.blas import one_blas_thread

    one_blas_thread()
    from edgekit.cameras import open_source
    from edgekit.errors import UsageError
    from edgekit.live.camera import Camera, Watching, check_one_each, name_sources
    from edgekit.live.feeds import Feeds
    from edgekit.live.looking import open_looking
    from edgekit.live.memory import steady_memory
    from edgekit.live.outputs import Outputs, Wanted, check_not_read
    from edgekit.live.watchdog import Watchdog
    from edgekit.pipeline import Pipeline
    from edgekit.sinks.summary import Summary

    model_name, texts = _what_to_run(bundle, model, sources, camera)
    named = name_sources(texts)
    max_age_s = None if max_age_ms is None else max_age_ms / 1e3
    wanted = Wanted(**{field.name: settings[field.name] for field in fields(Wanted)})
    for option in ("save", "record", "zones"):
        check_one_each(f"--{option}", settings[option], len(named))
    check_not_read([source for _, source in named], wanted.save)
    needs_tracks = any(settings[key] for key in ("zones", "mqtt", "webhook", "view")) or "tracks" in settings["mask"]
    if settings["follow"] is None:
        settings["follow"] = needs_tracks
    watching = Watching(score=conf, **{f.name: settings[f.name] for f in fields(Watching) if f.name != "score"})
    with ExitStack() as stack:
        stack.enter_context(_ends_once())
        stack.enter_context(steady_memory())
        opened = [
            stack.enter_context(open_source(source, loop=loop, retries=retries, max_age_s=max_age_s))
            for _, source in named
        ]
        looking, macs = open_looking(model_name, engine=engine, threads=threads, prompts=prompts)
        if isinstance(looking, Pipeline):
            log.info("%s on %s, mask %s", model_name, looking.engine_name, watching.mask)
            looking.spec = looking.spec if iou is None else replace(looking.spec, nms_iou=iou)
        elif iou is not None:
            raise UsageError("--iou is for detectors; what a segmenter finds does not overlap")
        else:
            log.info("%s on %s looks for %s", model_name, looking.engine_name, ", ".join(looking.classes))
        cameras = [Camera(name, one, looking, watching) for (name, _), one in zip(named, opened, strict=True)]
        feeds = Feeds([(one.source, one.prepare) for one in cameras], max_age_s=max_age_s)
        summary, watchdog = Summary(looking.classes), Watchdog()
        stack.callback(lambda: _report(summary, feeds))  # runs last but for the sources: after the files are complete
        outputs = stack.enter_context(Outputs(wanted, cameras, feeds, looking.spec, macs=macs))
        stack.enter_context(feeds)
        watchdog.ready()
        for index, prepared in feeds:
            frame, result = prepared.frame, cameras[index].detect(prepared)
            summary.write(frame, result)
            outputs.write(frame, result)
            watchdog.pet(age_s=frame.age_s if cameras[index].source.live else 0.0)
            if summary.frames == max_frames:
                break
        watchdog.stopping()
    return 0 if outputs.complete else 1


def _what_to_run(
    bundle: str | None, model: str | None, sources: tuple[str, ...], camera: int | None
) -> tuple[str, list[str]]:
    """The model and the sources, from the four ways to say them."""
    from edgekit.cameras import is_source_name
    from edgekit.errors import UsageError

    if bundle is not None and model is not None:
        raise UsageError(f"two models were given, {bundle!r} and {model!r}: leave one out")
    model = bundle if bundle is not None else model
    wanted = [*sources, *([] if camera is None else [f"usb://{camera}"])]
    if not wanted and model is not None and is_source_name(model) and not Path(model).exists():
        return "default", [model]  # `edgekit run demo`
    if not wanted:
        raise UsageError(
            "no source was given: where should frames come from?\n"
            "Try: edgekit run --source demo; or --camera 0, or --source FILE, FOLDER or URL"
        )
    return model or "default", wanted


def _report(summary: Summary, feeds: Feeds[Any]) -> None:
    for line in summary.lines(dropped=feeds.dropped(), live=feeds.live):
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
