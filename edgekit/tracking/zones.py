"""Zones and lines on a camera's picture: the JSON file that holds them.

The file::

    {"polygons": [[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0], [0.1, 1.0]]],
     "names": ["drive"],
     "lines": [{"name": "gate", "from": [0.2, 0.6], "to": [0.8, 0.6]}]}

Each polygon is a list of at least three [x, y] corners in order around its outline; x grows rightwards and y downwards.
``"names"``, if it is there, has a name or null for each polygon. A crossing of a line counts as ``in`` from the left of
the line to its right, seen from its first end to its second. Numbers run from 0 to 1 over the source picture; with
``"normalised": false`` they are pixels of a picture of the ``"width"`` and ``"height"`` that the file then must give.
Either way everything follows when the camera delivers another resolution.

The browser page writes such files, so what is read here may come from anybody: size, counts and names have limits.
"""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError

Corners = NDArray[np.float64]
"""[corners, 2] x, y in 0..1 of the source picture."""

KEYS = {"polygons", "names", "lines", "normalised", "width", "height"}
MAX_BYTES = 256 * 1024
MAX_ZONES = MAX_LINES = 64
MAX_CORNERS = 256
MAX_NAME = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Zone:
    """A named polygon."""

    name: str
    corners: Corners


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named line segment."""

    name: str
    start: tuple[float, float]
    """x, y in 0..1 of the source picture."""

    end: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Zones:
    """What one file holds."""

    zones: tuple[Zone, ...] = ()
    lines: tuple[Line, ...] = ()


def read_zones(path: Path) -> Zones:
    """The zones and lines of a file.

    Raises:
        UsageError: the file is missing or malformed; the message names the file and the entry.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the zones {path} cannot be read: {error.strerror or error}") from error
    return parse_zones(content, str(path))


def parse_zones(content: bytes, where: str) -> Zones:
    """The zones and lines of ``content``, which is the text of a file and may come from a stranger.

    Args:
        content: UTF-8.
        where: what messages call it: a file's name, or for example ``the request``.

    Raises:
        UsageError: it is malformed, or larger than what a camera needs; the message names the entry.
    """
    if len(content) > MAX_BYTES:
        raise UsageError(f"{where} is larger than {MAX_BYTES // 1024} KiB, so these are no zones that anybody drew")
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: these are not JSON: {str(error) or 'too deeply nested'}") from error
    if not isinstance(document, dict) or not isinstance(document.get("polygons"), list):
        raise UsageError(f'{where}: expected {{"polygons": [[[x, y], ...], ...]}}, got {_short(document)}')
    if unknown := sorted(set(document) - KEYS):
        raise UsageError(f"{where}: unknown key {_short(unknown[0])}; the keys are {', '.join(sorted(KEYS))}")
    limit = _limit(document, where)
    polygons = _entries(document["polygons"], f"{where}: polygons", MAX_ZONES)
    names = _names(document.get("names"), len(polygons), f"{where}: names")
    zones = tuple(
        Zone(name=name, corners=_polygon(entry, f"{where}: polygons[{i}]", limit))
        for i, (entry, name) in enumerate(zip(polygons, names, strict=True))
    )
    entries = _entries(document.get("lines", []), f"{where}: lines", MAX_LINES)
    lines = tuple(_line(entry, i, f"{where}: lines[{i}]", limit) for i, entry in enumerate(entries))
    for kind, all_names in (("polygons", names), ("lines", [line.name for line in lines])):
        if twice := sorted({name for name in all_names if all_names.count(name) > 1}):
            raise UsageError(f"{where}: two {kind} are called {twice[0]!r}; events and masks could not tell them apart")
    return Zones(zones=zones, lines=lines)


def zones_document(zones: Zones) -> bytes:
    """The text of a file that holds ``zones``: UTF-8, an entry a line."""
    polygons = [json.dumps(zone.corners.tolist()) for zone in zones.zones]
    lines = [
        json.dumps({"name": line.name, "from": line.start, "to": line.end}, ensure_ascii=False) for line in zones.lines
    ]
    names = json.dumps([zone.name for zone in zones.zones], ensure_ascii=False)
    parts = [f'"polygons": {_lines(polygons)}', f'"names": {names}', f'"lines": {_lines(lines)}']
    return ("{\n " + ",\n ".join(parts) + "\n}\n").encode()


def _lines(entries: list[str]) -> str:
    return "[\n  " + ",\n  ".join(entries) + "\n ]" if entries else "[]"


def _entries(value: object, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{where} must be a list, got {_short(value)}")
    if len(value) > most:
        raise UsageError(f"{where} has {len(value)} entries, and at most {most} are allowed")
    return value


def _names(value: object, count: int, where: str) -> list[str]:
    if value is None:
        value = [None] * count
    if not isinstance(value, list) or len(value) != count:
        raise UsageError(
            f"{where} must be a list with a name or null for each of {count} polygons, got {_short(value)}"
        )
    return [_name(name, f"zone {i + 1}", f"{where}[{i}]") for i, name in enumerate(value)]


def _name(value: object, default: str, where: str) -> str:
    if value is None:
        return default
    # Printable: names end in terminals, logs, MQTT topics and web pages. This leaves out half surrogate pairs too.
    if not isinstance(value, str) or not value.isprintable() or not value.strip() or len(value) > MAX_NAME:
        raise UsageError(f"{where} must be 1 to {MAX_NAME} printable characters, got {_short(value)}")
    return value


def _line(entry: object, index: int, where: str, limit: tuple[float, float]) -> Line:
    if not isinstance(entry, dict) or not {"from", "to"} <= set(entry) <= {"name", "from", "to"}:
        raise UsageError(f'{where} must be {{"name": ..., "from": [x, y], "to": [x, y]}}, got {_short(entry)}')
    name = _name(entry.get("name"), f"line {index + 1}", f"{where}.name")
    ends = [_corner(entry[key], f"{where}.{key}", limit) for key in ("from", "to")]
    start, end = ((x / limit[0], y / limit[1]) for x, y in ends)
    if start == end:
        raise UsageError(f"{where} has no length: it begins where it ends")
    return Line(name=name, start=start, end=end)


def _limit(document: dict[str, Any], where: str) -> tuple[float, float]:
    """The x and y of the lower right corner of the picture in the file's own unit."""
    normalised = document.get("normalised", True)
    if not isinstance(normalised, bool):
        raise UsageError(f"{where}: normalised must be true or false, got {_short(normalised)}")
    if normalised:
        return 1.0, 1.0
    width, height = document.get("width"), document.get("height")
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65536:
            raise UsageError(
                f"{where}: {name} must be a whole number of pixels, got {_short(value)}; "
                "polygons in pixels need the size of the picture that they were drawn on"
            )
    assert isinstance(width, int)
    assert isinstance(height, int)
    return float(width), float(height)


def _polygon(entry: object, where: str, limit: tuple[float, float]) -> Corners:
    if not isinstance(entry, list) or len(entry) < 3:
        raise UsageError(f"{where} must be a list of at least 3 [x, y] corners, got {_short(entry)}")
    entry = _entries(entry, where, MAX_CORNERS)
    corners = np.array([_corner(point, f"{where}[{i}]", limit) for i, point in enumerate(entry)])
    if np.ptp(corners[:, 0]) == 0 or np.ptp(corners[:, 1]) == 0:
        raise UsageError(f"{where} covers no area: its corners lie on one line")
    return np.asarray(corners / np.array(limit), np.float64)


def _corner(point: object, where: str, limit: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2 or not all(_is_number(value) for value in point):
        raise UsageError(f"{where} must be [x, y] in numbers, got {_short(point)}")
    if not all(0 <= value <= top for value, top in zip(point, limit, strict=True)):
        unit = "0..1 (normalised)" if limit == (1.0, 1.0) else f"the picture of {limit[0]:g} x {limit[1]:g} pixels"
        raise UsageError(f"{where} = {_short(point)} lies outside {unit}")
    return float(point[0]), float(point[1])


def _is_number(value: object) -> bool:
    # A whole number of thousands of digits is JSON, too, and no float; it lies outside every picture.
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, float) and math.isfinite(value))


def _short(value: object) -> str:
    # Neither as long nor as deep as a stranger's file may be, and without codes that a terminal obeys.
    text = reprlib.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:57] + "..."
