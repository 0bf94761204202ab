"""Prometheus metrics (https://prometheus.io/docs/instrumenting/exposition_formats/) of a run.

======================================= ======= ============================================================
name                                    type    labels, meaning
======================================= ======= ============================================================
``edgekit_frames_captured_total``       counter camera
``edgekit_frames_processed_total``      counter camera
``edgekit_frames_dropped_total``        counter camera, reason
``edgekit_source_outages_total``        counter camera; how often it was lost
``edgekit_detections_total``            counter camera, class
``edgekit_events_total``                counter camera, kind
``edgekit_errors_total``                counter component, reason; both from few words
``edgekit_stage_seconds``               summary camera, stage; quantiles 0.5, 0.95, 0.99 of the newest frames
``edgekit_frame_age_seconds``           summary camera; from capture until the result was there
``edgekit_active_share``                gauge   camera; 0..1
``edgekit_executed_macs``               gauge   camera; of the newest frame
``edgekit_fps``                         gauge   camera
``edgekit_tracks``                      gauge   camera; where somebody follows
``edgekit_source_state``                gauge   camera, state; 1 for the one it is in
``edgekit_temperature_celsius``         gauge   of the hottest part; absent without a sensor
``edgekit_throttled``                   gauge   1 while the board runs slower than it could; absent if unknown
``edgekit_sink_queue_depth``            gauge   sink
``edgekit_sink_items_total``            counter sink, outcome: offered, written, dropped, failed
======================================= ======= ============================================================

and those of the process (memory, file descriptors, CPU time) under prometheus-client's own names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edgekit.errors import MissingDependencyError
from edgekit.sinks.live import SOURCE_STATES, CameraReading, Distribution, LiveNumbers

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The numbers of a run in Prometheus's text format.

    Raises:
        MissingDependencyError: prometheus-client is not installed.
    """

    def __init__(self, numbers: LiveNumbers) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector
        except ModuleNotFoundError as error:
            raise MissingDependencyError("prometheus-client", "metrics", "serve metrics") from error
        self._numbers = numbers
        self._registry = CollectorRegistry()  # its own: the process may have others
        self._registry.register(_Collector(numbers))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """What ``/metrics`` answers, of type :data:`CONTENT_TYPE`."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class _Collector:
    """What prometheus-client asks at each scrape."""

    def __init__(self, numbers: LiveNumbers) -> None:
        self._numbers = numbers

    def describe(self) -> Iterable[Metric]:
        """Nothing: otherwise it would be collected once when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family, those of cameras first."""
        cameras = [self._numbers.read(name) for name in self._numbers.cameras()]
        yield from _counters(cameras)
        yield from _latencies(cameras)
        yield from _gauges(cameras)
        yield from _board(self._numbers)
        yield from _sinks(self._numbers)


def _counters(cameras: list[CameraReading]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily as Counter

    captured = Counter("edgekit_frames_captured", "Frames that the source captured.", labels=["camera"])
    processed = Counter("edgekit_frames_processed", "Frames that were processed.", labels=["camera"])
    dropped = Counter("edgekit_frames_dropped", "Frames that were not processed.", labels=["camera", "reason"])
    outages = Counter("edgekit_source_outages", "How often the source was lost.", labels=["camera"])
    detections = Counter("edgekit_detections", "Objects detected.", labels=["camera", "class"])
    events = Counter("edgekit_events", "Events of tracks.", labels=["camera", "kind"])
    for camera in cameras:
        processed.add_metric([camera.name], camera.processed)
        if camera.source is not None:
            captured.add_metric([camera.name], camera.source.captured)
            outages.add_metric([camera.name], camera.source.outages)
            for reason, count in camera.source.dropped.items():
                dropped.add_metric([camera.name, reason], count)
        for name, count in camera.detections.items():
            detections.add_metric([camera.name, name], count)
        for kind, count in camera.events.items():
            events.add_metric([camera.name, kind], count)
    yield from (captured, processed, dropped, outages, detections, events)


def _latencies(cameras: list[CameraReading]) -> Iterator[Metric]:
    from prometheus_client.core import SummaryMetricFamily as Summary

    stages = Summary("edgekit_stage_seconds", "Wall time of a stage.", labels=["camera", "stage"])
    ages = Summary("edgekit_frame_age_seconds", "From capture until the result was there.", labels=["camera"])
    for camera in cameras:
        for stage, latency in camera.stages_s.items():
            _add(stages, {"camera": camera.name, "stage": stage}, latency)
        _add(ages, {"camera": camera.name}, camera.age_s)
    yield from (stages, ages)


def _add(family: Metric, labels: dict[str, str], values: Distribution) -> None:
    for quantile, value in values.quantiles.items():
        family.add_sample(family.name, {**labels, "quantile": f"{quantile:g}"}, value)
    family.add_sample(f"{family.name}_count", labels, values.count)
    family.add_sample(f"{family.name}_sum", labels, values.total)


def _gauges(cameras: list[CameraReading]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily as Gauge

    share = Gauge("edgekit_active_share", "Share of the picture that was looked at, 0 to 1.", labels=["camera"])
    macs = Gauge("edgekit_executed_macs", "Multiply-accumulates of the newest frame.", labels=["camera"])
    fps = Gauge("edgekit_fps", "Frames a second.", labels=["camera"])
    tracks = Gauge("edgekit_tracks", "Objects that are followed.", labels=["camera"])
    states = Gauge("edgekit_source_state", "1 for the state that the source is in.", labels=["camera", "state"])
    for camera in cameras:
        share.add_metric([camera.name], camera.active_share)
        fps.add_metric([camera.name], camera.fps)
        if camera.executed_macs is not None:
            macs.add_metric([camera.name], camera.executed_macs)
        if camera.tracks is not None:
            tracks.add_metric([camera.name], camera.tracks)
        if camera.source is not None:
            for state in SOURCE_STATES:
                states.add_metric([camera.name, state], float(state == camera.source.state))
    yield from (share, macs, fps, tracks, states)


def _board(numbers: LiveNumbers) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily as Gauge

    temperature, throttled = numbers.temperature_c(), numbers.throttled()
    if temperature is not None:
        yield Gauge("edgekit_temperature_celsius", "Of the board's hottest part.", value=temperature)
    if throttled is not None:
        yield Gauge("edgekit_throttled", "1 while the board runs slower than it could.", value=float(throttled))


def _sinks(numbers: LiveNumbers) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    depth = Gauge("edgekit_sink_queue_depth", "Items that wait for a sink.", labels=["sink"])
    items = Counter("edgekit_sink_items", "What became of a sink's items.", labels=["sink", "outcome"])
    for name, counts in numbers.queues().items():
        depth.add_metric([name], counts.waiting)
        for outcome in ("offered", "written", "dropped", "failed"):
            items.add_metric([name, outcome], getattr(counts, outcome))
    errors = Counter("edgekit_errors", "Faults that did not end the run.", labels=["component", "reason"])
    for (component, reason), count in numbers.faults.counts().items():
        errors.add_metric([component, reason], count)
    yield from (depth, items, errors)
