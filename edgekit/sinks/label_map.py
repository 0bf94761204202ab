"""Maps of class numbers laid over pictures, with a legend that can write any script the font has."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgekit.errors import StorageError
from edgekit.sinks.colours import Colour, class_colour

BACKGROUND = "background"
PAPER, INK = (24, 24, 24), (240, 240, 240)
"""Of legends."""

STRENGTH = 0.55
"""Share of a class's colour in its pixels."""

Palette = NDArray[np.uint8]
"""[C, 3] RGB; black stands for the background, whose pixels stay as they are."""


def colours(names: Sequence[str]) -> Palette:
    """A colour for each name; a background, which comes first, has none."""
    without = int(tuple(names[:1]) == (BACKGROUND,))
    found = [class_colour(number) for number in range(len(names) - without)]
    return np.array([*[(0, 0, 0)] * without, *found], np.uint8).reshape(-1, 3)


def blend(image: NDArray[np.uint8], labels: NDArray[np.int64], palette: Palette) -> NDArray[np.uint8]:
    """``image`` [h, w, 3] with each pixel coloured by its class in ``labels`` [h, w]; background pixels stay."""
    tint = palette[labels]
    coloured = tint.any(axis=-1, keepdims=True)
    mixed = (1 - STRENGTH) * image + STRENGTH * tint
    return np.where(coloured, np.round(mixed), image).astype(np.uint8)


Entries = Sequence[tuple[str, Colour]]
"""Lines of a legend: text and colour."""


def with_legend(image: NDArray[np.uint8], entries: Entries) -> NDArray[np.uint8]:
    """``image`` [h, w, 3] above lines of a coloured square and a text each; without entries it stays as it is."""
    if not entries:
        return image
    height, width = image.shape[:2]
    line = max(14, min(height, width) // 24)
    canvas = Image.new("RGB", (width, height + line * len(entries)), PAPER)
    canvas.paste(Image.fromarray(image), (0, 0))
    _write_lines(canvas, entries, top=height, line=line)
    return np.array(canvas, np.uint8)


def legend_over(image: NDArray[np.uint8], entries: Entries) -> NDArray[np.uint8]:
    """The same over the lower left corner of ``image`` [h, w, 3], whose size stays; what has no room is left out."""
    height, width = image.shape[:2]
    line = max(14, min(height, width) // 24)
    shown = entries[: height // line]
    if not shown:
        return image
    font = _font(line)
    strip = min(width, line + 6 + max(math.ceil(font.getlength(text)) for text, _ in shown))
    canvas = Image.new("RGB", (strip, line * len(shown)), PAPER)
    _write_lines(canvas, shown, top=0, line=line)
    image = image.copy()
    image[height - line * len(shown) :, :strip] = np.asarray(canvas)
    return image


def _write_lines(canvas: Image.Image, entries: Entries, *, top: int, line: int) -> None:
    pen, font = ImageDraw.Draw(canvas), _font(line)
    for index, (text, colour) in enumerate(entries):
        y = top + index * line
        pen.rectangle((3, y + 3, line - 3, y + line - 3), fill=colour)
        pen.text((line + 3, y), text, font=font, fill=INK)


@functools.lru_cache(maxsize=8)
def _font(line: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=0.75 * line)


def encode_labels(labels: NDArray[np.int64], palette: Palette) -> bytes:
    """A PNG whose pixels are the class numbers, shown in the palette's colours; for up to 256 classes."""
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette(palette.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def write_segments(
    folder: Path,
    stem: str,
    image: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    names: Sequence[str],
    palette: Palette,
) -> dict[str, str]:
    """Write ``STEM.segments.jpg``, with a legend of what is there, and ``STEM.labels.png``; returns their paths.

    Raises:
        StorageError: disk full or no permission.
    """
    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    entries = [
        (f"{name} {share:.0%}", (int(colour[0]), int(colour[1]), int(colour[2])))
        for name, share, colour in zip(names, shares, palette, strict=True)
        if share > 0 and colour.any()
    ]
    paths = {"picture": folder / f"{stem}.segments.jpg", "labels": folder / f"{stem}.labels.png"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(with_legend(blend(image, labels, palette), entries)).save(paths["picture"], quality=90)
        paths["labels"].write_bytes(encode_labels(labels, palette))
    except OSError as error:
        raise StorageError(f"the pictures of {stem} could not be written into {folder}: {error.strerror}") from error
    return {name: str(path) for name, path in paths.items()}
