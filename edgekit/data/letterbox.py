"""Fit any picture into a model's input without distorting it: one function for training and for the runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.resize import resize_into
from edgekit.spec import DetectorSpec

PADDING_VALUE = 128
"""Grey level of the bars: ``DetectorSpec.mean``, so that they are exactly 0 after normalisation, like masked ground."""


@dataclass(frozen=True, kw_only=True)
class Letterboxed:
    """A picture inside a ``height`` x ``width`` input, and the way back."""

    image: NDArray[np.uint8]
    """[height, width, 3], same channel order as the source."""

    scale: float
    """Input pixels per source pixel, the same for both axes."""

    left: int
    """Width of the left bar in input pixels."""

    top: int
    """Height of the upper bar in input pixels."""

    source_height: int
    source_width: int

    def to_input(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes [N, 4] from source pixels to input pixels."""
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        return np.asarray(boxes_xyxy * np.float32(self.scale) + offset, np.float32)

    def to_source(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes [N, 4] from input pixels to source pixels, clipped to the picture."""
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        boxes = (boxes_xyxy - offset) / np.float32(self.scale)
        limit = np.array([self.source_width, self.source_height] * 2, np.float32)
        return np.asarray(np.clip(boxes, 0, limit), np.float32)


def letterbox(image: NDArray[np.uint8], *, height: int, width: int) -> Letterboxed:
    """Scale ``image`` [h, w, 3] to fit, keep its aspect ratio, centre it between grey bars.

    Shrinking averages areas (no aliasing); enlarging is bilinear.

    Raises:
        EngineError: edgekit's kernels cannot be loaded.
        ValueError: ``image`` is not [h, w, 3] uint8 with h, w in 1..65536.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"letterbox expects a uint8 image [h, w, 3], got {image.dtype} {list(image.shape)}")
    source_height, source_width = image.shape[:2]
    scale = min(height / source_height, width / source_width)
    inner_height = max(1, min(height, round(source_height * scale)))
    inner_width = max(1, min(width, round(source_width * scale)))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas = np.full((height, width, 3), PADDING_VALUE, np.uint8)
    resize_into(image, canvas[top : top + inner_height, left : left + inner_width])
    return Letterboxed(
        image=canvas, scale=scale, left=left, top=top, source_height=source_height, source_width=source_width
    )


def normalise(pixels: NDArray[np.uint8], spec: DetectorSpec) -> NDArray[np.float32]:
    """Pixels, in any arrangement, as the numbers that the dense graphs of ``spec`` take."""
    return (pixels.astype(np.float32) - np.float32(spec.mean)) / np.float32(spec.std)
