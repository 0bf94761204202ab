"""Tracks, events, detections and segments as JSON values: the same in JSON lines, MQTT and webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.detections import Detections
    from edgekit.pipeline import Segments
    from edgekit.tracking import Event, Track


def detections_json(found: Detections, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Best first: ``class``, ``score`` 0..1, ``box_xyxy`` in pixels of the source picture."""
    return [
        {"class": classes[class_id], "score": round(score, 4), "box_xyxy": [round(edge, 2) for edge in box]}
        for class_id, score, box in zip(
            found.class_ids.tolist(), found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True
        )
    ]


def segments_json(segments: Segments, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """``share`` 0..1 of the picture and mean ``score`` 0..1 of each class that has a pixel."""
    return {
        name: {"share": round(share, 4), "score": round(score, 4)}
        for name, share, score in zip(classes, segments.shares.tolist(), segments.scores.tolist(), strict=True)
        if share > 0
    }


def track_json(track: Track, classes: tuple[str, ...]) -> dict[str, Any]:
    """``id``, ``class``, ``score``, ``box_xyxy``, ``age_s`` since it was first seen, ``seen`` in this frame."""
    return {
        "id": track.id,
        "class": classes[track.class_id],
        "score": round(track.score, 4),
        "box_xyxy": [round(edge, 2) for edge in track.box_xyxy],
        "age_s": round(track.age_s, 3),
        "seen": track.seen,
    }


def event_json(event: Event, classes: tuple[str, ...]) -> dict[str, Any]:
    """``event`` (the kind), ``track``, ``class``, ``score``, ``box_xyxy``.

    And ``place``, ``direction`` and ``seconds`` where they mean something.
    """
    document: dict[str, Any] = {
        "event": event.kind,
        "track": event.track_id,
        "class": classes[event.class_id],
        "score": round(event.score, 4),
        "box_xyxy": [round(edge, 2) for edge in event.box_xyxy],
    }
    if event.place is not None:
        document["place"] = event.place
    if event.direction is not None:
        document["direction"] = event.direction
    if event.seconds is not None:
        document["seconds"] = round(event.seconds, 3)
    return document
