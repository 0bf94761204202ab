"""OpenCV's captures as live sources read them: the picture that showed that one works is its first frame."""

from __future__ import annotations

import contextlib
import time

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

LONGEST_BACKLOG_S = 1.0
"""A machine too slow to decode a stream in time has a backlog without end."""


class OpenCVCapture:
    """A capture that is open and has given ``first``, [h, w, 3] BGR."""

    def __init__(self, capture: cv2.VideoCapture, first: Picture) -> None:
        self._capture = capture
        self._first: Picture | None = first
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else None  # streams without a rate say 0, or their clock's 90000

    def read(self) -> Picture | None:
        """The next picture, [h, w, 3] BGR."""
        first, self._first = self._first, None
        if first is not None:
            return first
        with contextlib.suppress(cv2.error):  # a frame that is no picture: like none at all
            ok, image = self._capture.read()
            if ok:
                return np.asarray(image, np.uint8)
        return None

    def to_rgb(self, picture: Picture) -> Picture:
        """BGR -> RGB."""
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def release(self) -> None:
        """Close it."""
        self._capture.release()

    def skip_backlog(self) -> None:
        """Pass over what was queued while the stream was examined: it is older than it looks, and comes in a burst."""
        at_once_s = min(0.25 / (self.fps or 25.0), 0.01)
        deadline = time.monotonic() + LONGEST_BACKLOG_S
        while (start := time.monotonic()) < deadline:
            self._first = None
            picture = self.read()
            self._first = picture
            if picture is None or time.monotonic() - start > at_once_s:
                return


def first_picture(capture: cv2.VideoCapture) -> OpenCVCapture | None:
    """``capture`` when it is open and a picture comes; otherwise it is released, and ``None`` is returned."""
    if capture.isOpened():
        with contextlib.suppress(cv2.error):
            ok, image = capture.read()
            if ok:
                return OpenCVCapture(capture, np.asarray(image, np.uint8))
    capture.release()
    return None
