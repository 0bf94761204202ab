"""Frames of videos as pictures in a folder: training asks for them in random order, which a video cannot give."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.cameras.images import find_pictures
from edgekit.errors import DataError, SourceError, StorageError
from edgekit.opencv import require_opencv

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts", ".mjpeg")
"""Names of videos, in lower case; other files of a folder are passed over."""

SHORTER_SIDE = 512
"""Pixels to which larger frames are reduced: twice what views need, and as much quicker to decode."""

QUALITY = 95

log = logging.getLogger("edgekit")


def is_video(path: Path) -> bool:
    """Whether the name says so."""
    return path.suffix.lower() in SUFFIXES


def frames_of(video: Path, store: Path, *, interval_s: float) -> list[Path]:
    """A picture for each ``interval_s`` seconds of ``video``, in order, in a folder of its own below ``store``.

    They are made once: a folder that is there is complete, as it gets its name at the end.

    Raises:
        DataError: the video is none, or no frame of it can be decoded.
        StorageError: disk full or no permission.
    """
    folder = store / f"{video.stem}-{_digest(video, interval_s)}"
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            partial.mkdir(parents=True)
            count = _extract(video, partial, interval_s=interval_s)
            partial.rename(folder)
        except OSError as error:
            raise StorageError(
                f"frames of {video} could not be written to {folder}: {error.strerror}\n"
                "Is the disk full? df -h shows it. A longer --frame-interval takes fewer frames."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        log.info("%s: %d frames, one each %g s", video.name, count, interval_s)
    return find_pictures(str(folder))


def _digest(video: Path, interval_s: float) -> str:
    """Names the video's content and the interval, so that another video under the same name is not mistaken for it."""
    try:
        status = video.stat()
    except OSError as error:
        raise DataError(f"the video {video} cannot be read: {error.strerror}") from error
    identity = f"{video.resolve()} {status.st_size} {status.st_mtime_ns} {interval_s}"
    return hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()


def _extract(video: Path, folder: Path, *, interval_s: float) -> int:
    require_opencv("read a video")
    from edgekit.cameras.video_file import VideoFile

    count, due = 0, -1.0
    try:
        with VideoFile(video) as source:
            for frame in source:
                if frame.time_s >= due:
                    _save(frame.image, folder / f"{frame.index:08d}.jpg")
                    due = frame.time_s + interval_s - 1e-6
                    count += 1
    except SourceError as error:
        raise DataError(f"no frames could be taken from a video: {error}") from error
    return count


def _save(image: NDArray[np.uint8], path: Path) -> None:
    picture = Image.fromarray(image)
    factor = SHORTER_SIDE / min(picture.size)
    if factor < 1:
        picture = picture.resize(
            (round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC
        )
    picture.save(path, "JPEG", quality=QUALITY, subsampling=0)
