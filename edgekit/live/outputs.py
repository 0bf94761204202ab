"""The sinks of a run: opened from what its command line says, written to together, and completed at the end.

Whatever takes time has a thread of its own (``edgekit.sinks.queued``), so a slow or dead sink never slows the loop.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from edgekit.errors import MissingDependencyError, UsageError
from edgekit.live.camera import Camera, of_camera
from edgekit.live.feeds import Feeds
from edgekit.opencv import require_opencv
from edgekit.sinks import Sink
from edgekit.sinks.camera_name import camera_name
from edgekit.sinks.jsonl import JsonLines
from edgekit.sinks.live import LiveNumbers, SourceCounts, SourceState
from edgekit.sinks.queued import CAPACITY, CLOSING_S, Queued, close_together
from edgekit.sinks.status import StatusLine
from edgekit.tracking.zones_file import ZonesFile

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult
    from edgekit.spec import Described
    from edgekit.view.address import Address

log = logging.getLogger("edgekit")

SLIDES_PER_S = 2.0
"""Frame rate of a video saved from pictures."""

WAITING_FRAMES = 4
"""Frames of a file that wait for a sink, half of what may wait of a camera: they outlast a picture that is being
written, the loop can wait for more, and each is a picture's memory."""

LIVE_FPS = 15.0
"""Frame rate of a video saved from a live source that does not state its own."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a command line asks for; ``{camera}`` in a path is the camera's name."""

    jsonl: str = "-"
    save: str | None = None
    record: str | None = None
    record_every_s: float | None = None
    record_mb: float = 1000.0
    view: str | None = None
    metrics: str | None = None
    mqtt: str | None = None
    mqtt_ca: Path | None = None
    webhook: str | None = None


class Outputs:
    """All sinks of a run as one.

    Args:
        wanted: what was asked for.
        cameras: of the run.
        feeds: of the cameras.
        spec: of the detector.
        macs: executed MACs of a frame, where they are known.

    Raises:
        UsageError: something that was asked for cannot be, e.g. a port is in use.
        StorageError: a file cannot be opened.
        MissingDependencyError: an extra is not installed.
    """

    def __init__(
        self,
        wanted: Wanted,
        cameras: Sequence[Camera],
        feeds: Feeds[Any],
        spec: Described,
        *,
        macs: Callable[[FrameResult], int | None] | None = None,
    ) -> None:
        self._cameras, self._spec = cameras, spec
        self.numbers = LiveNumbers(spec.classes, macs=macs)
        for index, camera in enumerate(cameras):
            if camera.name is not None or camera.source.live:
                self.numbers.watch_source(camera.known_as, functools.partial(_source_counts, camera, feeds, index))
        self._live = all(camera.source.live for camera in cameras)
        self._queued: list[Queued] = []
        self._sinks: list[Sink] = [self.numbers]
        with ExitStack() as stack:  # closes what was opened before something could not be
            stack.callback(self.close)
            self._open_files(wanted)
            self._open_network(wanted)
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close(at_once=_type is not None)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Hand a frame to every sink.

        Raises:
            BrokenPipeError: who reads our output has gone.
            StorageError: the only output cannot be written.
        """
        for sink in self._sinks:
            sink.write(frame, result)

    def close(self, *, at_once: bool = True) -> None:
        """Complete every file and say goodbye to every server; called once.

        Args:
            at_once: do not wait for what hangs. Otherwise all frames of a file are waited for.

        Raises:
            StorageError: the only output could not be completed.
        """
        close_together(self._sinks, within_s=CLOSING_S if at_once or self._live else None)

    @property
    def complete(self) -> bool:
        """Whether no sink was stopped by an error."""
        return not any(sink.stopped for sink in self._queued)

    def _open_files(self, wanted: Wanted) -> None:
        # The only output's error is the run's: it would go on for nothing.
        alone = sum(
            (wanted.jsonl != "off", *(x is not None for x in (wanted.save, wanted.record, wanted.mqtt, wanted.webhook)))
        )
        if wanted.save is not None:
            require_opencv("write a video")
            self._add_file("save", _by_camera(self._cameras, functools.partial(self._video, wanted.save)), alone == 1)
        if wanted.record is not None:
            require_opencv("record pictures")
            self._add_file("record", _by_camera(self._cameras, functools.partial(self._recorder, wanted)), alone == 1)
        if wanted.jsonl != "off":
            self._add_file("jsonl", JsonLines(wanted.jsonl, self._spec.classes), alone == 1)
        if wanted.jsonl != "-" or not sys.stdout.isatty():  # on one terminal the two would overwrite each other
            status = StatusLine(sys.stderr, self._spec.classes)
            self._sinks.append(status)

    def _add_file(self, name: str, sink: Sink, essential: bool) -> None:
        # A file's frames have no clock to keep up with, and all of them belong into the output.
        when_full: Literal["wait", "newest"] = "newest" if self._live else "wait"
        queued = Queued(
            sink,
            name=name,
            capacity=CAPACITY if self._live else WAITING_FRAMES,
            when_full=when_full,
            essential=essential,
            faults=self.numbers.faults,
        )
        self.numbers.watch_queue(name, queued.counts)
        self._queued.append(queued)
        self._sinks.append(queued)

    def _video(self, path: str, camera: Camera) -> Sink:
        from edgekit.sinks.video import FRAMES_A_FILE, VideoWriter

        source = camera.source
        return VideoWriter(
            Path(of_camera(path, camera.name)),
            self._spec,
            fps=source.fps or (LIVE_FPS if source.live else SLIDES_PER_S),
            live=source.live,
            frames_a_file=FRAMES_A_FILE if source.endless else None,
        )

    def _recorder(self, wanted: Wanted, camera: Camera) -> Sink:
        from edgekit.sinks.recorder import Recorder

        assert wanted.record is not None
        return Recorder(
            Path(of_camera(wanted.record, camera.name)),
            self._spec.classes,
            every_s=wanted.record_every_s,
            budget_mb=wanted.record_mb,
            faults=self.numbers.faults,
        )

    def _open_network(self, wanted: Wanted) -> None:
        if wanted.mqtt is not None:
            from edgekit.sinks.mqtt import Mqtt
            from edgekit.sinks.mqtt_address import parse_mqtt

            mqtt = Mqtt(parse_mqtt(wanted.mqtt, ca_file=wanted.mqtt_ca), self.numbers, model=self._spec.model)
            self.numbers.watch_queue("mqtt", mqtt.counts)
            self._sinks.append(mqtt)
        if wanted.webhook is not None:
            require_opencv("send pictures with events")
            from edgekit.sinks.snapshot import annotated_jpeg
            from edgekit.sinks.webhook import Webhook

            def snapshot(frame: Frame, result: FrameResult) -> bytes:
                return annotated_jpeg(frame.image, result, self._spec)

            webhook = Webhook(wanted.webhook, self._spec.classes, snapshot=snapshot, faults=self.numbers.faults)
            self.numbers.watch_queue("webhook", webhook.counts)
            self._sinks.append(webhook)
        for address, has_page in _servers(wanted):
            self._sinks.append(self._server(address, has_page=has_page, needs_metrics=wanted.metrics is not None))

    def _server(self, address: Address, *, has_page: bool, needs_metrics: bool) -> Sink:
        from edgekit.sinks.metrics import Metrics
        from edgekit.view.server import Server

        places = {camera.known_as: ZonesFile(camera.zones) for camera in self._cameras if camera.zones is not None}
        only = next(iter(places.values())) if len(self._cameras) == 1 and places else None

        metrics = None
        try:
            metrics = Metrics(self.numbers)
        except MissingDependencyError:
            if needs_metrics:  # the page does without
                raise

        def encode(frame: Frame, result: FrameResult) -> bytes:
            file = only or places.get(camera_name(frame))
            if file is not None:
                file.refresh()
            return annotated_jpeg(frame.image, result, self._spec, zones=file.zones if file else None)

        if has_page:
            require_opencv("draw the page's pictures")
            from edgekit.sinks.snapshot import annotated_jpeg

        return Server(
            address,
            self.numbers,
            encode=encode if has_page else None,
            metrics=metrics,
            zones=only.path if only else {name: file.path for name, file in places.items()},
        )


def check_not_read(sources: Sequence[str], save: str | None) -> None:
    """Raise ``UsageError`` if the annotated video would replace a video that is being read."""
    for source in map(Path, sources):
        if save is not None and Path(save).exists() and source.exists() and source.samefile(save):
            raise UsageError(f"--save {save} is the source itself: choose another name")


class _ByCamera:
    """A sink for each camera."""

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = sinks

    def write(self, frame: Frame, result: FrameResult) -> None:
        self._sinks[camera_name(frame)].write(frame, result)

    def close(self) -> None:
        with ExitStack() as stack:
            for sink in self._sinks.values():
                stack.callback(sink.close)


def _by_camera(cameras: Sequence[Camera], make: Callable[[Camera], Sink]) -> Sink:
    if len(cameras) == 1:
        return make(cameras[0])
    with ExitStack() as stack:
        sinks = {}
        for camera in cameras:
            sinks[camera.known_as] = sink = make(camera)
            stack.callback(sink.close)
        stack.pop_all()
    return _ByCamera(sinks)


def _servers(wanted: Wanted) -> list[tuple[Address, bool]]:
    """Address and whether the page is there; one server where page and metrics have the same address."""
    if wanted.view is None and wanted.metrics is None:
        return []
    from edgekit.view import require_aiohttp
    from edgekit.view.address import parse_address

    require_aiohttp("serve the page" if wanted.view is not None else "serve metrics")
    view = None if wanted.view is None else parse_address(wanted.view)
    metrics = None if wanted.metrics is None else parse_address(wanted.metrics)
    servers = [] if view is None else [(view, True)]
    if metrics is not None and metrics != view:
        servers.append((metrics, False))
    return servers


def _source_counts(camera: Camera, feeds: Feeds[Any], index: int) -> SourceCounts:
    counts, feed = camera.source.counters(), feeds.counters()[index]
    dropped = {"newer": counts.dropped_newer + feed.dropped, "stale": counts.dropped_stale + feed.stale}
    state: SourceState = "ended" if feeds.ended(index) else "lost" if camera.source.problem else "open"
    return SourceCounts(captured=counts.captured, dropped=dropped, outages=counts.outages, state=state)
