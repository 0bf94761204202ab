"""Network cameras: any URL that OpenCV's FFmpeg opens, treated as live."""

from __future__ import annotations

import re
from functools import partial

import cv2

from edgekit.cameras.live import LiveSource
from edgekit.cameras.quiet import silence_video_libraries
from edgekit.errors import SourceError

TIMEOUT_MS = 5000
"""To connect, and between frames; FFmpeg's own 30 s leave a lost camera unnoticed for too long."""


def open_stream(url: str) -> LiveSource:
    """Connect to ``url``.

    Raises:
        SourceError: nobody answers, or no picture comes within :data:`TIMEOUT_MS`.
    """
    silence_video_libraries()
    name = without_password(url)
    capture = _open_capture(url)
    if capture is None:
        raise SourceError(
            f"no picture came from {name} within {TIMEOUT_MS / 1000:.0f} s.\n"
            "Likely cause: the address, port or path is wrong, the camera is off, or it wants a user and password"
            " (scheme://user:password@host/...).\n"
            f"Try: ffprobe {name}"
        )
    return LiveSource(partial(_open_capture, url), name=name, capture=capture)


def without_password(url: str) -> str:
    """``url`` as it may be shown in messages and output: user and password are replaced by ``***``."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)


def _open_capture(url: str) -> cv2.VideoCapture | None:
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    if capture.isOpened() and capture.read()[0]:
        return capture
    capture.release()
    return None
