"""Random boxes that two views of a picture share (SCRL, arXiv 2103.06122, section 3.1).

The facts are those of the published program (https://github.com/kakaobrain/scrl, ``models/box_generator.py``):

1. Boxes lie in the intersection of the two crops. It is measured in pixels of the view that magnifies it less, along
   each axis for itself, and a picture whose intersection is no wider or no higher than the smallest box has none.
2. For a box, each axis is divided into 1 to ``extent // smallest`` cells, both numbers at random, and a cell is chosen.
   The box has sides from the smallest to the cell's, on whole pixels, anywhere in the cell. So all sizes are about
   equally frequent, which sides drawn from the whole intersection would not be.
3. The first box is taken; another only if its IoU with each earlier one of the first view is below a half. After 50
   tries the last one is taken nonetheless: there are always as many boxes.
4. Boxes are moved to both views, mirrored where the view is, and clipped to it.

A candidate's IoU is taken before it is clipped and the earlier boxes' after that, as published; as boxes are inside
both crops, clipping only removes rounding. The published program draws whole numbers with numpy's older generator, so
its boxes come in another order of draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.pretraining.crops import Crop

Boxes = NDArray[np.float64]
"""[N, 4] left, top, right, bottom."""

NONE: Boxes = np.zeros((0, 4))


def shared_boxes(
    rng: np.random.Generator,
    first: Crop,
    second: Crop,
    *,
    side: int,
    count: int = 10,
    smallest: int = 32,
    largest_iou: float = 0.5,
    tries: int = 50,
) -> tuple[Boxes, Boxes]:
    """``count`` boxes of the same places in both views, or none where the views share too little.

    Args:
        rng: the picture's own generator.
        first, second: the crops of one picture.
        side: of both views, in pixels.
        count: boxes of a picture.
        smallest: side of the smallest box, in pixels of the view that magnifies less.
        largest_iou: boxes of the first view overlap by less than this.
        tries: candidates for each box; the last one is kept whatever it overlaps.

    Returns:
        [count, 4] or [0, 4] for each view, in its pixels, inside 0..side; row k of both shows the same place.
    """
    area = _intersection(first, second)
    scale_x, scale_y = side / max(first.width, second.width), side / max(first.height, second.height)
    # Rounding must not lose the pixel of a crop that lies wholly inside the other.
    extent_x = int((area[2] - area[0]) * scale_x + 1e-9)
    extent_y = int((area[3] - area[1]) * scale_y + 1e-9)
    if extent_x <= smallest or extent_y <= smallest:
        return NONE, NONE
    kept_first, kept_second = NONE, NONE
    for _ in range(count):
        candidates = _candidates(rng, extent_x, extent_y, smallest=smallest, tries=tries)
        places = candidates / [scale_x, scale_y, scale_x, scale_y] + [area[0], area[1], area[0], area[1]]
        in_first = first.to_view(places, side=side)
        free = np.flatnonzero(iou(in_first, kept_first).max(axis=1, initial=0.0) < largest_iou)
        chosen = slice(free[0], free[0] + 1) if len(free) else slice(tries - 1, tries)
        kept_first = np.concatenate([kept_first, in_first[chosen].clip(0, side)])
        kept_second = np.concatenate([kept_second, second.to_view(places[chosen], side=side).clip(0, side)])
    return kept_first, kept_second


def _intersection(first: Crop, second: Crop) -> tuple[int, int, int, int]:
    """xyxy in pixels of the picture; right of left or below top is empty."""
    return (
        max(first.left, second.left),
        max(first.top, second.top),
        min(first.right, second.right),
        min(first.bottom, second.bottom),
    )


def _candidates(rng: np.random.Generator, extent_x: int, extent_y: int, *, smallest: int, tries: int) -> Boxes:
    """[tries, 4] boxes on whole pixels, inside 0..extent."""
    edges = []
    for extent in (extent_x, extent_y):
        division, place, length, offset = rng.random((4, tries))
        cells = 1 + np.floor(division * (extent // smallest))
        cell = np.floor(extent / cells)
        start = np.floor(place * cells) * cell
        box = smallest + np.floor(length * (cell - smallest + 1))
        start = start + np.floor(offset * (cell - box + 1))
        edges.append((start, start + box))
    (left, right), (top, bottom) = edges
    return np.stack([left, top, right, bottom], axis=1)


def iou(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """[N, M] intersection over union of every two boxes; sides are positive."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    areas = [(group[:, 2:] - group[:, :2]).prod(axis=-1) for group in (boxes, others)]
    result: NDArray[np.float64] = shared / (areas[0][:, None] + areas[1][None] - shared)
    return result
