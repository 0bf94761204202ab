"""Masks as real frames have them, for measuring: rectangles of the size that objects have, until enough is covered."""

from __future__ import annotations

import numpy as np

from edgekit.masks.pyramid import Mask


def blob_mask(share: float, *, grid: tuple[int, int], seed: int) -> Mask:
    """A mask of ``grid`` (rows, columns) with exactly that share of its cells active, rounded.

    Args:
        share: 0..1 of the cells. At 1 everything is active.
        grid: rows and columns.
        seed: another one gives another mask.
    """
    random = np.random.default_rng(seed)
    mask = np.zeros(grid, np.bool_)
    wanted, largest = round(share * mask.size), max(3, min(grid) * 2 // 5)
    while (missing := wanted - int(np.count_nonzero(mask))) > 0:
        height, width = random.integers(2, largest, 2)
        top, left = random.integers(0, grid[0] - height + 1), random.integers(0, grid[1] - width + 1)
        box = np.zeros_like(mask)
        box[top : top + height, left : left + width] = True
        mask.flat[np.flatnonzero(box & ~mask)[:missing]] = True
    return mask
