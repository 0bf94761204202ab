"""The numbers of a run while it goes on, for the metrics endpoint, the browser page and MQTT: counted once, here.

A frame costs a few additions; percentiles are computed only when somebody asks.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.sinks.camera_name import camera_name
from edgekit.sinks.faults import Faults
from edgekit.sinks.outbox import Counts
from edgekit.sinks.thermal import Throttling, temperature_c

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

WINDOW = 1000
"""Percentiles are over so many newest frames: enough to mean p99, and a minute of a camera."""

RATE_WINDOW = 30
"""Frames over which the rate is measured."""

HISTORY_S = 600
"""Points of a chart, one a second: ten minutes."""

MOST_CAMERAS = 64

QUANTILES = (0.5, 0.95, 0.99)

SourceState = Literal["starting", "open", "lost", "ended"]
SOURCE_STATES: tuple[SourceState, ...] = ("starting", "open", "lost", "ended")


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What a camera has delivered so far: ``captured == processed + dropped`` but for the frame in between."""

    captured: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Frames that were not processed, by reason, e.g. ``newer``, ``stale``."""

    outages: int = 0
    """How often it was lost."""

    state: SourceState = "open"


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """What is kept of one frame."""

    at_s: float
    age_s: float
    active_share: float
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Percentiles over the newest frames; sum and count over all."""

    quantiles: Mapping[float, float]
    """Quantile 0..1 -> value; empty before the first frame."""

    total: float
    count: int


@dataclass(frozen=True, kw_only=True)
class CameraReading:
    """Everything that is known about one camera at one moment."""

    name: str
    processed: int
    source: SourceCounts | None
    detections: Mapping[str, int]
    """Class -> how many since the start."""

    events: Mapping[str, int]
    """Kind -> how many since the start."""

    seen: Mapping[str, int]
    """Class -> how many in the newest frame."""

    tracks: int | None
    fps: float
    active_share: float
    executed_macs: int | None
    since_frame_s: float
    """Seconds since the newest frame was processed."""

    age_s: Distribution
    """From capture until the result was there."""

    stages_s: Mapping[str, Distribution]
    """Stage, ``total`` among them -> its latency."""


class _Camera:
    def __init__(self) -> None:
        self.processed = 0
        self.detections: Counter[int] = Counter()
        self.events: Counter[str] = Counter()
        self.moments: deque[_Moment] = deque(maxlen=WINDOW)
        self.sums_ms: Counter[str] = Counter()
        self.age_sum_s = 0.0
        self.last: FrameResult | None = None
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY_S)

    def add(self, moment: _Moment, result: FrameResult) -> None:
        self.processed += 1
        self.detections.update(result.detections.class_ids.tolist())
        self.events.update(event.kind for event in result.events)
        self.moments.append(moment)
        for stage, ms in moment.timings_ms.items():
            self.sums_ms[stage] += ms  # type: ignore[assignment]
        self.age_sum_s += moment.age_s
        self.last = result

    def fps(self, now: float) -> float:
        """Falls towards 0 when no frame comes."""
        times = [moment.at_s for moment in list(self.moments)[-RATE_WINDOW:]]
        if len(times) < 2:
            return 0.0
        usual = (times[-1] - times[0]) / (len(times) - 1)
        late = max(0.0, now - times[-1] - usual)
        return (len(times) - 1) / max(1e-9, times[-1] - times[0] + late)


class LiveNumbers:
    """Counts while frames go by; a sink, cheap enough for the loop's own thread.

    Args:
        classes: names of the class ids.
        macs: executed MACs of a frame, computed only when somebody asks.
        faults: those of the run, shown by the metrics.
        root: where ``sys/`` is found, so that any machine can be imitated.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        *,
        macs: Callable[[FrameResult], int | None] | None = None,
        faults: Faults | None = None,
        root: Path = Path("/"),
    ) -> None:
        self.classes = classes
        self.faults = faults or Faults()
        self._macs, self._root = macs, root
        self._throttling = Throttling(root)
        self._lock = threading.Lock()
        self._cameras: dict[str, _Camera] = {}
        self._sources: dict[str, Callable[[], SourceCounts]] = {}
        self._queues: dict[str, Callable[[], Counts]] = {}
        self._started_s = self._ticked_s = time.monotonic()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Count one frame."""
        moment = _Moment(
            at_s=time.monotonic(),
            age_s=frame.age_s,
            active_share=result.active_share,
            timings_ms=result.timings_ms,
        )
        name = camera_name(frame)
        with self._lock:
            if name in self._cameras or len(self._cameras) < MOST_CAMERAS:
                self._cameras.setdefault(name, _Camera()).add(moment, result)

    def close(self) -> None:
        """Nothing is held open."""

    def watch_source(self, camera: str, counts: Callable[[], SourceCounts]) -> None:
        """Ask ``counts`` for what the source of ``camera`` captured and dropped; it must not block."""
        self._sources[camera] = counts
        with self._lock:
            self._cameras.setdefault(camera, _Camera())

    def watch_queue(self, name: str, counts: Callable[[], Counts]) -> None:
        """Ask ``counts`` for the queue of a sink, e.g. ``Queued.counts``."""
        self._queues[name] = counts

    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras so far, in the order of appearance."""
        with self._lock:
            return tuple(self._cameras)

    def queues(self) -> dict[str, Counts]:
        """Name of the sink -> counts of its queue."""
        return {name: counts() for name, counts in self._queues.items()}

    def temperature_c(self) -> float | None:
        """Of the board's hottest part."""
        return temperature_c(self._root)

    def throttled(self) -> bool | None:
        """Whether the board runs slower than it could; None where nobody says."""
        return self._throttling.now()

    def stale(self, limit_s: float) -> list[str]:
        """Cameras without a frame for more than ``limit_s`` seconds, since the start for those that had none."""
        now = time.monotonic()
        with self._lock:
            newest = {name: self._last_s(camera) for name, camera in self._cameras.items()}
        if not newest and now - self._started_s > limit_s:
            return ["all"]
        return [name for name, at_s in newest.items() if now - at_s > limit_s]

    def state(self, name: str, *, stale_s: float) -> str:
        """The state of a source, or ``stale`` where it is open and yet gave no frame for longer than ``stale_s``."""
        source = self._sources.get(name)
        state = source().state if source else "open"
        return "stale" if state == "open" and name in self.stale(stale_s) else state

    def read(self, name: str) -> CameraReading:
        """The numbers of one camera.

        Raises:
            KeyError: there is no such camera.
        """
        now = time.monotonic()
        with self._lock:
            camera = self._cameras[name]
            moments, last = list(camera.moments), camera.last
            processed, age_sum_s, sums_ms = camera.processed, camera.age_sum_s, dict(camera.sums_ms)
            detections, events = dict(camera.detections), dict(camera.events)
            fps, last_s = camera.fps(now), self._last_s(camera)
        seen = Counter(last.detections.class_ids.tolist()) if last else Counter()
        source = self._sources.get(name)
        return CameraReading(
            name=name,
            processed=processed,
            source=source() if source else None,
            detections={self._class(class_id): count for class_id, count in detections.items()},
            events=events,
            seen={self._class(class_id): count for class_id, count in seen.items()},
            tracks=None if last is None or last.tracks is None else len(last.tracks),
            fps=fps,
            active_share=last.active_share if last else 0.0,
            executed_macs=self._macs(last) if self._macs and last else None,
            since_frame_s=now - last_s,
            age_s=_distribution([moment.age_s for moment in moments], age_sum_s, processed),
            stages_s={
                stage: _distribution(
                    [moment.timings_ms[stage] / 1e3 for moment in moments if stage in moment.timings_ms],
                    sum_ms / 1e3,
                    processed,
                )
                for stage, sum_ms in sums_ms.items()
            },
        )

    def tick(self) -> None:
        """Add a point to each camera's history; call it about once a second while somebody may want charts."""
        now = time.monotonic()
        temperature = self.temperature_c()
        with self._lock:
            since, self._ticked_s = self._ticked_s, now
            for camera in self._cameras.values():
                recent = [moment for moment in camera.moments if moment.at_s > since]
                camera.history.append(_point(recent, camera.fps(now), temperature))

    def history(self, name: str) -> list[dict[str, Any]]:
        """The points of :meth:`tick`, oldest first; ``KeyError`` if there is no such camera.

        =================== ======================================================================
        ``time``            seconds since the Unix epoch
        ``fps``             frames a second
        ``age_ms``          frame age, the median of that second; None where no frame came
        ``active_share``    0..1, the mean of that second
        ``ms``              stage -> median latency of that second
        ``temperature_c``   None where no sensor is
        =================== ======================================================================
        """
        with self._lock:
            return list(self._cameras[name].history)

    def _last_s(self, camera: _Camera) -> float:
        return camera.moments[-1].at_s if camera.moments else self._started_s

    def _class(self, class_id: int) -> str:
        return self.classes[class_id]


def _point(recent: list[_Moment], fps: float, temperature: float | None) -> dict[str, Any]:
    stages = recent[-1].timings_ms if recent else {}
    return {
        "time": round(time.time(), 1),
        "fps": round(fps, 2),
        "age_ms": round(float(np.median([moment.age_s for moment in recent])) * 1e3, 1) if recent else None,
        "active_share": round(float(np.mean([moment.active_share for moment in recent])), 4) if recent else None,
        "ms": {
            stage: round(float(np.median([moment.timings_ms.get(stage, 0.0) for moment in recent])), 2)
            for stage in stages
        },
        "temperature_c": None if temperature is None else round(temperature, 1),
    }


def _distribution(samples: list[float], total: float, count: int) -> Distribution:
    values = np.percentile(samples, [100 * quantile for quantile in QUANTILES]).tolist() if samples else []
    return Distribution(quantiles=dict(zip(QUANTILES, values, strict=False)), total=total, count=count)
