"""Masks as real frames have them, for measuring: rectangles of the size that objects have, until enough is covered."""

from __future__ import annotations

import numpy as np

from edgekit.masks.pyramid import Mask


def blob_mask(share: float, *, grid: int, seed: int) -> Mask:
    """A mask [grid, grid] with exactly ``round(share * grid * grid)`` active cells.

    Args:
        share: 0..1 of the cells. At 1 everything is active.
        grid: cells of a side.
        seed: another one gives another mask.
    """
    random = np.random.default_rng(seed)
    mask = np.zeros((grid, grid), np.bool_)
    wanted = round(share * grid * grid)
    while (missing := wanted - int(np.count_nonzero(mask))) > 0:
        height, width = random.integers(2, max(3, grid * 2 // 5), 2)
        top, left = random.integers(0, grid - height + 1), random.integers(0, grid - width + 1)
        box = np.zeros_like(mask)
        box[top : top + height, left : left + width] = True
        mask.flat[np.flatnonzero(box & ~mask)[:missing]] = True
    return mask
