"""What the objectness network should answer: labels and weights of the cells, from boxes.

The mask must keep *boxes*, small ones as well as large ones, so a cell weighs as much as it matters to a box: by the
share of it that the box covers, and more if the box has few cells. Cells that only ignored boxes touch weigh nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALL_BOX_CELLS = 6.0
"""A box of this many cells weighs its cells twice; one of a single cell, seven times."""


def objectness_targets(
    boxes_xyxy: NDArray[np.float32], ignore: NDArray[np.bool_], *, grid: int, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Labels and weights for one picture.

    Args:
        boxes_xyxy: [N, 4] in input pixels.
        ignore: [N] boxes that are neither foreground nor background.
        grid: cells on each side.
        height: input height in pixels.
        width: input width in pixels.

    Returns:
        labels [grid, grid], 1 where a box covers any of the cell; weights [grid, grid], 0 or more.
    """
    cell_h, cell_w = height / grid, width / grid
    edges_y, edges_x = np.arange(grid) * cell_h, np.arange(grid) * cell_w
    labels = np.zeros((grid, grid), np.float32)
    importance = np.zeros((grid, grid), np.float32)
    ignored = np.zeros((grid, grid), np.bool_)
    for (left, top, right, bottom), skip in zip(boxes_xyxy, ignore, strict=True):
        share_y = np.clip(np.minimum(bottom, edges_y + cell_h) - np.maximum(top, edges_y), 0, None) / cell_h
        share_x = np.clip(np.minimum(right, edges_x + cell_w) - np.maximum(left, edges_x), 0, None) / cell_w
        coverage = (share_y[:, None] * share_x[None, :]).astype(np.float32)
        if skip:
            ignored |= coverage > 0
            continue
        cells = max(1.0, float(coverage.sum()))
        labels = np.maximum(labels, (coverage > 0).astype(np.float32))
        importance = np.maximum(importance, coverage * np.float32(1 + SMALL_BOX_CELLS / cells))
    weights = np.where(labels > 0, importance, np.where(ignored, 0, 1)).astype(np.float32)
    return labels, weights
