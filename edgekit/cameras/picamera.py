"""A Raspberry Pi's ribbon-cable camera through picamera2, which comes from apt and not from PyPI."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras.raw_frames import FRAME_TIMEOUT_S
from edgekit.cameras.uri import RawOptions
from edgekit.errors import SourceError

Picture = NDArray[np.uint8]

FAILURES = (RuntimeError, IndexError, OSError, TimeoutError, concurrent.futures.TimeoutError)
"""What picamera2 raises: no such camera (IndexError), one that is used or does not start (RuntimeError), a hang."""


class PicameraCapture:
    """Camera ``index``, running.

    Raises:
        SourceError: it is not there, is used by another program, or gives no picture.
    """

    def __init__(self, index: int, options: RawOptions) -> None:
        self.fps = options.fps
        try:
            picamera2 = importlib.import_module("picamera2")
        except (ImportError, ValueError) as error:  # ValueError: built for another numpy
            raise SourceError(
                f"csi://{index}: picamera2 is installed but cannot be imported: {error}.\n"
                "Likely cause: apt's picamera2 wants apt's numpy, and this environment has another one.\n"
                "Try: an environment made with python3 -m venv --system-site-packages, and numpy left as apt brings it"
            ) from error
        self._camera: Any = None
        try:
            self._camera = picamera2.Picamera2(index)
            configuration = self._camera.create_video_configuration(
                # picamera2 names formats from the last byte: its BGR888 is red, green, blue in memory.
                main={"size": (options.width, options.height), "format": "BGR888"},
                controls={"FrameRate": options.fps},
            )
            self._camera.configure(configuration)
            self._camera.start()
            self._first: Picture | None = self._capture()
        except FAILURES as error:
            self.release()
            raise SourceError(
                f"csi://{index} gives no picture: {error}.\n"
                "Likely cause: another program uses it, or its cable does not sit well.\n"
                "Try: rpicam-hello --list-cameras"
            ) from error

    def read(self) -> Picture | None:
        """The next picture, [h, w, 3] RGB."""
        first, self._first = self._first, None
        if first is not None:
            return first
        with contextlib.suppress(*FAILURES):
            return self._capture()
        return None

    def to_rgb(self, picture: Picture) -> Picture:
        """It is RGB already."""
        return picture

    def release(self) -> None:
        """Close the camera."""
        if self._camera is not None:
            camera, self._camera = self._camera, None
            with contextlib.suppress(*FAILURES):
                camera.close()

    def _capture(self) -> Picture:
        job = self._camera.capture_array("main", wait=False)
        return np.asarray(self._camera.wait(job, timeout=FRAME_TIMEOUT_S), np.uint8)
