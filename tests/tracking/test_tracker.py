"""Tracks: ids, two rounds of association, gaps, clocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.detections import Detections
from edgekit.tracking import tracker as module
from edgekit.tracking.tracker import Tracker, confident


def found(*entries):
    """Detections from (left, top, score) or (left, top, score, class) of boxes of 40 x 80, best first."""
    entries = sorted(entries, key=lambda entry: -entry[2])
    return Detections(
        boxes_xyxy=np.array([[x, y, x + 40, y + 80] for x, y, *_ in entries], np.float32).reshape(-1, 4),
        scores=np.array([entry[2] for entry in entries], np.float32),
        class_ids=np.array([entry[3] if len(entry) > 3 else 0 for entry in entries], np.int64),
    )


def ids(tracks):
    return [track.id for track in tracks]


def lefts(tracks):
    return [round(track.box_xyxy[0]) for track in tracks]


def walk(tracker, positions, *, step_s=0.1, score=0.9, start_s=0.0):
    """One object at each of ``positions`` (None: unseen) in turn; the tracks of every frame."""
    return [
        tracker.update(found() if x is None else found((x, 100, score)), start_s + n * step_s)
        for n, x in enumerate(positions)
    ]


def test_a_track_begins_when_it_is_seen_twice():
    first, second, third = walk(Tracker(score=0.5), [100, 105, 110])
    assert first == ()
    assert [(track.id, track.seen, track.box_xyxy) for track in second] == [(1, True, (105, 100, 145, 180))]
    assert ids(third) == [1]
    assert (second[0].age_s, third[0].age_s) == pytest.approx((0.1, 0.2))


def test_what_flickers_once_never_becomes_a_track():
    tracker = Tracker(score=0.5)
    assert walk(tracker, [100, None, 100, None, 100]) == [()] * 5
    assert ids(walk(tracker, [300, 300], start_s=1)[1]) == [1]  # and costs no id


def test_ids_follow_objects_that_pass_each_other():
    tracker = Tracker(score=0.5)
    for n in range(25):
        a, b = 100 + 12 * n, 400 - 12 * n
        tracks = tracker.update(found((a, 100, 0.9), (b, 115, 0.8)), n * 0.1)
    assert [(track.id, round(track.box_xyxy[0])) for track in tracks] == [(1, 388), (2, 112)]


def test_an_unsure_detection_keeps_a_track_but_begins_none():
    tracker = Tracker(score=0.5, least_score=0.2)
    walk(tracker, [100, 100])
    (track,) = tracker.update(found((102, 100, 0.25)), 0.2)
    assert (track.id, track.seen, track.score) == (1, True, 0.25)
    assert tracker.update(found((102, 100, 0.15)), 0.3)[0].seen is False  # less than unsure
    assert ids(tracker.update(found((102, 100, 0.9), (400, 100, 0.4)), 0.4)) == [1]
    assert ids(tracker.update(found((102, 100, 0.9), (400, 100, 0.4)), 0.5)) == [1]


def test_an_unsure_detection_does_not_wake_a_lost_track():
    tracker = Tracker(score=0.5)
    walk(tracker, [100, 100, None])
    assert tracker.update(found((100, 100, 0.3)), 0.3)[0].seen is False
    assert tracker.update(found((100, 100, 0.6)), 0.4)[0].seen is True


def test_a_lost_track_is_expected_further_on_and_found_again():
    tracker = Tracker(score=0.5)
    frames = walk(tracker, [100, 110, 120, 130, 140, None, None, None, 180])
    assert [track.seen for (track,) in frames[1:]] == [True] * 4 + [False] * 3 + [True]
    assert all(ids(tracks) == [1] for tracks in frames[1:])
    assert lefts(frames[7]) == [pytest.approx(170, abs=8)]


def test_a_track_ends_when_nobody_saw_it_for_long():
    tracker = Tracker(score=0.5, lost_s=0.55)
    frames = walk(tracker, [100, 100] + [None] * 7)
    assert [len(tracks) for tracks in frames] == [0] + [1] * 6 + [0] * 2
    assert ids(walk(tracker, [100, 100], start_s=0.9)[1]) == [2]  # its id is never used again


def test_an_object_is_not_taken_for_one_of_another_class():
    tracker = Tracker(score=0.5)
    for n in range(3):
        tracks = tracker.update(found((100, 100, 0.9, 3), (104, 100, 0.8, 7)), n * 0.1)
    assert [(track.id, track.class_id) for track in tracks] == [(1, 3), (2, 7)]
    assert [track.seen for track in tracker.update(found((100, 100, 0.9, 7)), 0.3)] == [False, True]


def test_long_steps_count_as_long():
    # 200 pixels a second: five of six frames were dropped, and the boxes of 40 pixels no longer overlap.
    tracker = Tracker(score=0.5)
    walk(tracker, [100 + 20 * n for n in range(10)])
    (track,) = tracker.update(found((400, 100, 0.9)), 1.5)
    assert (track.id, track.seen) == (1, True)


def test_few_frames_a_second():
    # Boxes of 40 pixels that move by 30 overlap by a seventh, from the second frame on, when no velocity is known yet.
    frames = walk(Tracker(score=0.5), [100, 130, 160, 190], step_s=0.5)
    assert [ids(tracks) for tracks in frames] == [[], [1], [1], [1]]


@pytest.mark.parametrize("jump_s", [-3600.0, 0.0, -0.05])
def test_a_clock_that_runs_backwards_loses_nobody(jump_s):
    tracker = Tracker(score=0.5)
    walk(tracker, [100, 105, 110])
    frames = walk(tracker, [115, 120], start_s=0.2 + jump_s)
    assert [ids(tracks) for tracks in frames] == [[1], [1]]
    assert frames[1][0].age_s == pytest.approx(0.4)


def test_a_gap_longer_than_tracks_are_kept_ends_them():
    tracker = Tracker(score=0.5, lost_s=2)
    walk(tracker, [100, 100])
    assert tracker.update(found((100, 100, 0.9)), 3600) == ()
    assert ids(tracker.update(found((100, 100, 0.9)), 3600.1)) == [2]


def test_expected_boxes_are_those_of_everything_and_change_nothing():
    tracker = Tracker(score=0.5)
    assert tracker.expected(0.0).shape == (0, 4)
    walk(tracker, [100, 110, 120, 130, None])
    tracker.update(found((400, 100, 0.9)), 0.5)  # not confirmed yet
    expected = tracker.expected(0.6)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected, [[158, 100, 198, 180], [400, 100, 440, 180]], atol=8)
    np.testing.assert_array_equal(tracker.expected(0.6), expected)
    other = Tracker(score=0.5)
    walk(other, [100, 110, 120, 130, None])
    other.update(found((400, 100, 0.9)), 0.5)
    assert tracker.update(found((160, 100, 0.9)), 0.6) == other.update(found((160, 100, 0.9)), 0.6)


def test_no_detection_and_no_track():
    tracker = Tracker(score=0.5)
    assert [tracker.update(found(), n * 0.1) for n in range(3)] == [()] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": 1.2}, "0 <= least_score <= score <= 1, got 0.48 and 1.2"),
        ({"score": 0.3, "least_score": 0.4}, "got 0.4 and 0.3"),
        ({"score": 0.3, "confirmed": 0}, "confirmed should be 1 or more and lost_s over 0, got 0 and 2.0"),
        ({"score": 0.3, "lost_s": float("nan")}, "lost_s over 0, got 2 and nan"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tracker(**arguments)


ENTRY = st.tuples(st.floats(-50, 600), st.floats(-50, 400), st.floats(0, 1, width=32), st.integers(0, 2))
FRAME = st.tuples(st.lists(ENTRY, max_size=6), st.floats(-1, 3))


@settings(deadline=None, max_examples=150)
@given(st.lists(FRAME, max_size=15))
def test_whatever_comes(frames):
    """Ids begin with 1 and have no gap, none comes back, ages grow, and equal input gives equal tracks."""
    one, other = Tracker(score=0.5), Tracker(score=0.5)
    time_s, most, gone, ages = 0.0, 0, set(), {}
    for entries, step_s in frames:
        time_s += step_s
        detections = found(*entries)
        tracks = one.update(detections, time_s)
        assert tracks == other.update(detections, time_s)
        now = ids(tracks)
        assert now == sorted(set(now))
        assert not gone & set(now)
        assert set(range(most + 1, max(now, default=most) + 1)) <= set(now)  # new ones follow without a gap
        most = max(most, *now, 0)
        gone |= ages.keys() - set(now)
        for track in tracks:
            assert track.age_s >= ages.get(track.id, 0)
            assert np.isfinite(track.box_xyxy).all()
        ages = {track.id: track.age_s for track in tracks}
        boxes = {tuple(box) for box in detections.boxes_xyxy.tolist()}
        assert all(track.box_xyxy in boxes for track in tracks if track.seen)


def test_confident_ones_are_what_sinks_may_see():
    both = found((0, 0, 0.9), (50, 0, 0.3), (90, 0, 0.5))
    shown = confident(both, 0.5)
    assert shown.scores.tolist() == pytest.approx([0.9, 0.5])
    assert shown.boxes_xyxy.tolist() == both.boxes_xyxy[:2].tolist()
    assert len(confident(both, 0.95)) == 0


def test_a_crowd_is_followed_as_a_few_are(monkeypatch):
    generator = np.random.default_rng(0)
    places, steps = generator.uniform(0, 900, (30, 2)), generator.normal(0, 6, (30, 2))
    frames = [
        found(*((*(places[k] + n * steps[k]), generator.uniform(0.2, 1), k % 2) for k in range(30))) for n in range(20)
    ]
    seen = []
    for few in (0, 10**9):
        monkeypatch.setattr(module, "FEW_PAIRS", few)
        tracker = Tracker(score=0.5)
        seen.append([tracker.update(frame, n * 0.1) for n, frame in enumerate(frames)])
    crowd, few = ([[(t.id, t.seen, t.class_id) for t in tracks] for tracks in run] for run in seen)
    assert crowd == few
    assert max(map(len, crowd)) > 20
