"""Raw frames on a pipe: ``stdin://``, and the programs that read a ribbon-cable camera.

A frame is a number of bytes that the size and the pixel format decide, so a pipe that ends in the middle of one is
noticed, and what came of it is never shown.
"""

from __future__ import annotations

import collections
import contextlib
import io
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras import Frame, Source
from edgekit.cameras.live import LiveSource
from edgekit.cameras.uri import RawOptions
from edgekit.errors import SourceError
from edgekit.opencv import require_opencv

log = logging.getLogger("edgekit")

Picture = NDArray[np.uint8]

BYTES_PER_PIXEL = {"rgb24": 3.0, "bgr24": 3.0, "gray": 1.0, "yuv420p": 1.5, "yuvj420p": 1.5}
"""Pixel formats under FFmpeg's names (``-pix_fmt``); ``yuvj420p`` uses 0..255 where ``yuv420p`` uses 16..235."""

FRAME_TIMEOUT_S = 5.0
"""A program that gives no frame for so long hangs."""


class RawReader:
    """Cuts what comes through a file descriptor into frames.

    Args:
        fd: stays the caller's to close.
        options: what a frame is.
        timeout_s: longest wait for one frame; ``None`` waits for ever.
    """

    def __init__(self, fd: int, options: RawOptions, *, timeout_s: float | None = None) -> None:
        self._fd, self._options, self._timeout_s = fd, options, timeout_s
        self.frame_bytes = round(options.height * options.width * BYTES_PER_PIXEL[options.format])
        self.left_over = 0
        """Bytes of a frame that was cut off by the end."""

    def read(self) -> Picture | None:
        """The next frame's bytes; ``None`` at the end, and when no whole frame comes in time."""
        buffer = bytearray(self.frame_bytes)
        view, have = memoryview(buffer), 0
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while have < self.frame_bytes:
            if deadline is not None:
                ready, _, _ = select.select([self._fd], [], [], max(deadline - time.monotonic(), 0))
                if not ready:
                    break
            got = os.readv(self._fd, [view[have:]])
            if got == 0:
                break
            have += got
        else:
            return np.frombuffer(buffer, np.uint8)
        self.left_over = have
        return None

    def to_rgb(self, picture: Picture) -> Picture:
        """[h, w, 3] RGB of a frame's bytes."""
        return raw_to_rgb(picture, self._options)


def raw_to_rgb(raw: Picture, options: RawOptions) -> Picture:
    """[h, w, 3] RGB of the bytes of one frame."""
    height, width = options.height, options.width
    if options.format == "rgb24":
        return raw.reshape(height, width, 3)
    if options.format == "bgr24":
        return np.ascontiguousarray(raw.reshape(height, width, 3)[..., ::-1])
    if options.format == "gray":
        return np.repeat(raw.reshape(height, width, 1), 3, axis=2)
    import cv2

    if options.format == "yuv420p":
        return np.asarray(cv2.cvtColor(raw.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_I420), np.uint8)
    # OpenCV's I420 is 16..235 only, but its YCrCb has the full range, with planes of one size.
    luma, chroma = (
        raw[: height * width].reshape(height, width),
        raw[height * width :].reshape(2, height // 2, width // 2),
    )
    blue, red = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in chroma)
    return np.asarray(cv2.cvtColor(cv2.merge([luma, red, blue]), cv2.COLOR_YCrCb2RGB), np.uint8)


def open_stdin(options: RawOptions, *, max_age_s: float | None = None) -> Source:
    """Raw frames from standard input: every one, or the newest (``options.live``).

    Raises:
        SourceError: standard input is closed or a terminal.
        MissingDependencyError: OpenCV, which YUV needs, is not installed.
    """
    if "yuv" in options.format:
        require_opencv(f"convert {options.format}")
    try:
        fd = sys.stdin.fileno()
    except (AttributeError, ValueError, io.UnsupportedOperation) as error:
        raise SourceError("standard input is closed, so no frames can come from it.") from error
    if os.isatty(fd):
        raise SourceError(
            "standard input is the terminal: raw frames must come from another program.\n"
            f"Try: ffmpeg -i INPUT -f rawvideo -pix_fmt {options.format} -s {options.width}x{options.height} - |"
            " edgekit run ..."
        )
    reader = RawReader(fd, options)
    if options.live:
        return LiveSource(
            lambda: _LivePipe(reader, options.fps), name="stdin", max_age_s=max_age_s, may_come_back=False
        )
    return RawFrames(reader, options.fps)


class RawFrames(Source):
    """Every whole frame that ``reader`` gives, until its end."""

    endless = True  # a camera's program may be at the other end

    def __init__(self, reader: RawReader, fps: float | None) -> None:
        self._reader, self.fps = reader, fps

    def frames(self) -> Iterator[Frame]:
        """The frames; times are those of the medium where its rate is known, of arrival otherwise.

        Raises:
            SourceError: the input ended before one frame was whole.
        """
        index = 0
        while (picture := self._reader.read()) is not None:
            time_s = time.time() if self.fps is None else index / self.fps
            yield Frame(image=self._reader.to_rgb(picture), index=index, time_s=time_s, source="stdin")
            index += 1
        warn_of_rest(self._reader, index)
        if index == 0:
            raise SourceError(
                f"standard input ended after {self._reader.left_over} bytes, and one frame has"
                f" {self._reader.frame_bytes}.\n"
                "Likely cause: the program before the pipe failed, or size or format are not what it writes."
            )


def warn_of_rest(reader: RawReader, whole: int) -> None:
    """Say that the input ended inside a frame."""
    if reader.left_over:
        log.warning(
            "the input ended inside frame %d, after %d of its %d bytes: that frame is left out (if colours or lines"
            " look wrong too, size or format are not what is written)",
            whole, reader.left_over, reader.frame_bytes,
        )  # fmt: skip


class _LivePipe:
    """Standard input as a capture; it is nobody's to reopen."""

    def __init__(self, reader: RawReader, fps: float | None) -> None:
        self._reader, self.fps = reader, fps
        self._whole = 0
        self.to_rgb = reader.to_rgb

    def read(self) -> Picture | None:
        picture = self._reader.read()
        if picture is None:
            warn_of_rest(self._reader, self._whole)
        self._whole += 1
        return picture

    def release(self) -> None:
        pass


class ProgramCapture:
    """The raw frames that a program writes into a pipe.

    Args:
        command: given the pipe's number, the command line. A pipe apart from standard output, since some plug-ins
            talk there.
        options: what a frame is.
        what: what messages call it.

    Raises:
        SourceError: the program cannot be started, or ends without a frame; the message has its last words.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], options: RawOptions, *, what: str) -> None:
        self.fps = options.fps
        self._what = what
        self._fd, write_fd = os.pipe()
        words = list(command(write_fd))
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[write_fd],
                start_new_session=True,  # Ctrl-C is for this program, which then ends that one
            )
        except OSError as error:
            os.close(self._fd)
            raise SourceError(f"{what}: {words[0]} cannot be started: {error.strerror}.") from error
        finally:
            os.close(write_fd)
        self._said: collections.deque[bytes] = collections.deque(maxlen=20)
        # Read all the time: a full pipe of messages would stop the program.
        self._listener = threading.Thread(target=self._listen, name=f"messages of {what}", daemon=True)
        self._listener.start()
        self._reader = RawReader(self._fd, options, timeout_s=FRAME_TIMEOUT_S)
        self.to_rgb = self._reader.to_rgb
        self._first = self._reader.read()
        if self._first is None:
            self.release()
            raise SourceError(f"{what} gives no picture. {words[0]} said: {self._last_words()}")

    def read(self) -> Picture | None:
        """The next frame's bytes."""
        first, self._first = self._first, None
        if first is not None:
            return first
        picture = self._reader.read()
        if picture is None:
            log.warning("%s stopped; its program said: %s", self._what, self._last_words())
        return picture

    def release(self) -> None:
        """End the program, and wait for it so that the camera is free."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)  # it closes the camera properly
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=1.0)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._said.extend(line for line in lines if line.strip())

    def _last_words(self) -> str:
        with contextlib.suppress(RuntimeError):  # it speaks this very moment
            said = [line.decode(errors="replace").strip() for line in list(self._said)[-3:]]
            return " | ".join(said) or "nothing"
        return "something else all the time"
