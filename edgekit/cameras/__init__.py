"""Where frames come from, behind one call: ``open_source`` reads what ``--source`` accepts, one file a kind.

============================== ============= ================================================================
text                           file          what comes
============================== ============= ================================================================
``usb://0``, ``0``,            device.py     a camera: always the newest frame, older ones are counted as
``/dev/video0``                              dropped; ``?size=1280x720&fps=30&format=mjpg`` (or ``yuyv``)
``csi://0``                    csi.py        the same from a ribbon-cable camera of a Raspberry Pi or Jetson;
                                             ``?size=1280x720&fps=30``
``rtsp://``, ``http://``,      stream.py     the same over a network
``rtmp://``, ``tcp://``...
``stdin://?size=640x480``      raw_frames.py every raw frame from standard input; ``format`` is ``rgb24``,
``&format=rgb24``                            ``bgr24``, ``gray``, ``yuv420p`` or ``yuvj420p``; ``&fps=25``;
                                             ``&live=yes`` gives only the newest
``demo://``, ``demo``,         demo.py       photographs move over a still background, with known boxes
``demo://SEED``, ``demo:SEED``
a folder, glob or picture      images.py     every picture, in natural order (2.jpg before 10.jpg)
any other file, ``file://``    video_file.py every frame of the video
============================== ============= ================================================================

Live sources come back after a loss (``live.py``): ``retries`` says how often that is tried. Pictures are RGB: OpenCV's
BGR ends in these files.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras.uri import STREAM_SCHEMES, SourceUri, camera_options, device_in, number_in, parse_uri, raw_options
from edgekit.errors import UsageError
from edgekit.opencv import require_opencv


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

    camera: str | None = None
    """The name that a run gave the camera, where it has several."""

    truth_xyxy: NDArray[np.float32] | None = None
    """[N, 4] boxes of the objects, in pixels of ``image``, where the source knows them (the demo does)."""

    truth_classes: tuple[str, ...] | None = None
    """N class names, one for each of ``truth_xyxy``."""

    captured_s: float = field(default_factory=time.monotonic)
    """``time.monotonic()`` when the picture was there: ages are measured by it, since the time of day may jump."""

    @property
    def age_s(self) -> float:
        """Seconds since the picture was captured."""
        return time.monotonic() - self.captured_s


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What became of a source's frames; ``captured`` is always ``delivered`` + both ``dropped`` + ``waiting``."""

    captured: int = 0
    """Whole frames that were read."""

    delivered: int = 0
    """Frames that were asked for and given."""

    dropped_newer: int = 0
    """Frames that a newer one replaced before they were asked for."""

    dropped_stale: int = 0
    """Frames that were older than ``max_age_s`` when they were asked for."""

    waiting: int = 0
    """Frames to be given next: 0 or 1."""

    outages: int = 0
    """How often the source was lost."""


class Source(ABC):
    """An open source: a context manager, and an iterator over its frames."""

    live: bool = False
    """Frames come in real time and the newest one is given; otherwise every frame is given, as fast as asked for."""

    endless: bool = False
    """It starts again at its end, or has none that is known beforehand: it may run for a year."""

    fps: float | None = None
    """Frames a second as the source states them; ``None`` when it does not."""

    frame_count: int | None = None
    """Number of frames, where it is known beforehand; a video's header may be wrong by a few."""

    problem: str | None = None
    """One line on why no frames come at present, while a live source is waited for; ``None`` when all is well."""

    _iterator: Iterator[Frame] | None = None
    _delivered: int = 0

    def counters(self) -> Counters:
        """What became of the frames so far; may be called from any thread."""
        return Counters(captured=self._delivered, delivered=self._delivered)

    @property
    def dropped(self) -> int:
        """Frames that a live source captured and did not give: newer ones came, or they were too old."""
        counters = self.counters()
        return counters.dropped_newer + counters.dropped_stale

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
        frame = next(self._iterator)
        self._delivered += 1
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def is_source_name(text: str) -> bool:
    """Whether ``text`` can only be a source (``demo``, a camera index or device, a URL), not a file of any kind."""
    return "://" in text or parse_uri(text) is not None


def open_source(
    text: str, *, loop: bool = False, retries: float | None = None, max_age_s: float | None = None
) -> Source:
    """Open whatever ``text`` names; see the table above.

    Args:
        text: a URI of the table, or one of its short spellings.
        loop: start again at the end (videos, pictures, demo); a live source has no end.
        retries: attempts to open a live source, at the start and after each loss, before giving up; ``math.inf`` waits
            for ever, also for a camera that is not there yet, as a service wants it that starts with the machine.
            ``None``: one that is not there at the start is an error at once, since it is mostly a wrong name, and one
            that was there is waited for for ever. Files do not look at it.
        max_age_s: a live source's frames that are older than this when asked for are dropped. Files do not look at it.

    Raises:
        SourceError: it is not there, or holds no pictures; the message says what it is instead.
        UsageError: a URL scheme that no source has, an option that it does not have, or ``loop`` of a live source.
        MissingDependencyError: OpenCV, which most sources need, or the demo's photographs are not installed.
    """
    if retries is not None and not retries >= 0:
        raise UsageError(f"retries must be 0 or more, not {retries:g}")
    if max_age_s is not None and not max_age_s > 0:
        raise UsageError(f"the greatest age of a frame must be over 0 s, not {max_age_s:g}")
    uri = parse_uri(text)
    if uri is None:
        return _open_files(text, loop=loop)
    if uri.scheme == "file":
        return _open_files(text.partition("://")[2], loop=loop)
    if uri.scheme == "demo":
        return _open_demo(uri, loop=loop)
    if loop:
        raise UsageError(f"{text} is a live source: it has no end to start again from. Leave --loop out.")
    if uri.scheme == "usb":
        options = camera_options(uri, formats=("mjpg", "yuyv"))
        device = device_in(uri)
        require_opencv("read a camera")
        from edgekit.cameras.device import open_device

        return open_device(device, options, retries=retries, max_age_s=max_age_s)
    if uri.scheme == "csi":
        options = camera_options(uri, formats=())
        from edgekit.cameras.csi import open_csi

        return open_csi(number_in(uri, "the camera"), options, retries=retries, max_age_s=max_age_s)
    if uri.scheme == "stdin":
        from edgekit.cameras.raw_frames import BYTES_PER_PIXEL, open_stdin

        return open_stdin(raw_options(uri, formats=BYTES_PER_PIXEL), max_age_s=max_age_s)
    assert uri.scheme in STREAM_SCHEMES
    require_opencv("read a stream")
    from edgekit.cameras.stream import open_stream

    return open_stream(text, retries=retries, max_age_s=max_age_s)


def _open_demo(uri: SourceUri, *, loop: bool) -> Source:
    seed = number_in(uri, "the seed")
    if uri.query:
        raise UsageError(f"{uri.text}: demo:// has no options")
    require_opencv("paint the demo", extra="demo")
    from edgekit.cameras.demo import DemoCamera

    return DemoCamera(seed=seed, loop=loop)


def _open_files(text: str, *, loop: bool) -> Source:
    from edgekit.cameras.images import PictureFiles, find_pictures, is_picture

    path = Path(text).expanduser()
    is_glob = any(character in text for character in "*?[") and not path.exists()
    if is_glob or path.is_dir() or is_picture(path):
        return PictureFiles(find_pictures(text), loop=loop)
    require_opencv("read a video")
    from edgekit.cameras.video_file import VideoFile

    return VideoFile(path, loop=loop)
