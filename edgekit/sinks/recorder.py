"""Raw frames into a folder, for pretraining, calibration and labelling: ``--record DIR``.

Few of a fixed camera's frames are worth keeping, so one is taken when enough pixels have changed since the last one
kept, or every few seconds, or both. The folder holds pictures and an index:

=========================== ==========================================================================================
``20260131T235959.123Z.jpg`` a frame as the detector saw it, named by its time (UTC), so that names sort by time
``index.jsonl``              a line for each picture, in order: ``file``, ``bytes``, ``time`` (``Frame.time_s``),
                             ``source``, ``frame``, ``detections`` as the JSON lines of ``run`` have them
=========================== ==========================================================================================

A picture gets its name once it is complete. The oldest are deleted where there would be more than the budget allows,
and only pictures that the index lists: whatever else lies in the folder is left alone. The index lists a picture before
it has its name, so none is ever forgotten; a line whose picture is gone is left out when the index is next rewritten.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import io
import json
import logging
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.data.resize import resize_into
from edgekit.errors import StorageError, UsageError
from edgekit.sinks.faults import Faults
from edgekit.sinks.jsonl import to_json

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

log = logging.getLogger("edgekit")

INDEX = "index.jsonl"

NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z\.(jpg|png)")
"""Names of pictures; nothing else is ever deleted, whatever an index says."""

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "png": ("PNG", {"compress_level": 1}),
}
"""Suffix -> Pillow's name and settings. Colours are kept whole: training would learn from what is thrown away."""

THUMBNAIL_PX = 96
"""Longest side of what motion is looked for in: noise is averaged away, and the cost is nothing."""

CHANGED_LEVELS = 20
"""A pixel of the thumbnail has changed when its grey differs by more: above noise, below what a person does."""

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in a grey level (ITU-R BT.601)."""

SHORTEST_GAP_S = 0.5
"""Between two frames kept for motion: neighbours are nearly one picture, and a crowd would use up the budget."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that others may empty again."""

MILLISECOND = datetime.timedelta(milliseconds=1)

PAUSE_S = 30.0
"""After a failure: a full disk is not emptied in a frame's time."""

SPARE_MB = 64.0
"""What must stay free on the disk, or the whole board suffers."""


class Recorder:
    """A sink that keeps some of the frames as pictures.

    What fails while it runs (a full disk, a stick pulled out) stops the recording with one line in the log, and is
    tried again after a while; frames that should have been kept meanwhile count as ``dropped``.

    Args:
        folder: made if it is not there. Only one recorder at a time may use it.
        classes: names of the class ids.
        motion: share of pixels, 0..1, that must have changed since the last frame kept; ``None``: motion is not looked
            at.
        every_s: keep a frame whenever the last one kept is so many seconds old; ``None``: not by time.
        budget_mb: greatest size of all pictures together, in MB of 10^6 bytes.
        image_format: ``jpg`` (quality 95) or ``png``.
        spare_mb: MB that must stay free on the disk.
        pause_s: before writing is tried again after a failure.
        faults: where failures are counted; those of the run.

    Raises:
        UsageError: neither motion nor time, or numbers that cannot be.
        StorageError: the folder cannot be made or written to, or another recorder uses it.
    """

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        *,
        motion: float | None = 0.005,
        every_s: float | None = None,
        budget_mb: float = 1000.0,
        image_format: str = "jpg",
        spare_mb: float = SPARE_MB,
        pause_s: float = PAUSE_S,
        faults: Faults | None = None,
    ) -> None:
        if motion is None and every_s is None:
            raise UsageError("nothing would be recorded: give a share of changed pixels, or a number of seconds")
        if motion is not None and not 0 <= motion <= 1:
            raise UsageError(f"motion is a share of the pixels from 0 to 1, not {motion:g}")
        if every_s is not None and not every_s >= 0:
            raise UsageError(f"frames cannot be recorded every {every_s:g} s")
        if not budget_mb > 0:
            raise UsageError(f"the budget for recorded frames must be over 0 MB, not {budget_mb:g}")
        if image_format not in FORMATS:
            raise UsageError(f"frames are recorded as {' or '.join(FORMATS)}, not as {image_format!r}")
        self._faults = faults or Faults()
        self.recorded = 0
        """Frames written so far."""
        self.dropped = 0
        """Frames that should have been kept and could not be written."""
        self.deleted = 0
        """Pictures deleted so far to stay within the budget."""
        self.bytes = 0
        """Size of all pictures together, those of earlier recordings in this folder too."""
        self._folder, self._classes, self._suffix = folder, classes, image_format
        self._motion, self._every_s = motion, every_s
        self._budget_bytes, self._spare_bytes = budget_mb * 1e6, spare_mb * 1e6
        self._pause_s, self._paused_until_s = pause_s, 0.0
        self._kept: _Kept | None = None
        self._store: _Store | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._store = _Store(folder)
            self.bytes = self._store.bytes
        except OSError as error:
            if error.errno not in FULL:
                raise StorageError(f"frames cannot be recorded in {folder}: {error.strerror or error}.") from error
            self._pause(error)  # a service must start on a full disk too

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Keep the frame if it is its turn."""
        if not self._wanted(frame):
            return
        thumbnail = None if self._motion is None else _thumbnail(frame.image)
        # Also when it cannot be written: a turn that is missed is one, not one for each frame until there is space.
        self._kept = _Kept(frame.captured_s, frame.time_s, frame.source, frame.image.shape, thumbnail)
        if time.monotonic() < self._paused_until_s:
            self.dropped += 1
            return
        try:
            if self._store is None:
                self._store = _Store(self._folder)  # what is there may have changed, if it is there at all
            self._keep(self._store, frame, result)
        except (OSError, ValueError) as error:  # ValueError: Pillow's, for a picture larger than JPEG can be
            self.dropped += 1
            self._pause(error)
            return
        self.recorded += 1
        self.bytes = self._store.bytes
        if self._paused_until_s:
            self._paused_until_s = 0.0
            log.warning("recording in %s goes on; %d frames were left out so far", self._folder, self.dropped)

    def close(self) -> None:
        """Leave an index that lists what is there, and nothing else."""
        if self._store is not None:
            with contextlib.suppress(OSError):  # the one that is there is right too, but for lines of deleted pictures
                self._store.rewrite_index()
        self._close_store()
        if self.recorded or self.dropped:
            log.info("recorded %d frames in %s; %d were left out", self.recorded, self._folder, self.dropped)

    def _wanted(self, frame: Frame) -> bool:
        kept = self._kept
        if kept is None or (kept.source, kept.shape) != (frame.source, frame.image.shape):
            return True
        # A video's own time passes faster than the clock where it is read faster; a clock that is set back stops none.
        age_s = max(frame.captured_s - kept.captured_s, frame.time_s - kept.time_s)
        if self._every_s is not None and age_s >= self._every_s:
            return True
        if self._motion is None or kept.thumbnail is None or age_s < SHORTEST_GAP_S:
            return False
        return bool((np.abs(_thumbnail(frame.image) - kept.thumbnail) > CHANGED_LEVELS).mean() > self._motion)

    def _keep(self, store: _Store, frame: Frame, result: FrameResult) -> None:
        picture = io.BytesIO()
        name, settings = FORMATS[self._suffix]
        Image.fromarray(frame.image).save(picture, name, **settings)
        content = picture.getbuffer()
        if len(content) > self._budget_bytes:
            raise OSError(f"one frame of {len(content)} bytes is over the budget of {self._budget_bytes:.0f}")
        self.deleted += store.delete_oldest(self._budget_bytes - len(content))
        if shutil.disk_usage(self._folder).free - len(content) < self._spare_bytes:
            raise OSError(f"the disk is full: less than {self._spare_bytes / 1e6:.0f} MB would be left")
        line = to_json(frame, result, self._classes)
        store.add(content, self._suffix, {key: line[key] for key in ("time", "source", "frame", "detections")})

    def _pause(self, error: Exception) -> None:
        self._paused_until_s = time.monotonic() + self._pause_s
        self._close_store()
        reason = getattr(error, "strerror", None) or error
        line = f"recording in {self._folder} stops for {self._pause_s:.0f} s: {reason}"
        self._faults.report("record", "storage", line)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


@dataclass(frozen=True)
class _Kept:
    """What is remembered of the last frame whose turn it was."""

    captured_s: float
    time_s: float
    source: str
    shape: tuple[int, ...]
    thumbnail: NDArray[np.int16] | None


class _Store:
    """The folder: pictures, their index and a lock.

    Raises:
        OSError: it cannot be opened, or another recorder has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = os.open(folder / ".recorder.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._index = -1
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(error.errno, "another run records there; choose another folder") from error
            for part in folder.glob(".*.part"):
                if part.name == f".{INDEX}.part" or _time_in(part.name[1:-5]) is not None:
                    part.unlink()
            # Names and sizes alone stay in memory: over a year, detections would be many.
            self._pictures = deque((name, size) for name, size, _ in self._listed())
            self.bytes = sum(size for _, size in self._pictures)
            self._dead_lines = 0
            self.rewrite_index()
        except BaseException:
            self.close()
            raise

    def add(self, content: memoryview, suffix: str, entry: dict[str, Any]) -> None:
        """Write a picture and its line; after an error there is neither."""
        name = self._next_name(suffix)
        entry = {"file": name, "bytes": len(content), **entry}
        part = self._folder / f".{name}.part"
        try:
            _write_file(part, content)
            self._append(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            os.rename(part, self._folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        self._pictures.append((name, len(content)))
        self.bytes += len(content)

    def delete_oldest(self, limit_bytes: float) -> int:
        """Delete pictures until the rest has at most so many bytes; returns how many."""
        count = 0
        while self._pictures and self.bytes > limit_bytes:
            name, size = self._pictures[0]
            (self._folder / name).unlink(missing_ok=True)
            self._pictures.popleft()
            self.bytes -= size
            count += 1
        self._dead_lines += count
        if self._dead_lines > max(len(self._pictures), 100):  # not for each picture: an index may have many lines
            self.rewrite_index()
        return count

    def rewrite_index(self) -> None:
        """An index of the pictures that are there."""
        part = self._folder / f".{INDEX}.part"
        content = b"".join(line + b"\n" for _, _, line in self._listed())
        try:
            _write_file(part, memoryview(content))
            os.replace(part, self._folder / INDEX)
            index = os.open(self._folder / INDEX, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        if self._index >= 0:
            os.close(self._index)
        self._index, self._index_bytes, self._dead_lines = index, len(content), 0

    def close(self) -> None:
        """Let go of the folder."""
        for fd in (self._index, self._lock):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._index = self._lock = -1

    def _listed(self) -> Iterator[tuple[str, int, bytes]]:
        """(name, bytes, line) of the index where the picture is there, oldest first; halves of pictures are removed."""
        try:
            lines = (self._folder / INDEX).read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                name, size = entry["file"], entry["bytes"]
            except (ValueError, TypeError, KeyError, RecursionError):  # cut off by a power cut, or not ours
                continue
            if not (isinstance(name, str) and isinstance(size, int) and _time_in(name) is not None):
                continue
            path = self._folder / name
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_size == size:
                    yield name, size, line
                else:
                    path.unlink()

    def _append(self, line: bytes) -> None:
        try:
            _write_all(self._index, memoryview(line))
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._index, self._index_bytes)
            raise
        self._index_bytes += len(line)

    def _next_name(self, suffix: str) -> str:
        """The time of day, or a millisecond after the newest picture where the clock was set back: names sort."""
        now = datetime.datetime.now(datetime.UTC)
        if self._pictures:
            newest = _time_in(self._pictures[-1][0])
            assert newest is not None
            now = max(now, newest + MILLISECOND)
        while (self._folder / (name := f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z.{suffix}")).exists():
            now += MILLISECOND  # somebody else's
        return name


def _time_in(name: str) -> datetime.datetime | None:
    """When a picture was recorded, by its name; ``None``: it is no name that a recorder gives."""
    if NAME.fullmatch(name):
        with contextlib.suppress(ValueError):  # a 13th month
            return datetime.datetime.strptime(name[:19] + "+0000", "%Y%m%dT%H%M%S.%f%z")
    return None


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Grey levels of the picture at a size where noise is gone."""
    height, width = image.shape[:2]
    factor = max(1, max(height, width) // THUMBNAIL_PX)
    small = np.empty((max(1, height // factor), max(1, width // factor), 3), np.uint8)
    resize_into(image, small)
    return np.asarray(small @ GREY, np.int16)


def _write_file(path: Path, content: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _write_all(fd, content)
    finally:
        os.close(fd)


def _write_all(fd: int, content: memoryview) -> None:
    while content:
        content = content[os.write(fd, content) :]
