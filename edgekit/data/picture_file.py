"""Pictures in files, by Pillow: one decoder for the runtime, data sets and bundles alike."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""Pillow's names of what is read. It knows many more, some of which start other programs."""


def decode_picture(content: bytes, *, upright: bool) -> NDArray[np.uint8]:
    """The picture in ``content`` as RGB [h, w, 3]; grey and 16-bit ones are converted, transparency is dropped.

    Args:
        content: the whole file.
        upright: turn it as its EXIF orientation says. Annotation tools number the stored pixels.

    Raises:
        ValueError: it is no picture of :data:`FORMATS`, truncated, or has more than about 180 million pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith(("I", "F")):
                return _deep(np.asarray(image))
            return np.array(image.convert("RGB"), np.uint8)
    except Exception as error:  # whatever a broken file makes a decoder trip over: SyntaxError, struct.error and more
        raise ValueError(str(error) or type(error).__name__) from error


def is_turned(content: bytes) -> bool:
    """Whether the picture in ``content`` has an EXIF orientation that stands it on another side than it is stored."""
    from PIL import ExifTags, Image

    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        return opened.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _deep(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A grey picture of 16 bits [h, w]: the upper eight, three times."""
    if values.dtype.kind not in "iu":
        raise ValueError(f"its pixels are {values.dtype} numbers, which have no brightness of their own")
    grey = np.clip(values.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """``image`` [h, w, 3] RGB as a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
