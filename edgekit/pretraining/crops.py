"""Where a view is cut out of its picture, and the way of a box from the one to the other.

The crop is that of "Going deeper with convolutions" (arXiv 1409.4842, section 6): of a random share of the area and a
random aspect ratio, somewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRIES = 10
"""Crops drawn before the largest one in the middle is taken: long pictures hold few of the wanted shapes."""

NARROWEST, WIDEST = 3 / 4, 4 / 3
"""Width over height."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A rectangle of a picture that becomes a square view, mirrored or not."""

    top: int
    left: int
    height: int
    width: int
    """Pixels of the picture."""

    mirrored: bool
    """Left and right are exchanged after the cut."""

    @property
    def bottom(self) -> int:
        """The first row below it."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column beside it."""
        return self.left + self.width

    def to_view(self, boxes: NDArray[np.float64], *, side: int) -> NDArray[np.float64]:
        """[N, 4] boxes xyxy in pixels of the picture -> in pixels of the view, which has ``side`` of them; not clipped.

        A continuous map: pixel edges go to pixel edges.
        """
        along_x, along_y = side / self.width, side / self.height
        view = (boxes - [self.left, self.top, self.left, self.top]) * [along_x, along_y, along_x, along_y]
        if self.mirrored:
            view = np.stack([side - view[:, 2], view[:, 1], side - view[:, 0], view[:, 3]], axis=1)
        return view


def draw_crop(rng: np.random.Generator, *, height: int, width: int, smallest: float) -> Crop:
    """A random crop of a picture of ``height`` x ``width`` pixels with at least ``smallest`` (0..1) of its area."""
    mirrored = bool(rng.random() < 0.5)
    for _ in range(TRIES):
        area = height * width * rng.uniform(smallest, 1.0)
        ratio = math.exp(rng.uniform(math.log(NARROWEST), math.log(WIDEST)))
        crop_w, crop_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            return Crop(
                top=int(rng.integers(0, height - crop_h + 1)),
                left=int(rng.integers(0, width - crop_w + 1)),
                height=crop_h,
                width=crop_w,
                mirrored=mirrored,
            )
    crop_w, crop_h = min(width, round(height * WIDEST)), min(height, round(width / NARROWEST))
    return Crop(top=(height - crop_h) // 2, left=(width - crop_w) // 2, height=crop_h, width=crop_w, mirrored=mirrored)
