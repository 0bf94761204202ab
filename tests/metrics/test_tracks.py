"""Tracks held against labelled ones."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.metrics.tracks import TrackMeter
from edgekit.tracking import Track

A, B = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)


def track(number, box, *, seen=True):
    return Track(id=number, class_id=0, score=0.9, box_xyxy=box, age_s=0.0, seen=seen)


def measured(*frames):
    """The metrics of frames, each a list of tracks; A is labelled 7 and B is labelled 9 in all of them."""
    meter = TrackMeter()
    for tracks in frames:
        meter.add(tracks, np.array([7, 9]), np.array([A, B], np.float32))
    return meter.result()


def test_one_id_on_each_all_the_time():
    result = measured(*[[track(1, A), track(2, B)]] * 4)
    assert (result.labelled, result.found, result.followed, result.switches, result.ids) == (2, 2, 2, 0, 2)
    assert (result.held_share, result.frame_recall, result.frame_precision) == (1, 1, 1)


def test_an_id_that_changes():
    result = measured([track(1, A)], [track(1, A)], [track(3, A)], [track(4, A)])
    assert (result.found, result.followed, result.switches, result.ids) == (1, 1, 2, 3)
    assert (result.held_share, result.frame_recall) == (pytest.approx(2 / 4 / 2), pytest.approx(4 / 8))
    result = measured([track(1, A)], [track(2, A)], [track(3, A)], [track(4, A)])
    assert (result.found, result.followed, result.switches) == (1, 0, 3)


def test_ids_that_are_exchanged():
    result = measured([track(1, A), track(2, B)], [track(2, A), track(1, B)])
    assert (result.followed, result.switches) == (2, 2)  # half of the frames each


def test_what_is_only_expected_or_elsewhere_does_not_count():
    aside = (5.0, 0.0, 15.0, 10.0)  # overlaps by a third
    result = measured([track(1, A, seen=False), track(2, aside)], [track(2, B)])
    assert (result.found, result.followed, result.ids) == (1, 1, 2)
    assert (result.frame_recall, result.frame_precision) == (1 / 4, 1 / 2)


def test_one_track_is_on_one_object():
    meter = TrackMeter()
    meter.add([track(1, A)], np.array([7, 8]), np.array([A, A], np.float32))
    assert (meter.result().found, meter.result().frame_recall) == (1, 0.5)


def test_nothing_at_all():
    result = TrackMeter().result()
    assert (result.labelled, result.held_share, result.frame_recall, result.frame_precision) == (0, 1, 1, 1)
