"""Where frames come from, behind one call: ``open_source`` reads what ``--source`` accepts, one file a kind.

=========================== ============= ===================================================================
text                        file          what comes
=========================== ============= ===================================================================
``0``, ``/dev/video0``      device.py     a camera: always the newest frame, older ones are counted as dropped
``rtsp://``, ``http://``... stream.py     the same over a network, with reconnection
``demo``, ``demo:SEED``     demo.py       photographs move over a still background, with known boxes
a folder, glob or picture   images.py     every picture, in natural order (2.jpg before 10.jpg)
any other file              video_file.py every frame of the video
=========================== ============= ===================================================================

Pictures are RGB: OpenCV's BGR ends in these files.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.opencv import require_opencv

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "tcp", "udp")
"""Schemes of URLs that are live streams; ``file://`` is a file like any other."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a source."""

    image: NDArray[np.uint8]
    """[h, w, 3] RGB. A source may change its size from one frame to the next (a camera that reconnected, a folder)."""

    index: int
    """0, 1, 2, ... in the order of capture; a gap means that frames in between were dropped. ``loop`` counts on."""

    time_s: float
    """Seconds: of capture since the Unix epoch for live sources and pictures (file time), of the medium for videos."""

    source: str
    """Where the frame is from: a path, ``camera 0``, ``demo``, or a URL without its password."""

    truth_xyxy: NDArray[np.float32] | None = None
    """[N, 4] boxes of the objects, in pixels of ``image``, where the source knows them (the demo does)."""

    truth_classes: tuple[str, ...] | None = None
    """N class names, one for each of ``truth_xyxy``."""


class Source(ABC):
    """An open source: a context manager, and an iterator over its frames."""

    live: bool = False
    """Frames come in real time and the newest one is given; otherwise every frame is given, as fast as asked for."""

    fps: float | None = None
    """Frames a second as the source states them; ``None`` when it does not."""

    frame_count: int | None = None
    """Number of frames, where it is known beforehand; a video's header may be wrong by a few."""

    dropped: int = 0
    """Frames that a live source captured and replaced by newer ones before they were asked for."""

    _iterator: Iterator[Frame] | None = None

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames; called once.

        Raises:
            SourceError: the source was lost and did not come back, or one of its pictures cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - a folder of pictures has nothing to close
        """Release the device or file; allowed more than once."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._iterator is None:
            self._iterator = self.frames()
        return next(self._iterator)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def is_source_name(text: str) -> bool:
    """Whether ``text`` can only be a source (``demo``, a camera index or device, a URL), not a file of any kind."""
    return bool(re.fullmatch(r"demo(:\d+)?|\d+|/dev/video\d+", text)) or "://" in text


def open_source(text: str, *, loop: bool = False) -> Source:
    """Open whatever ``text`` names; see the table above.

    Args:
        text: a camera index, device, URL, ``demo``, folder, glob, picture or video.
        loop: start again at the end (videos, pictures, demo); a live source has no end.

    Raises:
        SourceError: it is not there, or holds no pictures; the message says what it is instead.
        UsageError: a URL scheme that no source has, or ``loop`` of a live source.
        MissingDependencyError: OpenCV, which all but pictures need, or the demo's photographs are not installed.
    """
    if demo := re.fullmatch(r"demo(?::(\d+))?", text):
        require_opencv("paint the demo", extra="demo")
        from edgekit.cameras.demo import DemoCamera

        return DemoCamera(seed=int(demo[1] or 0), loop=loop)
    if device := re.fullmatch(r"(?:/dev/video)?(\d+)", text):
        _refuse_loop(text, loop)
        require_opencv("read a camera")
        from edgekit.cameras.device import open_device

        return open_device(int(device[1]))
    if "://" in text:
        scheme = text.partition("://")[0].lower()
        if scheme in STREAM_SCHEMES:
            _refuse_loop(text, loop)
            require_opencv("read a stream")
            from edgekit.cameras.stream import open_stream

            return open_stream(text)
        if scheme != "file":
            raise UsageError(_unknown_scheme(scheme))
        text = text.partition("://")[2]
    return _open_files(text, loop=loop)


def _open_files(text: str, *, loop: bool) -> Source:
    from edgekit.cameras.images import PictureFiles, find_pictures, is_picture

    path = Path(text).expanduser()
    is_glob = any(character in text for character in "*?[") and not path.exists()
    if is_glob or path.is_dir() or is_picture(path):
        return PictureFiles(find_pictures(text), loop=loop)
    require_opencv("read a video")
    from edgekit.cameras.video_file import VideoFile

    return VideoFile(path, loop=loop)


def _refuse_loop(text: str, loop: bool) -> None:
    if loop:
        raise UsageError(f"{text} is a live source: it has no end to start again from. Leave --loop out.")


def _unknown_scheme(scheme: str) -> str:
    known = ", ".join(f"{name}://" for name in (*STREAM_SCHEMES, "file"))
    message = f"no source begins with {scheme}://; there are {known}, a camera index, a path, or demo."
    if scheme in ("csi", "v4l2"):
        message += (
            "\nA USB camera is its index: --camera 0. A ribbon-cable camera needs GStreamer (Jetson) or libcamera"
            " (Raspberry Pi), which OpenCV from pip does not have: let their tools serve it as a network stream,"
            " and give that URL."
        )
    return message
