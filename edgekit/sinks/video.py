"""The annotated video, through OpenCV's FFmpeg.

OpenCV's wheels from PyPI encode MPEG-4 part 2, VP8 and Motion JPEG; they have no H.264 encoder, which is patented.
Media players show all three, browsers only the ``.webm``.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.cameras.quiet import silence_video_libraries
from edgekit.data.letterbox import letterbox
from edgekit.errors import StorageError, UsageError
from edgekit.glibc import return_free_memory
from edgekit.sinks.annotate import annotate
from edgekit.sinks.claim import claim
from edgekit.spec import Described

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

log = logging.getLogger("edgekit")

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".webm": "VP80", ".avi": "MJPG"}
"""Suffix -> FourCC of an encoder that the PyPI wheels have."""

SPARE_BYTES = 32 * 1024 * 1024
"""Writing stops while this much is free: OpenCV does not report a full disk, and the index of an mp4 comes last."""

FRAMES_BETWEEN_CHECKS = 16

FRAMES_A_FILE = 10_000
"""Of a source without an end: eleven minutes at 15 frames a second. What a container lists of each frame waits in
memory until the file is closed, 70 bytes of an .mp4: a small board would be out of memory long before its disk is full.
And a power cut takes no more than the last file."""

LONGEST_STILL_S = 2.0
"""A live source's frame is repeated for at most this long, so an outage does not fill the disk."""


class VideoWriter:
    """Writes annotated frames at a constant rate; a file has its name only once it is complete.

    The first frame decides the size; frames of other sizes are fitted into it between grey bars.

    Args:
        path: ``.mp4``, ``.mkv``, ``.webm`` or ``.avi``; a file of that name is replaced at the end.
        spec: the detector's, for the class names and for where the mask lies.
        fps: frames a second of the video.
        live: repeat and leave out frames so that the video runs as fast as the clock did.
        frames_a_file: after so many the next file begins: ``out.mp4``, ``out-2.mp4``, ``out-3.mp4`` and so on. ``None``
            is one file, however long.

    Raises:
        UsageError: another suffix.
        StorageError: the folder is not there or not writable, or another run writes the same video.
    """

    def __init__(
        self, path: Path, spec: Described, *, fps: float, live: bool = False, frames_a_file: int | None = None
    ) -> None:
        if path.suffix.lower() not in CODECS:
            raise UsageError(f"a video is saved as {', '.join(CODECS)}, not as {path.name!r}; e.g. --save out.mp4")
        # MPEG-4 clocks tick at most 65535 times a second: rates like 24.012948 need rounding.
        self._path, self._spec, self._fps, self._live = path, spec, round(fps, 2), live
        self._stem, self._files, self._frames_a_file = path.stem, 1, frames_a_file
        self._part = path.with_name(f".{path.stem}.part{path.suffix.lower()}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0
        self._first_s = 0.0
        self._claim: int | None = claim(self._part, "a video", named=path)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Annotate and encode one frame."""
        if self._frames_a_file is not None and self._written >= self._frames_a_file:
            self._begin_next_file()
        if self._writer is None:
            self._first_s = frame.captured_s
            self._open(height=frame.image.shape[0], width=frame.image.shape[1])
        picture = self._fit(annotate(frame.image, result, self._spec))
        for _ in range(self._copies(frame.captured_s)):
            if self._written % FRAMES_BETWEEN_CHECKS == 0:
                self._check_space()
            assert self._writer is not None
            self._writer.write(picture)
            self._written += 1

    def close(self) -> None:
        """Write the index, check that every frame can be read back, and give the file its name."""
        try:
            self._complete()
        finally:
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None

    def _begin_next_file(self) -> None:
        self.close()
        return_free_memory()  # the index is gone, and so is what it took to read the file back
        self._files += 1
        self._path = self._path.with_name(f"{self._stem}-{self._files}{self._path.suffix}")
        self._claim = claim(self._part, "a video", named=self._path)
        self._written = 0

    def _complete(self) -> None:
        if self._writer is None:
            if self._claim is not None:
                self._part.unlink(missing_ok=True)
            return
        self._writer.release()
        self._writer = None
        readable = _count_frames(self._part)
        if readable < self._written:
            size = self._part.stat().st_size if self._part.exists() else 0
            self._part.unlink(missing_ok=True)
            raise StorageError(
                f"the video {self._path} could not be written: {self._written} frames went in, {readable} can be read"
                f" back from {size} bytes.\n"
                "Likely cause: the disk is full, or a limit on file size was reached. Nothing was kept."
            )
        try:
            os.replace(self._part, self._path)
        except OSError as error:
            raise StorageError(f"the video stays in {self._part}: {self._path}: {error.strerror}.") from error
        log.info("saved %s: %d frames", self._path, self._written)

    def _open(self, *, height: int, width: int) -> None:
        silence_video_libraries()
        self._size = (max(2, width & ~1), max(2, height & ~1))  # encoders halve the colour planes
        codec = CODECS[self._part.suffix]
        writer = cv2.VideoWriter(str(self._part), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), self._fps, self._size)
        if not writer.isOpened():
            self._part.unlink(missing_ok=True)
            raise StorageError(
                f"this OpenCV ({cv2.__version__}) cannot encode {codec} video at {self._fps} frames a second.\n"
                "The wheels from PyPI can (pip install opencv-python-headless); or try --save with another suffix: "
                + ", ".join(CODECS)
            )
        self._writer = writer

    def _copies(self, time_s: float) -> int:
        """How often a frame of that moment is written; a clock that was set back would make the video stand still."""
        if not self._live:
            return 1
        due = round((time_s - self._first_s) * self._fps) + 1 - self._written
        longest = max(1, round(LONGEST_STILL_S * self._fps))
        if due > longest:  # an outage: the video continues as if it had not been
            self._first_s += (due - longest) / self._fps
        return max(0, min(due, longest))

    def _fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """BGR of the video's size."""
        width, height = self._size
        if image.shape[0] - height in (0, 1) and image.shape[1] - width in (0, 1):
            image = image[:height, :width]  # an odd side loses its last line
        else:
            image = letterbox(image, height=height, width=width).image
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if free < SPARE_BYTES:
            raise StorageError(
                f"the disk of {self._path} is full: {free // 2**20} MB are left, and {SPARE_BYTES // 2**20} MB are"
                f" needed to go on. The {self._written} frames up to here are kept."
            )


def _count_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        if count > 0:
            # The header may count frames that never reached the disk: the last one must decode.
            capture.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
            return count if capture.read()[0] else 0
        return count
    finally:
        capture.release()
