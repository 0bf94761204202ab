"""Maps of class numbers laid over pictures, with a legend that can write any script the font has."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgekit.errors import StorageError

BACKGROUND = "background"
STRENGTH = 0.55
"""Share of a class's colour in its pixels."""

Palette = NDArray[np.uint8]
"""[C, 3] RGB; black stands for the background, whose pixels stay as they are."""


def colours(names: Sequence[str]) -> Palette:
    """A colour for each name: hues a golden ratio apart differ well however many there are."""
    palette = np.zeros((len(names), 3), np.uint8)
    number = 0
    for index, name in enumerate(names):
        if index == 0 and name == BACKGROUND:
            continue
        hue, bright = (0.02 + number * 0.618034) % 1.0, 1.0 if number % 2 == 0 else 0.75
        palette[index] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, bright)]
        number += 1
    return palette


def blend(image: NDArray[np.uint8], labels: NDArray[np.int64], palette: Palette) -> NDArray[np.uint8]:
    """``image`` [h, w, 3] with each pixel coloured by its class in ``labels`` [h, w]; background pixels stay."""
    tint = palette[labels]
    coloured = tint.any(axis=-1, keepdims=True)
    mixed = (1 - STRENGTH) * image + STRENGTH * tint
    return np.where(coloured, np.round(mixed), image).astype(np.uint8)


def with_legend(image: NDArray[np.uint8], entries: Sequence[tuple[str, NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """``image`` [h, w, 3] above lines of a coloured square and a text each; without entries it stays as it is."""
    if not entries:
        return image
    height, width = image.shape[:2]
    line = max(14, min(height, width) // 24)
    font = ImageFont.load_default(size=0.75 * line)
    canvas = Image.new("RGB", (width, height + line * len(entries)), (24, 24, 24))
    canvas.paste(Image.fromarray(image), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (text, colour) in enumerate(entries):
        top = height + index * line
        pen.rectangle((3, top + 3, line - 3, top + line - 3), fill=tuple(int(part) for part in colour))
        pen.text((line + 3, top), text, font=font, fill=(240, 240, 240))
    return np.array(canvas, np.uint8)


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
        (f"{name} {share:.0%}", colour)
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
