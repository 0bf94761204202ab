"""Video files: every frame, in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgekit.cameras import Frame, Source
from edgekit.cameras.looks_like import START_BYTES, looks_like, other_format
from edgekit.cameras.quiet import silence_video_libraries
from edgekit.errors import SourceError

log = logging.getLogger("edgekit")


class VideoFile(Source):
    """Every frame of one video.

    Raises:
        SourceError: the file is missing, unreadable or not a video; the message says what it looks like.
    """

    def __init__(self, path: Path, *, loop: bool = False) -> None:
        self.path, self.endless = path, loop
        self._capture = _open(path)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if fps > 0 and math.isfinite(fps) else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(count) if count > 0 else None

    def frames(self) -> Iterator[Frame]:
        """Decoded frames; a file that ends before its header says is a warning, not an error."""
        index, time_s, earlier_s = 0, 0.0, 0.0
        while True:
            first = index
            while True:
                ok, image = self._capture.read()
                if not ok:
                    break
                # The clock of the medium, also at a varying rate; some AVI files report 0 for every frame.
                media_s = earlier_s + self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if index > first:
                    time_s = media_s if media_s > time_s else time_s + 1 / (self.fps or 25.0)
                else:
                    time_s = media_s
                yield Frame(
                    image=np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
                    index=index,
                    time_s=time_s,
                    source=str(self.path),
                )
                index += 1
            self._report_end(index - first)
            if not self.endless:
                return
            self._capture.release()
            self._capture = _open(self.path)
            earlier_s = time_s + 1 / (self.fps or 25.0)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _report_end(self, read: int) -> None:
        if read == 0:
            raise SourceError(
                f"{self.path} opens as a video, but not one frame of it can be decoded.\n"
                f"Likely cause: the file is truncated, or its codec is not in this OpenCV.\nTry: ffprobe {self.path}"
            )
        if self.frame_count is not None and read < 0.9 * self.frame_count:
            log.warning("%s ended after %d of %d frames: it is damaged or truncated", self.path, read, self.frame_count)


def _open(path: Path) -> cv2.VideoCapture:
    silence_video_libraries()
    if not path.exists():
        raise SourceError(f"there is no file {path}.\nTry: ls {path.parent}")
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    # FFmpeg would "play" a picture, and some plain text files as subtitles or ANSI art.
    if start and other_format(start) is None:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if capture.isOpened():
            return capture
        capture.release()
    raise SourceError(f"{path} is not a video: {looks_like(start)}\nTry: file {path}")
