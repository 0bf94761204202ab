"""Network cameras: any URL that OpenCV's FFmpeg opens, treated as live.

``OPENCV_FFMPEG_CAPTURE_OPTIONS`` in the environment replaces the options below, for example by
``rtsp_transport;udp`` for a camera that does not speak RTSP over TCP. A stream that changes its size without hanging up
is scaled to its first one by OpenCV; after a loss the size is new.
"""

from __future__ import annotations

import os
import re
import socket
import urllib.parse
from functools import partial

import cv2

from edgekit.cameras.live import LiveSource
from edgekit.cameras.opencv_capture import OpenCVCapture, first_picture
from edgekit.cameras.quiet import silence_video_libraries
from edgekit.errors import SourceError

TIMEOUT_MS = 5000
"""To connect, and between frames; FFmpeg's own 30 s leave a lost camera unnoticed for too long."""

CONNECT_TIMEOUT_S = 1.0
"""For somebody to answer at all. Short, as the time from a camera's return to the next packet that asks for it counts,
and the system repeats an unanswered one only after 1, 3 and 7 seconds."""

LONGEST_PAUSE_S = 0.8
"""Detections are to resume within 2 s of a server's return: this pause at most, and up to 1 s for the first key frame.
Attempts are cheap enough, mostly one refused connection each."""

SETTLE_S = 0.025
"""When a connection breaks, FFmpeg completes the picture that was under way from the one before (H.264, HEVC and Motion
JPEG alike), and the end comes right behind it. Less than a frame at 30 a second. The other end needs no care: who joins
between two key frames gets nothing from FFmpeg before the next one (H.264, HEVC, VP8)."""

CAPTURE_OPTIONS = "rtsp_transport;tcp|analyzeduration;300000"
"""FFmpeg's options. TCP as OpenCV has it: lost UDP packets are grey smears. It examines a stream for 0.3 s instead of
until a second of it is there, during which frames grow old; where that is too short to know the size it goes on."""

HOST_AND_PORT = r"([^\[\]:]+|\[.*\])(:[0-9]*)?"

RTSP_PORTS = {"rtsp": 554, "rtsps": 322}


def open_stream(url: str, *, retries: float | None = None, max_age_s: float | None = None) -> LiveSource:
    """Connect to ``url``; ``retries`` and ``max_age_s`` as :class:`LiveSource` has them.

    Raises:
        SourceError: nobody answers, or no picture comes within :data:`TIMEOUT_MS`.
    """
    silence_video_libraries()
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", CAPTURE_OPTIONS)
    return LiveSource(
        partial(_open_capture, url),
        name=without_password(url),
        retries=retries,
        max_age_s=max_age_s,
        settle_s=SETTLE_S,
        longest_pause_s=LONGEST_PAUSE_S,
    )


def without_password(url: str) -> str:
    """``url`` as it may be shown in messages and output: user and password are replaced by ``***``.

    Also where the password has one of #, / and ?, or an @, which should have been written as %23, %2F, %3F and %40; not
    where it has such a one after an @, which looks like a host and a path.
    """
    scheme, mark, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, user, host = authority.rpartition("@")
    if re.fullmatch(HOST_AND_PORT, host):
        return f"{scheme}{mark}***@{host}{rest[len(authority) :]}" if user else url
    return f"{scheme}{mark}***@{rest.rpartition('@')[2]}" if "@" in rest else url


def _open_capture(url: str) -> OpenCVCapture:
    name = without_password(url)
    if reason := _nobody_listens(url):
        raise SourceError(
            f"no picture came from {name}: {reason}.\n"
            "Likely cause: the address or port is wrong, or the camera is off.\n"
            f"Try: ffprobe {name}"
        )
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
    capture = first_picture(cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts))
    if capture is None:
        raise SourceError(
            f"no picture came from {name} within {TIMEOUT_MS / 1000:.0f} s.\n"
            "Likely cause: nobody serves there, the path is wrong, it is no video, or it wants a user and password"
            " (scheme://user:password@host/...).\n"
            f"Try: ffprobe {name}"
        )
    capture.skip_backlog()
    return capture


def _nobody_listens(url: str) -> str | None:
    """Why no connection can be made to an RTSP server; ``None`` when one can, and for other protocols.

    Those are not tried: what serves HTTP, RTMP or bare TCP is often a program for one client, such as ``rpicam-vid
    --listen`` or ``ffmpeg -listen 1``, which would take the attempt for it and end.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or RTSP_PORTS.get(parts.scheme)
    except ValueError:  # whose own words may hold a part of the password
        return "its host and port cannot be read; in a password # is written %23, / %2F, ? %3F and @ %40"
    if parts.scheme not in RTSP_PORTS or not parts.hostname:
        return None
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{parts.hostname}:{port} does not answer ({error.strerror or error})"
    return None
