"""One objectness mask at every resolution of a detector.

The mask is born on a coarse grid (20x20 cells over the input). At a finer feature map it is repeated, at a coarser
one max-pooled, so that foreground is never lost (arXiv 2002.01609: "scale changes of feature maps are followed by
max-pooling of the mask"). ``edgekit.models.masking`` is the same pyramid as PyTorch operations; a test holds the
two equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""[rows, columns], True where objects can be."""


def mask_at(mask: Mask, *, rows: int, columns: int) -> Mask:
    """``mask`` at a feature map of ``rows`` x ``columns``.

    Finer maps must be a whole multiple of the grid; coarser ones are reached by halving and rounding up
    (20, 10, 5, 3, 2, 1), as a stride-2 convolution with padding 1 does.

    Raises:
        ValueError: the size is on neither path.
    """
    while mask.shape[0] > rows or mask.shape[1] > columns:
        mask = halve(mask)
    if rows % mask.shape[0] or columns % mask.shape[1]:
        raise ValueError(f"a mask of {mask.shape[0]}x{mask.shape[1]} cells has no level of {rows}x{columns}")
    return np.repeat(np.repeat(mask, rows // mask.shape[0], axis=0), columns // mask.shape[1], axis=1)


def halve(mask: Mask) -> Mask:
    """2x2 max-pool with stride 2, rounding up: a cell is active if any cell it covers is."""
    rows, columns = (mask.shape[0] + 1) // 2, (mask.shape[1] + 1) // 2
    padded = np.zeros((rows * 2, columns * 2), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(padded.reshape(rows, 2, columns, 2).any(axis=(1, 3)), np.bool_)


def dilate(mask: Mask, cells: int) -> Mask:
    """Grow the active area by ``cells`` in all eight directions."""
    for _ in range(cells):
        padded = np.pad(mask, 1)
        grown = np.zeros_like(mask)
        for row in range(3):
            for column in range(3):
                grown |= padded[row : row + mask.shape[0], column : column + mask.shape[1]]
        mask = grown
    return mask


def boxes_to_mask(boxes_xyxy: NDArray[np.float32], *, grid: int, height: int, width: int) -> Mask:
    """Every cell that a box [N, 4] (input pixels) touches with more than an edge: the perfect mask of the boxes."""
    mask = np.zeros((grid, grid), np.bool_)
    cell = np.array([width / grid, height / grid] * 2)
    for left, top, right, bottom in boxes_xyxy / cell:
        if right > left and bottom > top:
            mask[
                max(0, int(np.floor(top))) : int(np.ceil(bottom)), max(0, int(np.floor(left))) : int(np.ceil(right))
            ] = True
    return mask
