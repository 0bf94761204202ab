"""What a mask costs and what it keeps: active share of the grid, active share of each box, recall of boxes.

G is the mask's grid, N counts boxes. Boxes are xyxy in pixels of the letterboxed input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import area, clip_boxes
from edgekit.masks.pyramid import Mask, mask_at
from edgekit.spec import DetectorSpec

MIN_ACTIVE_SHARE = 0.7
"""A box counts as kept when this share of its area is active; with less, edges that it is read from are gone."""


def active_share(mask: Mask) -> float:
    """Share 0..1 of the cells that are active."""
    return np.count_nonzero(mask) / mask.size


def refined_tokens(spec: DetectorSpec, mask: Mask) -> int:
    """How many tokens a DETR's encoder refines behind ``mask``: those that it leaves, or the budget where that is less.

    Raises:
        ValueError: a level of tokens does not fit the mask.
    """
    left = sum(int(np.count_nonzero(mask_at(mask, rows=rows, columns=columns))) for rows, columns in spec.token_maps)
    return min(left, max(spec.encoders.values()))


def active_area_share(
    boxes_xyxy_input_px: NDArray[np.float32], mask: Mask, height: int, width: int
) -> NDArray[np.float32]:
    """[N] share 0..1 of each box's area that lies on active cells, exact to the fraction of a cell.

    Only the part of a box inside the ``height`` x ``width`` input counts. A box with no area there has nothing to
    lose: its share is 1.
    """
    rows, columns = mask.shape
    boxes = clip_boxes(boxes_xyxy_input_px, height=height, width=width)
    across = _overlap(boxes[:, 0], boxes[:, 2], cells=columns, size=width)  # [N, columns] pixels
    down = _overlap(boxes[:, 1], boxes[:, 3], cells=rows, size=height)  # [N, rows] pixels
    active = np.einsum("nr,rc,nc->n", down, mask.astype(np.float64), across)
    total = area(boxes)
    share = np.divide(active, total, out=np.ones(len(boxes)), where=total > 0)
    return np.asarray(np.clip(share, 0, 1), np.float32)


def mask_recall(
    boxes_xyxy_input_px: NDArray[np.float32],
    mask: Mask,
    height: int,
    width: int,
    *,
    min_share: float = MIN_ACTIVE_SHARE,
) -> float:
    """Share 0..1 of the boxes [N, 4] that keep ``min_share`` of their area; 1 when there is no box to lose."""
    if not len(boxes_xyxy_input_px):
        return 1.0
    return float((active_area_share(boxes_xyxy_input_px, mask, height, width) >= min_share).mean())


def _overlap(low: NDArray[np.float32], high: NDArray[np.float32], *, cells: int, size: int) -> NDArray[np.float64]:
    """[N, cells] length that each interval ``low``..``high`` shares with each of ``cells`` equal parts of 0..size."""
    edges = np.linspace(0, size, cells + 1)
    shared = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    return np.asarray(np.maximum(shared, 0), np.float64)
