"""A frame as a JPEG of bounded size, annotated: for webhooks and the browser page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgekit.errors import StorageError
from edgekit.sinks.annotate import Picture, annotate
from edgekit.spec import Described
from edgekit.tracking.zones import Zones

if TYPE_CHECKING:
    from edgekit.pipeline import FrameResult

LONGEST_SIDE = 960
"""Pixels: sharp on a phone, some 60 kB."""

QUALITY = 75


def annotated_jpeg(
    image: Picture,
    result: FrameResult,
    spec: Described,
    *,
    zones: Zones | None = None,
    longest_side: int = LONGEST_SIDE,
    quality: int = QUALITY,
) -> bytes:
    """``image`` [h, w, 3] RGB with boxes and shading, its longer side at most ``longest_side`` pixels.

    Args:
        quality: 0..100.

    Raises:
        StorageError: this OpenCV cannot encode JPEG.
    """
    drawn = annotate(image, result, spec, zones=zones)
    scale = longest_side / max(drawn.shape[:2])
    if scale < 1:
        size = (max(1, round(drawn.shape[1] * scale)), max(1, round(drawn.shape[0] * scale)))
        drawn = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
    good, encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise StorageError("OpenCV could not encode a picture as JPEG")
    return encoded.tobytes()
