"""Pictures: a folder, a glob or a single file, in natural order."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras import Frame, Source
from edgekit.cameras.looks_like import START_BYTES, looks_like
from edgekit.data.picture_file import decode_picture
from edgekit.errors import SourceError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Names of pictures, in lower case; other files of a folder are passed over."""


class PictureFiles(Source):
    """Every one of ``paths``, in that order."""

    def __init__(self, paths: Sequence[Path], *, loop: bool = False) -> None:
        self.paths, self.endless = tuple(paths), loop
        self.frame_count = len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """One frame a picture.

        Raises:
            SourceError: a file cannot be read, or is not a picture.
        """
        index = 0
        while True:
            for path in self.paths:
                image = read_picture(path)
                yield Frame(image=image, index=index, time_s=path.stat().st_mtime, source=str(path))
                index += 1
            if not self.endless:
                return


def is_picture(path: Path) -> bool:
    """Whether the name says so."""
    return path.suffix.lower() in SUFFIXES


def find_pictures(text: str) -> list[Path]:
    """The pictures that a folder (not its subfolders), a glob (``**`` descends) or a path names, in natural order.

    Raises:
        SourceError: there are none.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        try:
            found = [entry for entry in path.iterdir() if is_picture(entry)]
        except OSError as error:
            raise SourceError(f"the folder {path} cannot be read: {error.strerror}.") from error
        if not found:
            count = sum(1 for _ in path.iterdir())
            has = f"its {count} entries have other names" if count else "it is empty"
            raise SourceError(
                f"no picture in the folder {path}: {has}; expected {', '.join(SUFFIXES)}.\n"
                f"Pictures in subfolders are found with --source '{path}/**/*.jpg'; a video is given by its own path."
            )
    elif path.exists():
        found = [path]
    elif any(character in text for character in "*?["):
        found = [Path(match) for match in glob.glob(str(path), recursive=True) if is_picture(Path(match))]
        if not found:
            raise SourceError(f"no picture matches {text}; expected names ending in {', '.join(SUFFIXES)}.")
    else:
        raise SourceError(f"there is no picture {path}.\nTry: ls {path.parent}")
    return sorted(found, key=natural_key)


def natural_key(path: Path) -> tuple[tuple[int | str, ...], ...]:
    """Sorts 2.jpg before 10.jpg: runs of digits compare as numbers, the rest without regard to case."""
    # re.split alternates text and digits, so equal positions always hold equal types.
    return tuple(
        tuple(int(piece) if odd % 2 else piece.lower() for odd, piece in enumerate(re.split(r"([0-9]+)", part)))
        for part in path.parts
    )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as RGB [h, w, 3], turned as its EXIF orientation says; grey and 16-bit ones are converted.

    Raises:
        SourceError: the file cannot be read, or is not a picture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"the picture {path} cannot be read: {error.strerror}.") from error
    try:
        return decode_picture(content, upright=True)
    except ValueError as error:
        raise SourceError(
            f"{path} cannot be read as a picture: {looks_like(content[:START_BYTES])}\n"
            "Likely cause: a truncated copy, or another kind of file under this name."
        ) from error
