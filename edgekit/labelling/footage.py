"""Pictures and every so many frames of videos, to be labelled."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras.images import find_pictures, is_picture, natural_key, read_picture
from edgekit.cameras.video_file import VideoFile
from edgekit.data.picture_file import is_turned
from edgekit.data.voc_xml import is_voc_year
from edgekit.errors import SourceError
from edgekit.pretraining.frames import SUFFIXES, is_video
from edgekit.pretraining.pictures import files_below, is_dataset

log = logging.getLogger("edgekit")


@dataclass(frozen=True, kw_only=True)
class LabelFrame:
    """One picture, or one frame of a video."""

    image: NDArray[np.uint8]
    """RGB [h, w, 3], upright."""

    source: Path
    """The picture's file, or the video."""

    index: int | None = None
    """0-based frame of the video; ``None`` for a picture."""

    as_stored: bool = False
    """Whether ``image`` is what the file ``source`` holds, pixel by pixel: data sets are read without turning."""

    @property
    def name(self) -> str:
        """For a file of its own, without a suffix: the picture's, or the video's and the frame's."""
        return self.source.stem if self.index is None else f"{self.source.stem}-{self.index:06d}"


class Footage:
    """All frames of some sources, in order."""

    def __init__(self, files: Sequence[Path], *, every: int, limit: int | None = None) -> None:
        """Open each video once, so that a damaged one is found now rather than after an hour.

        Args:
            files: pictures and videos.
            every: of a video, each ``every``-th frame, from the first.
            limit: frames of all together.

        Raises:
            SourceError: a video is none.
        """
        self.files, self.every, self.limit = tuple(files), every, limit
        self.unreadable: list[Path] = []
        """Pictures that were passed over so far."""
        counts = [_frame_count(path) if is_video(path) else 1 for path in self.files]
        self.count = sum(-(-count // every) if is_video(path) else 1 for path, count in zip(files, counts, strict=True))
        """About how many frames there are, for a progress bar: the headers of videos say so."""
        if limit is not None:
            self.count = min(self.count, limit)

    def __iter__(self) -> Iterator[LabelFrame]:
        """The frames. A picture that cannot be read is passed over with a warning: one broken file of thousands is no
        reason to lose an hour's work.

        Raises:
            SourceError: not one frame of a video can be decoded.
        """
        return islice(self._frames(), self.limit)

    def _frames(self) -> Iterator[LabelFrame]:
        for path in self.files:
            if is_video(path):
                with VideoFile(path) as video:
                    for frame in video:
                        if frame.index % self.every == 0:
                            yield LabelFrame(image=frame.image, source=path, index=frame.index)
                continue
            try:
                image, turned = read_picture(path), is_turned(path.read_bytes())
            except SourceError as error:
                log.warning("%s\nIt is passed over.", error)
                self.unreadable.append(path)
                continue
            yield LabelFrame(image=image, source=path, as_stored=not turned)


def find_footage(source: str) -> list[Path]:
    """The pictures and videos that a folder (with its subfolders), a glob, a picture or a video names, in order.

    Raises:
        SourceError: there are none, or the folder is a labelled data set.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return [path] if is_video(path) and path.exists() else find_pictures(source)
    if is_dataset(path):
        pictures = path / ("JPEGImages" if is_voc_year(path) else "images")
        raise SourceError(
            f"{path} is a labelled data set, which may hold masks and outlines beside its pictures.\n"
            f"Give the folder of its pictures alone: --frames {pictures}"
        )
    found = [file for file in sorted(files_below(path), key=natural_key) if is_picture(file) or is_video(file)]
    if not found:
        raise SourceError(
            f"no picture and no video is in {path} or its subfolders.\n"
            f"Expected pictures (.jpg, .png ...) or videos ({', '.join(SUFFIXES[:3])} ...). "
            "Frames of a camera come from: edgekit run --source 0 --record FOLDER"
        )
    return found


def _frame_count(video: Path) -> int:
    with VideoFile(video) as opened:
        return opened.frame_count or 1
