"""Zones files: what they mean, and what a hostile one gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.tracking.zones import Line, Zone, Zones, parse_zones, read_zones, zones_document

SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
GATE = {"name": "gate", "from": [0.2, 0.6], "to": [0.8, 0.6]}


def parse(document: Any) -> Zones:
    return parse_zones(document if isinstance(document, bytes) else json.dumps(document).encode(), "zones.json")


def test_the_example_of_the_documentation() -> None:
    zones = parse({"polygons": [[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0], [0.1, 1.0]]], "names": ["drive"], "lines": [GATE]})
    assert [zone.name for zone in zones.zones] == ["drive"]
    assert zones.zones[0].corners.tolist() == [[0.1, 0.5], [0.9, 0.5], [0.9, 1.0], [0.1, 1.0]]
    assert zones.lines == (Line(name="gate", start=(0.2, 0.6), end=(0.8, 0.6)),)


def test_names_are_numbers_where_there_are_none() -> None:
    nameless = {"from": [0, 0], "to": [1, 1]}
    zones = parse({"polygons": [SQUARE, SQUARE, SQUARE], "names": [None, "b", None], "lines": [nameless]})
    assert [zone.name for zone in zones.zones] == ["zone 1", "b", "zone 3"]
    assert [line.name for line in zones.lines] == ["line 1"]
    assert [zone.name for zone in parse({"polygons": [SQUARE]}).zones] == ["zone 1"]


def test_pixels_become_shares() -> None:
    document = {"polygons": [[[0, 0], [64, 0], [64, 24]]], "normalised": False, "width": 128, "height": 48,
                "lines": [{"from": [0, 48], "to": [32, 0]}]}  # fmt: skip
    zones = parse(document)
    assert zones.zones[0].corners.tolist() == [[0, 0], [0.5, 0], [0.5, 0.5]]
    assert zones.lines[0] == Line(name="line 1", start=(0, 1), end=(0.25, 0))


def test_there_may_be_lines_alone_or_nothing() -> None:
    assert parse({"polygons": [], "lines": [GATE]}).zones == ()
    assert parse({"polygons": []}) == Zones()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "zones.json: these are not JSON"),
        (b"[" * 100_000, "these are not JSON"),
        (b"\xff\xfe\x00", "these are not JSON"),
        (b'{"polygons": [[[' + b"9" * 5000 + b", 0]]]}", "these are not JSON"),
        (b" " * 262_145, "zones.json is larger than 256 KiB"),
        ([], 'expected {"polygons": [[[x, y], ...], ...]}, got []'),
        ({"lines": [GATE]}, 'expected {"polygons": [[[x, y], ...], ...]}'),
        ({"polygons": SQUARE, "zones": 1}, "unknown key 'zones'; the keys are height, lines, names, normalised"),
        ({"polygons": [SQUARE[:2]]}, "polygons[0] must be a list of at least 3 [x, y] corners"),
        ({"polygons": [SQUARE, [1, 2, 3]]}, "polygons[1][0] must be [x, y] in numbers, got 1"),
        ({"polygons": [[*SQUARE, [0, "x"]]]}, "polygons[0][4] must be [x, y] in numbers, got [0, 'x']"),
        ({"polygons": [[*SQUARE, [0, True]]]}, "polygons[0][4] must be [x, y] in numbers"),
        ({"polygons": [[*SQUARE, [0, float("nan")]]]}, "polygons[0][4] must be [x, y] in numbers, got [0, nan]"),
        ({"polygons": [[*SQUARE, [0, 10**400]]]}, "polygons[0][4] = [0, 1"),
        ({"polygons": [[*SQUARE, [0, 1.5]]]}, "polygons[0][4] = [0, 1.5] lies outside 0..1 (normalised)"),
        ({"polygons": [[[0.1, 0.1]] * 257]}, "polygons[0] has 257 entries, and at most 256 are allowed"),
        ({"polygons": [SQUARE] * 65}, "polygons has 65 entries, and at most 64 are allowed"),
        ({"polygons": [SQUARE], "normalised": 1}, "normalised must be true or false, got 1"),
        ({"polygons": [SQUARE], "normalised": False}, "width must be a whole number of pixels, got None"),
        ({"polygons": [SQUARE], "normalised": False, "width": 9, "height": 0}, "height must be a whole number"),
        ({"polygons": [SQUARE], "normalised": False, "width": 9**99, "height": 1}, "width must be a whole number"),
        (
            {"polygons": [[[0, 0], [9, 0], [9, 11]]], "normalised": False, "width": 9, "height": 10},
            "polygons[0][2] = [9, 11] lies outside the picture of 9 x 10 pixels",
        ),
        ({"polygons": [[[0, 0], [0.5, 0], [1, 0]]]}, "polygons[0] covers no area"),
        ({"polygons": [SQUARE], "names": "drive"}, "names must be a list with a name or null for each of 1 polygons"),
        ({"polygons": [SQUARE], "names": []}, "names must be a list with a name or null for each of 1 polygons"),
        ({"polygons": [SQUARE], "names": [7]}, "names[0] must be 1 to 64 printable characters, got 7"),
        ({"polygons": [SQUARE], "names": [" "]}, "names[0] must be 1 to 64 printable characters"),
        ({"polygons": [SQUARE], "names": ["x" * 65]}, "names[0] must be 1 to 64 printable characters"),
        ({"polygons": [SQUARE], "names": ["\x1b[2J"]}, r"names[0] must be 1 to 64 printable characters, got '\x1b[2J'"),
        ({"polygons": [SQUARE], "names": ["\ud800"]}, "names[0] must be 1 to 64 printable characters"),
        ({"polygons": [SQUARE, SQUARE], "names": ["a", "a"]}, "two polygons are called 'a'"),
        ({"polygons": [SQUARE, SQUARE], "names": ["zone 2", None]}, "two polygons are called 'zone 2'"),
        ({"polygons": [], "lines": {}}, "lines must be a list, got {}"),
        ({"polygons": [], "lines": [GATE] * 65}, "lines has 65 entries, and at most 64 are allowed"),
        ({"polygons": [], "lines": [GATE, GATE]}, "two lines are called 'gate'"),
        ({"polygons": [], "lines": [{"from": [0, 0]}]}, 'lines[0] must be {"name": ..., "from": [x, y], "to": [x, y]}'),
        ({"polygons": [], "lines": [{**GATE, "x": 1}]}, "lines[0] must be"),
        ({"polygons": [], "lines": [{**GATE, "to": [2, 0]}]}, "lines[0].to = [2, 0] lies outside 0..1"),
        ({"polygons": [], "lines": [{**GATE, "to": [0.2, 0.6]}]}, "lines[0] has no length"),
        ({"polygons": [], "lines": [{**GATE, "name": ""}]}, "lines[0].name must be 1 to 64 printable characters"),
    ],
)
def test_malformed_files(document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse(document)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_zones(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_zones(tmp_path)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    with pytest.raises(UsageError):
        parse(content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries(
        {"polygons": st.lists(st.just(SQUARE) | VALUES, max_size=3)},
        optional={"names": VALUES, "lines": st.lists(st.just(GATE) | VALUES, max_size=3), "normalised": VALUES,
                  "width": VALUES, "height": VALUES},
    )
)  # fmt: skip
def test_no_json_does_more_than_be_refused(document: Any) -> None:
    zones, message = None, ""
    try:
        zones = parse(document)
    except UsageError as error:
        message = str(error)
    assert "\x1b" not in message
    assert len(message) < 250
    if zones is not None:
        assert all(zone.corners.min() >= 0 and zone.corners.max() <= 1 for zone in zones.zones)


@pytest.mark.parametrize("depth", [50, 500, 900, 990, 1000, 1100, 5000])
def test_nesting_of_any_depth_is_refused(depth: int) -> None:
    with pytest.raises(UsageError):
        parse(b'{"polygons": [' + b"[" * depth + b"]" * depth + b"]}")


SHARE = st.floats(0, 1)
POINT = st.tuples(SHARE, SHARE)
NAME = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and bool(name.strip()))
CORNERS = st.lists(POINT, min_size=3, max_size=6).filter(
    lambda corners: len({x for x, _ in corners}) > 1 and len({y for _, y in corners}) > 1
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAME, CORNERS), max_size=4, unique_by=lambda zone: zone[0]),
    st.lists(st.tuples(NAME, POINT, POINT), max_size=4, unique_by=lambda line: line[0]),
)
def test_what_is_written_is_read_again(shapes: list[Any], segments: list[Any]) -> None:
    lines = tuple(Line(name=name, start=start, end=end) for name, start, end in segments if start != end)
    zones = Zones(zones=tuple(Zone(name=name, corners=np.array(corners)) for name, corners in shapes), lines=lines)
    again = parse_zones(zones_document(zones), "again")
    assert again.lines == zones.lines
    assert [(zone.name, zone.corners.tolist()) for zone in again.zones] == [
        (zone.name, zone.corners.tolist()) for zone in zones.zones
    ]


def test_the_written_file_is_for_people() -> None:
    zones = parse({"polygons": [SQUARE], "names": ["Einfahrt ö"], "lines": [GATE]})
    assert zones_document(zones).decode() == (
        '{\n "polygons": [\n  [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]\n ],\n "names": ["Einfahrt ö"],\n'
        ' "lines": [\n  {"name": "gate", "from": [0.2, 0.6], "to": [0.8, 0.6]}\n ]\n}\n'
    )
    assert zones_document(Zones()).decode() == '{\n "polygons": [],\n "names": [],\n "lines": []\n}\n'
