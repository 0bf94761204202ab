"""What ``--source`` accepts, taken apart: ``scheme://address?key=value``, or a path.

Queries are read strictly: an unknown key, a key given twice and a value out of range are errors that name what would
have been right. URLs of network streams are the exception: theirs belong to the server, and are passed on untouched.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from edgekit.errors import UsageError

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "tcp", "udp")
"""Schemes of URLs that are live streams; ``file://`` is a file like any other."""

SCHEMES = ("usb", "csi", *STREAM_SCHEMES, "stdin", "demo", "file")
"""Everything before ``://`` that is a source."""

LARGEST_SIDE = 16384
"""Pixels: a longer side is a typing error, and would ask for gigabytes."""

LARGEST_FPS = 1000.0


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How an attached camera should be set; ``None`` leaves it as it is."""

    height: int | None = None
    """Pixels."""

    width: int | None = None
    """Pixels."""

    fps: float | None = None
    """Frames a second."""

    format: str | None = None
    """Pixel format, one of those that the scheme knows."""


@dataclass(frozen=True, kw_only=True)
class RawOptions:
    """What raw frames on a pipe look like."""

    height: int
    width: int
    format: str
    fps: float | None = None
    live: bool = False
    """Give only the newest frame; otherwise every one."""


@dataclass(frozen=True, kw_only=True)
class SourceUri:
    """A source that is not a plain path."""

    text: str
    """As it was typed; messages quote it."""

    scheme: str
    """In lower case, one of :data:`SCHEMES`."""

    address: str
    """What stands between ``://`` and ``?``."""

    query: str = ""
    """What stands after ``?``."""


def parse_uri(text: str) -> SourceUri | None:
    """Take ``text`` apart; ``None`` when it is the path of a file, a folder or a glob.

    The short spellings are those of ``usb://`` (``0``, ``/dev/video0``) and ``demo://`` (``demo``, ``demo:7``).

    Raises:
        UsageError: it begins with a scheme that no source has.
    """
    if demo := re.fullmatch(r"demo(?::([0-9]+))?", text):
        return SourceUri(text=text, scheme="demo", address=demo[1] or "")
    if re.fullmatch(r"[0-9]+|/dev/video[0-9]+|/dev/v4l/.+", text):
        return SourceUri(text=text, scheme="usb", address=text)
    scheme, mark, rest = text.partition("://")
    if not mark:
        return None
    if scheme.lower() not in SCHEMES:
        raise UsageError(_unknown_scheme(scheme.lower()))
    address, _, query = rest.partition("?")
    return SourceUri(text=text, scheme=scheme.lower(), address=address, query=query)


def camera_options(uri: SourceUri, *, formats: Iterable[str]) -> CameraOptions:
    """The query ``size=1280x720&fps=30&format=...`` of an attached camera; every part may be left out.

    Without ``formats`` there is no such key.

    Raises:
        UsageError: an unknown key, or a value that cannot be.
    """
    formats = tuple(formats)
    values = _query(uri, ("size", "fps", "format") if formats else ("size", "fps"))
    height, width = _size(uri, values["size"]) if "size" in values else (None, None)
    return CameraOptions(
        height=height,
        width=width,
        fps=_fps(uri, values["fps"]) if "fps" in values else None,
        format=_choice(uri, "format", values["format"], formats) if "format" in values else None,
    )


def raw_options(uri: SourceUri, *, formats: Iterable[str]) -> RawOptions:
    """The query ``size=640x480&format=rgb24&fps=25&live=yes`` of ``stdin://``; size and format are needed.

    Raises:
        UsageError: an unknown or absent key, a value that cannot be, or an odd side of halved colour planes.
    """
    values = _query(uri, ("size", "format", "fps", "live"))
    formats = tuple(formats)
    if uri.address:
        raise UsageError(f"{uri.text}: nothing stands between stdin:// and ?, but {uri.address!r} does")
    for key in ("size", "format"):
        if key not in values:
            raise UsageError(
                f"{uri.text}: raw frames do not say what they are, so {key} must.\n"
                f"Write it as stdin://?size=640x480&format={formats[0]} (or {', '.join(formats[1:])}), in quotes"
            )
    height, width = _size(uri, values["size"])
    pixel_format = _choice(uri, "format", values["format"], formats)
    if "420" in pixel_format and (height % 2 or width % 2):
        raise UsageError(f"{uri.text}: {pixel_format} halves its colour planes, so width and height must be even")
    return RawOptions(
        height=height,
        width=width,
        format=pixel_format,
        fps=_fps(uri, values["fps"]) if "fps" in values else None,
        live=_choice(uri, "live", values.get("live", "no"), ("yes", "no")) == "yes",
    )


def number_in(uri: SourceUri, what: str) -> int:
    """The address as a number from 0, e.g. a camera's index; an empty one is 0.

    Raises:
        UsageError: it is something else.
    """
    # No index has more digits, and Python refuses to read thousands of them.
    if not re.fullmatch(r"[0-9]{0,9}", uri.address):
        raise UsageError(f"{uri.text}: {what} is a number from 0, as in {uri.scheme}://0, not {uri.address!r}")
    return int(uri.address or 0)


def device_in(uri: SourceUri) -> int | Path:
    """The address of ``usb://`` as an index, or as a path in ``/dev`` that is not simply ``/dev/videoINDEX``.

    Raises:
        UsageError: it is something else.
    """
    if numbered := re.fullmatch(r"/dev/video([0-9]{1,9})", uri.address):
        return int(numbered[1])
    return Path(uri.address) if uri.address.startswith("/dev/") else number_in(uri, "the camera")


def _query(uri: SourceUri, known: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    try:
        pairs = parse_qsl(uri.query, keep_blank_values=True, errors="strict")
    except ValueError as error:  # too many fields, or bytes that are no text
        raise UsageError(f"{uri.text}: the part after ? cannot be read: {error}") from error
    for key, value in pairs:
        if key not in known:
            raise UsageError(f"{uri.text}: {uri.scheme}:// has no option {key!r}; {_hint(key, known)}")
        if key in values:
            raise UsageError(f"{uri.text}: {key} is given twice")
        values[key] = value
    return values


def _size(uri: SourceUri, value: str) -> tuple[int, int]:
    """(height, width); it is typed the other way round."""
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", value)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise UsageError(
            f"{uri.text}: size is WIDTHxHEIGHT in pixels, as in size=1280x720, each at most {LARGEST_SIDE};"
            f" it is {value!r}"
        )
    return height, width


def _fps(uri: SourceUri, value: str) -> float:
    try:
        fps = float(value)
    except ValueError:
        fps = math.nan
    if not 0 < fps <= LARGEST_FPS:
        raise UsageError(
            f"{uri.text}: fps is frames a second, over 0 and at most {LARGEST_FPS:.0f}; it is {value!r}"
        ) from None
    return fps


def _choice(uri: SourceUri, key: str, value: str, known: Iterable[str]) -> str:
    known = tuple(known)
    if value not in known:
        raise UsageError(f"{uri.text}: {key} cannot be {value!r}; {_hint(value, known)}")
    return value


def _hint(given: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(given.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"


def _unknown_scheme(scheme: str) -> str:
    near = difflib.get_close_matches({"v4l2": "usb", "camera": "usb"}.get(scheme, scheme), SCHEMES, n=1)
    known = ", ".join(f"{name}://" for name in SCHEMES)
    message = f"no source begins with {scheme}://; there are {known}, a camera index, a path, or demo."
    return message + (f"\nDid you mean {near[0]}://?" if near else "")
