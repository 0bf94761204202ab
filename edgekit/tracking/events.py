"""What happens to tracks: they appear, leave, cross lines, come into zones, stay there and leave them.

A track is where it stands: at the middle of the lower edge of its box. Detections jitter, so nothing counts before it
is sure:

* what only crossed the border of a zone has to be ``MARGIN`` of its size outside before it has left, and what crossed
  a line that far beyond it. So an object that stands on a border makes one event, not hundreds.
* a change of zone must last for ``SETTLED`` frames in which the object was seen.
* where an object is only expected (``Track.seen`` is False), nothing happens but that it may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from edgekit.tracking import Event, EventKind, Track
from edgekit.tracking.geometry import (
    Points,
    distance_to_outline,
    inside_polygon,
    passes_between,
    side_of_line,
)
from edgekit.tracking.zones import Line, Zone, Zones

MARGIN = 0.1
"""Of the root of a box's area: about as far as the edge of a standing person's box moves."""

SETTLED = 2
"""Frames in a row."""

DWELL_S = 10.0
"""Seconds in a zone that are worth an event, unless another number is asked for."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The frame in which something happens."""

    frame: int
    """``Frame.index``."""

    time_s: float
    """``Frame.time_s``."""

    source: str
    """``Frame.source``."""

    height: int
    """Of the source picture, in pixels."""

    width: int


@dataclass
class _Visit:
    """A track and one zone."""

    inside: bool = False
    against: int = 0
    """Frames in a row that say the opposite."""

    since_s: float = 0.0
    """Age of the track when it came in."""

    told: bool = False
    """Whether its dwelling was told."""


@dataclass
class _History:
    """What is remembered of a track."""

    track: Track
    visits: dict[str, _Visit] = field(default_factory=dict)
    sides: dict[str, tuple[Points, bool]] = field(default_factory=dict)
    """By line: the last point, in 0..1 of the picture, that was clearly on one side; and whether that was the right."""


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """Where T seen tracks stand."""

    tracks: Sequence[Track]

    feet: Points
    """[T, 2] in pixels."""

    shares: Points
    """[T, 2] the same in 0..1 of the picture, which may have another size in the next frame."""

    margins: NDArray[np.float64]
    """[T] pixels by which each of them has to be beyond a border."""

    scale: Points
    """[2] width and height of the picture."""

    @classmethod
    def of(cls, tracks: Sequence[Track], moment: Moment) -> Self:
        boxes = np.array([track.box_xyxy for track in tracks], np.float64)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
        # A hair above the lower edge: what the picture cuts off would stand below it, outside every zone.
        feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3] - 1e-3], axis=1)
        scale = np.array([moment.width, moment.height], np.float64)
        return cls(
            tracks=tracks,
            feet=feet,
            shares=feet / scale,
            margins=MARGIN * np.sqrt(sides[:, 0] * sides[:, 1]),
            scale=scale,
        )


class EventFinder:
    """Turns the tracks of one camera, frame after frame, into events; make another one for another camera."""

    def __init__(self, zones: Zones | None = None, *, dwell_s: float | None = DWELL_S) -> None:
        """Nothing has happened yet.

        Args:
            zones: of the camera; they may be replaced at any time (:meth:`use`).
            dwell_s: seconds in a zone after which ``dwell`` comes, once a visit; ``None`` for never.

        Raises:
            ValueError: ``dwell_s`` is not over 0.
        """
        if dwell_s is not None and not dwell_s > 0:
            raise ValueError(f"dwell_s should be over 0 seconds, got {dwell_s}")
        self._dwell_s = dwell_s
        self._known: dict[int, _History] = {}
        self.use(zones or Zones())

    def use(self, zones: Zones) -> None:
        """Other zones from now on; what is known of those that keep name and shape is kept, the rest ends unsaid."""
        self._zones = {_key(zone): zone for zone in zones.zones}
        self._lines = {_key(line): line for line in zones.lines}
        for history in self._known.values():
            history.visits = {key: visit for key, visit in history.visits.items() if key in self._zones}
            history.sides = {key: point for key, point in history.sides.items() if key in self._lines}

    def find(self, tracks: Sequence[Track], moment: Moment) -> tuple[Event, ...]:
        """The events of a frame, from all its confirmed tracks; those that are gone come first.

        Durations are measured by ``Track.age_s``, so no jump of the time of day is taken for a long stay.
        """
        events: list[Event] = []
        present = {track.id for track in tracks}
        for number in sorted(set(self._known) - present):
            events += self._end(self._known.pop(number), moment)
        for track in tracks:
            if track.id not in self._known:
                self._known[track.id] = _History(track)
                events.append(_event("enter", track, moment))
            elif track.seen:
                self._known[track.id].track = track
        seen = [track for track in tracks if track.seen]
        if seen and (self._lines or self._zones):
            standing = _Standing.of(seen, moment)
            for key, line in self._lines.items():
                events += self._crossings(key, line, standing, moment)
            for key, zone in self._zones.items():
                events += self._visits(key, zone, standing, moment)
        return tuple(events)

    def _crossings(self, key: str, line: Line, standing: _Standing, moment: Moment) -> Iterator[Event]:
        start, end = np.array(line.start) * standing.scale, np.array(line.end) * standing.scale
        side = side_of_line(standing.feet, start, end)
        right = (side > 0).tolist()
        for i in np.flatnonzero(np.abs(side) > standing.margins).tolist():
            track = standing.tracks[i]
            sides = self._known[track.id].sides
            before, sides[key] = sides.get(key), (standing.shares[i], right[i])
            if before is None or before[1] == right[i]:
                continue
            if passes_between(before[0] * standing.scale, standing.feet[i], start, end):
                yield _event("line", track, moment, place=line.name, direction="in" if right[i] else "out")

    def _visits(self, key: str, zone: Zone, standing: _Standing, moment: Moment) -> Iterator[Event]:
        corners = zone.corners * standing.scale
        inside = inside_polygon(standing.feet, corners)
        outside = ~inside & (distance_to_outline(standing.feet, corners) > standing.margins)
        for track, is_inside, is_outside in zip(standing.tracks, inside.tolist(), outside.tolist(), strict=True):
            visits = self._known[track.id].visits
            visit = visits.get(key)
            if visit is None:
                if not is_inside:  # most tracks and most zones have nothing to do with each other
                    continue
                visit = visits[key] = _Visit()
            opposite = is_outside if visit.inside else is_inside
            visit.against = visit.against + 1 if opposite else 0
            stayed_s = track.age_s - visit.since_s
            if visit.against >= SETTLED:
                visits[key] = _Visit(inside=not visit.inside, since_s=track.age_s)
                if visit.inside:
                    yield _event("zone_leave", track, moment, place=zone.name, seconds=stayed_s)
                else:
                    yield _event("zone_enter", track, moment, place=zone.name)
            elif visit.inside and not visit.told and self._dwell_s is not None and stayed_s >= self._dwell_s:
                visit.told = True
                yield _event("dwell", track, moment, place=zone.name, seconds=stayed_s)

    def _end(self, history: _History, moment: Moment) -> Iterator[Event]:
        """A track is gone: it leaves its zones, then altogether, as it was when it was last seen."""
        track = history.track
        for key, zone in self._zones.items():
            visit = history.visits.get(key)
            if visit is not None and visit.inside:
                stayed_s = track.age_s - visit.since_s
                yield _event("zone_leave", track, moment, place=zone.name, seconds=stayed_s)
        yield _event("leave", track, moment, seconds=track.age_s)


def _key(place: Zone | Line) -> str:
    """What a zone or line is known by: after its name or shape was changed it is another one."""
    shape = place.corners.tolist() if isinstance(place, Zone) else (place.start, place.end)
    return f"{type(place).__name__} {place.name} {shape}"


def _event(
    kind: EventKind,
    track: Track,
    moment: Moment,
    *,
    place: str | None = None,
    direction: Literal["in", "out"] | None = None,
    seconds: float | None = None,
) -> Event:
    return Event(
        kind=kind,
        track_id=track.id,
        class_id=track.class_id,
        frame=moment.frame,
        time_s=moment.time_s,
        source=moment.source,
        score=track.score,
        box_xyxy=track.box_xyxy,
        place=place,
        direction=direction,
        seconds=seconds,
    )
