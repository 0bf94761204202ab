"""What masks cost and keep over a whole data set: active share and recall of ground-truth boxes.

``edgekit.masks.statistics`` has the same for one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.masks.pyramid import Mask
from edgekit.masks.statistics import MIN_ACTIVE_SHARE, active_area_share, active_share


@dataclass(frozen=True, kw_only=True)
class MaskMetrics:
    """Sums over one data set."""

    active_share: float
    """Mean over images of the share 0..1 of active cells; letterbox padding counts as cells."""

    mask_recall: float
    """Share 0..1 of the boxes that keep at least ``MIN_ACTIVE_SHARE`` of their area active; 1 without any box."""

    images: int
    boxes: int
    lost: int
    """Boxes that keep less."""


class MaskMeter:
    """Adds up masks image by image."""

    def __init__(self) -> None:
        self._shares: list[float] = []
        self._boxes = self._lost = 0

    def add(self, mask: Mask, boxes_xyxy_input_px: NDArray[np.float32], *, height: int, width: int) -> None:
        """One image: its mask [G, G] and its boxes to find [N, 4] in pixels of the ``height`` x ``width`` input."""
        self._shares.append(active_share(mask))
        kept = active_area_share(boxes_xyxy_input_px, mask, height, width) >= MIN_ACTIVE_SHARE
        self._boxes += len(kept)
        self._lost += int((~kept).sum())

    def result(self) -> MaskMetrics:
        """The metrics of what was added.

        Raises:
            ValueError: nothing was added.
        """
        if not self._shares:
            raise ValueError("no mask was added, so there is nothing to measure")
        return MaskMetrics(
            active_share=float(np.mean(self._shares)),
            mask_recall=1 - self._lost / self._boxes if self._boxes else 1.0,
            images=len(self._shares),
            boxes=self._boxes,
            lost=self._lost,
        )
