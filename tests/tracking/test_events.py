"""Events: each happens once, and standing on a border is none."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.tracking import Track
from edgekit.tracking.events import DWELL_S, EventFinder, Moment
from edgekit.tracking.zones import Line, Zone, Zones

HEIGHT, WIDTH = 240, 320
DOOR = Zone(
    name="door", corners=np.array([[0.25, 0.5], [0.75, 0.5], [0.75, 1.0], [0.25, 1.0]])
)  # x 80..240, y 120..240
GATE = Line(name="gate", start=(0.0, 0.5), end=(0.5, 0.5))  # y 120, from x 0 to 160


def track(x, y, *, number=1, age_s=0.0, seen=True):
    """A track of 40 x 90 pixels (margin: 6) that stands at x, y."""
    return Track(
        id=number, class_id=2, score=0.8, box_xyxy=(x - 20.0, y - 90.0, x + 20.0, float(y)), age_s=age_s, seen=seen
    )


def moment(frame, *, height=HEIGHT, width=WIDTH):
    return Moment(frame=frame, time_s=1000 + frame / 10, source="camera 0", height=height, width=width)


def run(finder, places, *, start=0, number=1):
    """One track at each of ``places`` in turn, ten frames a second; ``None`` is gone, a third item False is unseen."""
    events = []
    for frame, place in enumerate(places, start):
        tracks = []
        if place is not None:
            x, y, *seen = place
            tracks = [track(x, y, number=number, age_s=frame / 10, seen=not seen or seen[0])]
        events += finder.find(tracks, moment(frame))
    return events


def told(events):
    return [(event.kind, event.frame) for event in events]


def test_a_track_enters_and_leaves_once():
    events = run(EventFinder(), [(50, 100), (55, 100), (60, 100, False), (60, 100, False), None, None])
    assert told(events) == [("enter", 0), ("leave", 4)]
    enter, leave = events
    assert (enter.track_id, enter.class_id, enter.score, enter.time_s, enter.source) == (1, 2, 0.8, 1000.0, "camera 0")
    assert (enter.place, enter.direction, enter.seconds) == (None, None, None)
    assert leave.seconds == pytest.approx(0.1)  # it was last seen in the second frame
    assert leave.box_xyxy == (35.0, 10.0, 75.0, 100.0)


def test_a_visit_of_a_zone():
    places = [(160, y) for y in range(100, 240, 10)] + [(160, 238)] * 100 + [(300, 238)] * 3 + [None]
    events = run(EventFinder(Zones(zones=(DOOR,)), dwell_s=5), places)
    assert told(events) == [("enter", 0), ("zone_enter", 4), ("dwell", 54), ("zone_leave", 115), ("leave", 117)]
    assert [event.place for event in events] == [None, "door", "door", "door", None]
    assert [event.seconds for event in events] == pytest.approx([None, None, 5, 11.1, 11.6])


def test_who_disappears_in_a_zone_leaves_it_first():
    events = run(EventFinder(Zones(zones=(DOOR,))), [(160, 200)] * 5 + [None])
    assert told(events) == [("enter", 0), ("zone_enter", 1), ("zone_leave", 5), ("leave", 5)]
    assert events[2].seconds == pytest.approx(0.3)


@pytest.mark.parametrize("dwell_s", [None, 10.1])
def test_dwelling_that_is_not_asked_for_or_too_short(dwell_s):
    finder = EventFinder(Zones(zones=(DOOR,)), dwell_s=dwell_s)
    assert told(run(finder, [(160, 200)] * 101)) == [("enter", 0), ("zone_enter", 1)]


def test_who_is_only_expected_in_a_zone_is_not_there():
    finder = EventFinder(Zones(zones=(DOOR,)))
    assert told(run(finder, [(160, 100)] * 3 + [(160, 200, False)] * 9)) == [("enter", 0)]


def test_the_lower_edge_of_the_picture_belongs_to_a_zone_that_reaches_it():
    finder = EventFinder(Zones(zones=(DOOR,)))
    assert told(run(finder, [(160, HEIGHT)] * 3)) == [("enter", 0), ("zone_enter", 1)]


def test_jitter_on_the_border_of_a_zone_is_one_event():
    random = np.random.default_rng(0)
    places = [(160, 120 + random.uniform(-5.9, 5.9)) for _ in range(500)]  # within the margin of 6 pixels
    events = run(EventFinder(Zones(zones=(DOOR,)), dwell_s=None), places)
    assert Counter(event.kind for event in events) == {"enter": 1, "zone_enter": 1}


@pytest.mark.parametrize(
    ("x", "ys", "directions"),
    [
        (80, range(80, 160, 8), ["in"]),
        (80, range(160, 80, -8), ["out"]),
        (80, [80, 160, 80, 160], ["in", "out", "in"]),
        (240, range(80, 160, 8), []),  # past the end of the segment
        (80, range(80, 126, 5), []),  # over the line by less than the margin
        (80, [80, 123, 80, 123, 80], []),
    ],
)
def test_crossing_a_line(x, ys, directions):
    events = run(EventFinder(Zones(lines=(GATE,))), [(x, y) for y in ys])[1:]
    assert [event.kind for event in events] == ["line"] * len(directions)
    assert [event.direction for event in events] == directions
    assert all(event.place == "gate" for event in events)


def test_jitter_on_a_line_is_no_crossing():
    random = np.random.default_rng(0)
    places = [(80, 120 + random.uniform(-5.9, 5.9)) for _ in range(500)]
    assert told(run(EventFinder(Zones(lines=(GATE,))), places)) == [("enter", 0)]


def test_a_camera_that_changes_its_resolution_moves_nobody_over_a_line():
    finder = EventFinder(Zones(lines=(GATE,), zones=(DOOR,)))
    places = [(100, 110), (102, 112)]
    assert told(run(finder, places)) == [("enter", 0)]
    events = finder.find([track(204, 224, age_s=0.3)], moment(3, height=480, width=640))
    assert events == ()
    events = finder.find([track(204, 270, age_s=0.4)], moment(4, height=480, width=640))
    assert told(events) == [("line", 4)]


def test_several_tracks_and_their_order():
    finder = EventFinder(Zones(zones=(DOOR,), lines=(GATE,)))
    finder.find([track(100, 100, number=1), track(200, 200, number=2)], moment(0))
    events = finder.find([track(100, 140, number=1), track(200, 200, number=2), track(9, 9, number=3)], moment(1))
    assert [(event.kind, event.track_id) for event in events] == [("enter", 3), ("line", 1), ("zone_enter", 2)]
    events = finder.find([], moment(2))
    assert [(event.kind, event.track_id) for event in events] == [
        ("leave", 1),
        ("zone_leave", 2),
        ("leave", 2),
        ("leave", 3),
    ]


def test_zones_that_change_while_somebody_is_inside():
    finder = EventFinder(Zones(zones=(DOOR,)))
    run(finder, [(160, 200)] * 3)
    finder.use(Zones(zones=(Zone(name="door", corners=DOOR.corners.copy()),), lines=(GATE,)))
    assert run(finder, [(160, 200)] * 3, start=3) == []  # the same zone: nobody came in anew
    moved = Zone(name="door", corners=DOOR.corners * 0.9)
    finder.use(Zones(zones=(moved,)))
    assert told(run(finder, [(160, 200)] * 3, start=6)) == [("zone_enter", 7)]
    finder.use(Zones())
    assert told(run(finder, [None], start=9)) == [("leave", 9)]


def test_the_clock_of_the_day_measures_no_dwelling():
    finder = EventFinder(Zones(zones=(DOOR,)), dwell_s=5)
    run(finder, [(160, 200)] * 3)
    later = Moment(frame=3, time_s=99999, source="camera 0", height=HEIGHT, width=WIDTH)
    assert finder.find([track(160, 200, age_s=0.4)], later) == ()


@pytest.mark.parametrize("dwell_s", [0, -1, float("nan")])
def test_dwelling_takes_time(dwell_s):
    with pytest.raises(ValueError, match="dwell_s should be over 0 seconds"):
        EventFinder(dwell_s=dwell_s)


STEP = st.tuples(st.booleans(), st.integers(0, WIDTH), st.integers(0, HEIGHT), st.booleans())


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(STEP, min_size=3, max_size=3), min_size=1, max_size=40))
def test_whatever_tracks_do(frames):
    """Of each track: enter first and once, leave last and once; visits open and close in turn, one dwell in each."""
    zones = Zones(zones=(DOOR, Zone(name="all", corners=np.array([[0, 0], [1, 0], [1, 1.0]]))), lines=(GATE,))
    finder = EventFinder(zones, dwell_s=0.5)
    gone, began, events = set(), {}, []
    for frame, steps in enumerate([*frames, [(False, 0, 0, False)] * 3]):
        tracks = []
        for number, (there, x, y, seen) in enumerate(steps, 1):
            if number in began and not there:
                gone.add(number)
            if there and number not in gone:  # ids do not come back
                age_s = (frame - began.setdefault(number, frame)) / 10
                tracks.append(track(x, y, number=number, age_s=age_s, seen=seen or age_s == 0))
        events += finder.find(tracks, moment(frame))
    for number in began:
        mine = [event for event in events if event.track_id == number]
        kinds = [event.kind for event in mine]
        assert (kinds[0], kinds[-1]) == ("enter", "leave")
        assert kinds.count("enter") == kinds.count("leave") == 1
        for place in ("door", "all"):
            assert_visits([event.kind for event in mine if event.place == place])
        crossings = [event.direction for event in mine if event.kind == "line"]
        assert all(direction in ("in", "out") for direction in crossings)
        assert all(event.seconds is None or event.seconds >= 0 for event in mine)


def assert_visits(kinds):
    """``zone_enter``, at most one ``dwell``, ``zone_leave``, and again."""
    inside, dwelt = False, False
    for kind in kinds:
        assert inside is (kind != "zone_enter")
        assert not (kind == "dwell" and dwelt)
        inside, dwelt = kind != "zone_leave", kind == "dwell"
    assert not inside  # everybody has left at the end


def test_the_usual_dwelling_is_seconds_not_minutes():
    finder = EventFinder(Zones(zones=(DOOR,)))
    events = run(finder, [(160, 200)] * (int(DWELL_S) * 10 + 5))
    assert [event.kind for event in events] == ["enter", "zone_enter", "dwell"]


def test_nothing_is_remembered_of_who_is_gone():
    finder = EventFinder(Zones(zones=(DOOR,), lines=(GATE,)))
    for number in range(1, 500):
        finder.find([track(80, 100 + number % 60, number=number)], moment(number))
    assert len(finder._known) == 1
    finder.find([], moment(500))
    assert finder._known == {}
