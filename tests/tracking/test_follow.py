"""A follower: the pipeline's results in, tracks and events out."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.cameras import Frame
from edgekit.detections import Detections
from edgekit.errors import UsageError
from edgekit.pipeline import FrameResult
from edgekit.tracking.follow import Follower, clock_s
from edgekit.tracking.zones import Zone, Zones
from edgekit.tracking.zones_file import save_zones


def frame(index, *, time_s=None, captured_s=0.0):
    return Frame(
        image=np.zeros((240, 320, 3), np.uint8),
        index=index,
        time_s=index / 10 if time_s is None else time_s,
        source="yard.mp4",
        captured_s=captured_s,
    )


def result(*entries):
    """A frame's result with boxes of 40 x 80 at (left, top, score)."""
    return FrameResult(
        detections=Detections(
            boxes_xyxy=np.array([[x, y, x + 40, y + 80] for x, y, _ in entries], np.float32).reshape(-1, 4),
            scores=np.array([score for *_, score in entries], np.float32),
            class_ids=np.zeros(len(entries), np.int64),
        ),
        mask=np.ones((20, 20), np.bool_),
        active_share=1.0,
        timings_ms={},
    )


def test_sinks_see_sure_detections_tracks_and_events():
    follower = Follower(score=0.5, live=False)
    assert follower.least_score == pytest.approx(0.2)
    assert follower.follow(frame(0), result((100, 50, 0.9), (200, 50, 0.3))).tracks == ()
    followed = follower.follow(frame(1), result((104, 50, 0.9), (200, 50, 0.3)))
    assert followed.detections.scores.tolist() == pytest.approx([0.9])
    assert [(track.id, track.seen) for track in followed.tracks] == [(1, True)]
    assert [(event.kind, event.frame, event.time_s, event.source) for event in followed.events] == [
        ("enter", 1, 0.1, "yard.mp4")
    ]
    np.testing.assert_allclose(follower.expected(frame(2)), [[107, 50, 147, 130]], atol=3)
    kept = follower.follow(frame(2), result((108, 50, 0.3)))  # only a doubt, and it is still there
    assert len(kept.detections) == 0
    assert [(track.id, track.seen, track.score) for track in kept.tracks] == [(1, True, pytest.approx(0.3))]


def test_live_frames_are_timed_by_the_clock_that_does_not_jump():
    follower = Follower(score=0.5, live=True)
    follower.follow(frame(0, time_s=5000, captured_s=10.0), result((100, 50, 0.9)))
    followed = follower.follow(frame(1, time_s=-90, captured_s=10.5), result((100, 50, 0.9)))
    assert followed.tracks[0].age_s == pytest.approx(0.5)
    assert followed.events[0].time_s == -90
    assert clock_s(frame(1, captured_s=10.5), live=True) == 10.5
    assert clock_s(frame(1, captured_s=10.5), live=False) == 0.1


def test_a_zones_file_that_changes(tmp_path):
    path = tmp_path / "zones.json"
    corners = np.array([[0, 0], [0.2, 0], [0.2, 0.2], [0, 0.2]])
    save_zones(path, Zones(zones=(Zone(name="corner", corners=corners),)))
    follower = Follower(score=0.5, live=False, zones=path, dwell_s=0.15)
    still = result((100, 50, 0.9))
    events = [event for n in range(5) for event in follower.follow(frame(n), still).events]
    assert [event.kind for event in events] == ["enter"]
    save_zones(path, Zones(zones=(Zone(name="all", corners=np.array([[0, 0], [1, 0], [1, 1], [0, 1]])),)))
    events = [event for n in range(5, 10) for event in follower.follow(frame(n), still).events]
    assert [(event.kind, event.place, event.frame) for event in events] == [
        ("zone_enter", "all", 6),
        ("dwell", "all", 8),
    ]


def test_a_zones_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        Follower(score=0.5, live=False, zones=tmp_path / "absent.json")
