"""Frames of a video by their index: exact, and cheap when they are asked for in order."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError

_open = threading.local()
# One open video a thread: a data loader's workers each keep their own place, and a forked one must not share a decoder.


def read_frame(path: Path, index: int) -> NDArray[np.uint8]:
    """Frame ``index`` (0-based) of the video ``path`` as RGB [h, w, 3].

    The next frame costs one decoding, an earlier one decoding from the start: seeking in OpenCV is by key frame and
    not exact for every codec, and a frame that is off by one would carry another frame's boxes.

    Raises:
        DataError: the video cannot be opened or ends before ``index``.
    """
    reader: _Reader | None = getattr(_open, "reader", None)
    if reader is None or reader.path != path or reader.process != os.getpid() or reader.next_index > index:
        reader = _open.reader = _Reader(path)
    return reader.read(index)


class _Reader:
    """An open video and the place in it."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"the video {path} does not exist")
        self.path = path
        self.process = os.getpid()
        self.next_index = 0
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(f"{path} cannot be opened as a video")

    def read(self, index: int) -> NDArray[np.uint8]:
        # grab() decodes without converting to BGR, so skipping is cheaper than reading.
        while self.next_index < index and self._capture.grab():
            self.next_index += 1
        ok, frame = self._capture.read()
        if self.next_index != index or not ok:
            raise DataError(f"{self.path} ends after {self.next_index} frames; frame {index} was asked for")
        self.next_index += 1
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
