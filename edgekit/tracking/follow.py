"""From the frames of one camera to tracks and events: tracker, zones file and event finder in one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.tracking.events import DWELL_S, EventFinder, Moment
from edgekit.tracking.tracker import Tracker, confident
from edgekit.tracking.zones_file import ZonesFile

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult


class Follower:
    """Follows the objects of one camera and says what happens to them; make another one for another camera.

    >>> result = pipeline.process(
    ...     frame.image,
    ...     score_threshold=follower.least_score,
    ...     tracks=follower.expected(frame),
    ...     time_s=clock_s(frame, live=source.live),
    ... )
    >>> result = follower.follow(frame, result)  # with tracks and events, and without unsure detections

    Each frame must be followed before the next one is processed.
    """

    def __init__(self, *, score: float, live: bool, zones: Path | None = None, dwell_s: float | None = DWELL_S) -> None:
        """Nothing is followed yet.

        Args:
            score: 0..1, from which detections are reported.
            live: whether frames come as they happen, as :func:`clock_s` wants to know.
            zones: a file of zones and lines (``edgekit.tracking.zones``); it may change while it is used.
            dwell_s: seconds in a zone that make a ``dwell`` event; ``None`` for none.

        Raises:
            UsageError: the file is missing or malformed.
            ValueError: a number is outside its range.
        """
        self._tracker = Tracker(score=score)
        self._live = live
        self._file = None if zones is None else ZonesFile(zones)
        self._finder = EventFinder(None if self._file is None else self._file.zones, dwell_s=dwell_s)

    @property
    def least_score(self) -> float:
        """The score from which the pipeline should report detections: unsure ones keep tracks alive."""
        return self._tracker.least_score

    def expected(self, frame: Frame) -> NDArray[np.float32]:
        """[N, 4] xyxy in pixels of the source: where followed objects are expected in a frame that comes next."""
        return self._tracker.expected(clock_s(frame, live=self._live))

    def follow(self, frame: Frame, result: FrameResult) -> FrameResult:
        """``result`` with tracks and events, and of its detections those that are sure enough to be reported."""
        if self._file is not None and self._file.refresh():
            self._finder.use(self._file.zones)
        tracks = self._tracker.update(result.detections, clock_s(frame, live=self._live))
        height, width = frame.image.shape[:2]
        moment = Moment(frame=frame.index, time_s=frame.time_s, source=frame.source, height=height, width=width)
        events = self._finder.find(tracks, moment)
        detections = confident(result.detections, self._tracker.score)
        return dataclasses.replace(result, detections=detections, tracks=tracks, events=events)


def clock_s(frame: Frame, *, live: bool) -> float:
    """The time of ``frame`` by which movement is measured, in seconds; masks that learn want it too.

    Of live frames it is ``captured_s``, which no correction of the time of day touches; of others ``time_s``, that of
    the medium.
    """
    return frame.captured_s if live else frame.time_s
