"""One objectness mask at every resolution of a detector.

The mask is born on a coarse grid (20x20 cells over the input). At a finer feature map it is repeated, at a coarser
one max-pooled, so that foreground is never lost (arXiv 2002.01609: "scale changes of feature maps are followed by
max-pooling of the mask"). ``edgekit.models.masking`` is the same pyramid as PyTorch operations; a test holds the
two equal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgekit.data.letterbox import Letterboxed
    from edgekit.spec import DetectorSpec

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
        taller = mask.copy()
        taller[1:] |= mask[:-1]
        taller[:-1] |= mask[1:]
        mask = taller.copy()
        mask[:, 1:] |= taller[:, :-1]
        mask[:, :-1] |= taller[:, 1:]
    return mask


def boxes_to_mask(boxes_xyxy: NDArray[np.float32], *, grid: tuple[int, int], height: int, width: int) -> Mask:
    """Every cell of ``grid`` (rows, columns) that a box [N, 4] (input pixels) touches with more than an edge."""
    rows, columns = grid
    mask = np.zeros(grid, np.bool_)
    cell = np.array([width / columns, height / rows] * 2)
    for left, top, right, bottom in boxes_xyxy / cell:
        if right > left and bottom > top:
            # What lies outside must not count from the other side of the array.
            first_row, last_row = max(0, math.floor(top)), max(0, math.ceil(bottom))
            first_column, last_column = max(0, math.floor(left)), max(0, math.ceil(right))
            mask[first_row:last_row, first_column:last_column] = True
    return mask


def picture_cells(letterboxed: Letterboxed, spec: DetectorSpec, *, grid: tuple[int, int] | None = None) -> Mask:
    """The cells of ``grid`` (rows, columns) that the picture touches: all but those wholly in the letterbox padding.

    ``grid`` is that of the mask if it is left out.
    """
    whole = np.array([[0, 0, letterboxed.source_width, letterboxed.source_height]], np.float32)
    boxes = letterboxed.to_input(whole)
    return boxes_to_mask(boxes, grid=grid or spec.mask_grid, height=spec.height, width=spec.width)
