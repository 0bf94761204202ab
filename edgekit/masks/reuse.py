"""A mask that outlives its frame: on a fixed camera the next frame needs nearly the same one.

A mask network takes a good part of a sparse frame's time, and the native engine rebuilds its tables only when the mask
changes. So a mask is kept for a number of frames, unless something moves where it does not look.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource

MOVED = 6.0
"""Grey levels 0..255 by which the mean of an inactive cell must change for a new mask: the noise of a cell's 256 pixels
is far below, a person who walks into it far above."""


class Reused:
    """The mask of ``source``, asked anew every ``every`` frames, or sooner when something moves in the background.

    For consecutive frames of one camera; make another one for another stream.
    """

    def __init__(self, source: MaskSource, *, every: int, moved: float = MOVED) -> None:
        """Raises ``ValueError`` unless ``every`` is at least 1."""
        if every < 1:
            raise ValueError(f"a mask lasts at least one frame, got {every}")
        self._source = source
        self._every = every
        self._moved = moved
        self._age = 0
        self._mask: Mask | None = None
        self._cells: NDArray[np.float32] = np.zeros((0, 0, 3), np.float32)

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``, or an earlier frame's."""
        if self._every == 1:
            return self._source(frame)
        cells = _cell_means(frame)
        if self._mask is None or self._age >= self._every or self._background_moved(cells, self._mask):
            self._mask, self._cells, self._age = self._source(frame), cells, 0
        self._age += 1
        return self._mask.copy()

    def _background_moved(self, cells: NDArray[np.float32], mask: Mask) -> bool:
        if cells.shape != self._cells.shape:
            return True
        change = np.abs(cells - self._cells).max(axis=2)
        return bool((change[~mask] > self._moved).any())


def _cell_means(frame: MaskInput) -> NDArray[np.float32]:
    """Mean colour of each cell [G, G, 3]."""
    grid = frame.spec.mask_grid
    return np.asarray(cv2.resize(frame.letterboxed.image, (grid, grid), interpolation=cv2.INTER_AREA), np.float32)
