"""What stays the same object from frame to frame, and what happens to it: tracks and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EventKind = Literal["enter", "leave", "line", "zone_enter", "zone_leave", "dwell"]
"""A track appears or is gone; crosses a line; comes into a zone, leaves it, or has stayed there for long."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One object that is followed, as it is in one frame."""

    id: int
    """1, 2, 3, ... in the order of appearance; never used again in a run."""

    class_id: int
    score: float
    """0..1, of the detection that it was matched with last."""

    box_xyxy: tuple[float, float, float, float]
    """In pixels of the source picture."""

    age_s: float
    """Seconds since it was first seen."""

    seen: bool
    """Whether a detection of this frame belongs to it; otherwise the box is where it is expected."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened to a track."""

    kind: EventKind
    track_id: int
    class_id: int
    frame: int
    """``Frame.index``."""

    time_s: float
    """``Frame.time_s``."""

    source: str
    """``Frame.source``."""

    score: float
    box_xyxy: tuple[float, float, float, float]
    """Of the track, in pixels of the source picture."""

    place: str | None = None
    """Name of the line or zone."""

    direction: Literal["in", "out"] | None = None
    """Of a crossing: ``in`` is from the left of the line to its right, seen from its first end to its second."""

    seconds: float | None = None
    """How long the track was in the zone (``zone_leave``, ``dwell``) or there at all (``leave``)."""
