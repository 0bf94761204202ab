"""Which annotated boxes can be used: finite ones with some area inside their picture."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from edgekit.data.annotations import AnnotatedBox, AnnotatedImage
from edgekit.errors import DataError

logger = logging.getLogger("edgekit")

ROUNDING = 1.0
"""Boxes that reach outside by at most this many pixels are clipped without being counted: files round."""


class BoxCheck:
    """Clips and drops boxes, counts what it did, and reports it once at the end."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._kept = self._empty = self._outside = self._clipped = 0

    def __call__(self, box: AnnotatedBox, image: AnnotatedImage) -> tuple[float, float, float, float] | None:
        """``box`` clipped to ``image``, or ``None`` if it has no area there.

        Raises:
            DataError: a coordinate is NaN or infinite.
        """
        # As float32, which is how boxes are kept: a sliver may have an area in float64 only.
        left, top, right, bottom = (float(np.float32(value)) for value in box.xyxy)
        if not all(map(math.isfinite, box.xyxy)):
            raise DataError(
                f"{self._source}: {box.entry} of image {image.path.name} is not a box:"
                f" {[left, top, right, bottom]} (left, top, right, bottom) must be finite"
            )
        if right <= left or bottom <= top:
            self._empty += 1
            return None
        clipped = (max(left, 0.0), max(top, 0.0), min(right, float(image.width)), min(bottom, float(image.height)))
        if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
            self._outside += 1
            return None
        if max(-left, -top, right - image.width, bottom - image.height) > ROUNDING:
            self._clipped += 1
        self._kept += 1
        return clipped

    def finish(self) -> None:
        """Warn of what was dropped and clipped.

        Raises:
            DataError: no box is left.
        """
        if self._empty:
            logger.warning("%s: dropped %d boxes without area", self._source, self._empty)
        if self._outside:
            logger.warning("%s: dropped %d boxes wholly outside their picture", self._source, self._outside)
        if self._clipped:
            logger.warning("%s: clipped %d boxes that reach outside their picture", self._source, self._clipped)
        if not self._kept:
            dropped = self._empty + self._outside
            raise DataError(
                f"{self._source} holds no usable box: {self._empty} have no area, {self._outside} lie outside"
                if dropped
                else f"{self._source} holds no box (of the classes kept), so there is nothing to learn or to score"
            )
