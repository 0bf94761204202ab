"""From a region proposal network's maps to RoIs, and from RoIs to features, as Faster R-CNN does it. numpy only.

This is what the kernels behind ``edgekit.two_stage`` are tested against.

The conventions are those of py-faster-rcnn (arXiv 1506.01497), which the published networks were trained with: a box
is left, top, right, bottom in input pixels with right and bottom *inclusive*, so its width is ``right - left + 1``.
Elsewhere in edgekit they are exclusive; :func:`to_exclusive` is the way out.

A anchors a cell, H x W cells of 16 pixels, N boxes, R RoIs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import Boxes, nms
from edgekit.masks.pyramid import Mask
from edgekit.models.anchors import MAX_LOG_SIZE
from edgekit.spec import TwoStage

STRIDE = 16
"""Input pixels a cell, and the side of the square that anchors are made from."""

POOLED = 6
"""Rows and columns that every RoI becomes."""

NMS_IOU = TwoStage.nms_iou
SMALLEST = TwoStage.smallest
"""Proposals with a shorter side, in pixels of the picture before it was resized, are dropped."""

PROPOSALS = TwoStage.proposals
"""How many RoIs are kept when detecting."""


@dataclass(frozen=True, kw_only=True)
class AnchorShapes:
    """Anchors of one cell."""

    ratios: tuple[float, ...]
    """Height over width; the outer loop."""

    scales: tuple[float, ...]
    """Multiples of the 16-pixel square; the inner loop."""

    def __len__(self) -> int:
        return len(self.ratios) * len(self.scales)


def cell_anchors(shapes: AnchorShapes) -> Boxes:
    """[A, 4] the anchors of the cell whose centre is (7.5, 7.5).

    Sides are rounded before they are scaled, as in ``lib/rpn/generate_anchors.py``.
    """
    boxes = []
    for ratio in shapes.ratios:
        width = np.round(np.sqrt(STRIDE * STRIDE / ratio))
        height = np.round(width * ratio)
        for scale in shapes.scales:
            reach = (np.array([width, height]) * scale - 1) / 2
            centre = (STRIDE - 1) / 2
            boxes.append(np.concatenate([centre - reach, centre + reach]))
    return np.array(boxes, np.float32)


def all_anchors(shapes: AnchorShapes, *, rows: int, columns: int) -> Boxes:
    """[rows * columns * A, 4] in the order row, column, anchor."""
    y, x = np.meshgrid(np.arange(rows) * STRIDE, np.arange(columns) * STRIDE, indexing="ij")
    corners = np.stack([x, y, x, y], axis=-1).astype(np.float32)  # [rows, columns, 4]
    return (corners[:, :, None] + cell_anchors(shapes)).reshape(-1, 4)


def decode(boxes: Boxes, deltas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes [N, 4K] that ``deltas`` [N, 4K] (dx, dy, log w, log h) make of ``boxes`` [N, 4].

    The "+ 1" is in the width that is read and not in the one that is written, as in
    ``lib/fast_rcnn/bbox_transform.py``: deltas of zero return a box that is one pixel wider.
    """
    groups = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)
    sides = (boxes[:, 2:] - boxes[:, :2] + 1)[:, None]  # [N, 1, 2]
    centre = boxes[:, None, :2] + sides / 2 + groups[..., :2] * sides
    # The bound is ours: a broken head gives a large box, never an infinity. The exponential is the double one's,
    # rounded: float ones differ among libraries, and one bit may decide what is suppressed.
    grown = np.exp(np.minimum(groups[..., 2:], MAX_LOG_SIZE).astype(np.float64)).astype(np.float32)
    half = grown * sides / 2
    return np.concatenate([centre - half, centre + half], axis=-1).reshape(deltas.shape).astype(np.float32)


def encode(boxes: Boxes, targets: Boxes) -> NDArray[np.float32]:
    """[N, 4] the deltas that lead from ``boxes`` [N, 4] to ``targets`` [N, 4], both with inclusive corners."""
    sides, wanted = boxes[:, 2:] - boxes[:, :2] + 1, targets[:, 2:] - targets[:, :2] + 1
    shift = (targets[:, :2] + wanted / 2 - boxes[:, :2] - sides / 2) / sides
    return np.concatenate([shift, np.log(wanted / sides)], axis=1).astype(np.float32)


def clip(boxes: NDArray[np.float32], *, height: int, width: int) -> NDArray[np.float32]:
    """[N, 4K] with every corner moved into 0..width - 1, 0..height - 1."""
    limit = np.tile(np.array([width - 1, height - 1], np.float32), boxes.shape[1] // 2)
    return np.clip(boxes, 0, limit)


def to_exclusive(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes [..., 4] with inclusive corners as the rest of edgekit wants them."""
    return boxes + np.array([0, 0, 1, 1], np.float32)


def to_inclusive(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The way in: boxes [..., 4] with exclusive corners as this module wants them."""
    return boxes - np.array([0, 0, 1, 1], np.float32)


def propose(
    scores: NDArray[np.float32],
    deltas: NDArray[np.float32],
    shapes: AnchorShapes,
    *,
    height: int,
    width: int,
    before: int,
    after: int = PROPOSALS,
    resized: tuple[float, float] = (1.0, 1.0),
    mask: Mask | None = None,
) -> tuple[Boxes, NDArray[np.float32]]:
    """The RoIs of one picture, best first.

    Args:
        scores: [2A, H, W] logits, the A of the background first.
        deltas: [4A, H, W], four for each anchor in turn.
        shapes: the A anchors.
        height: of the network's input in pixels.
        width: of the network's input in pixels.
        before: how many of the best enter suppression (12000; lite 6000).
        after: how many leave it at most.
        resized: input pixels over the picture's, in x and y; the smallest side is measured in the picture.
        mask: [H, W] True where the objectness mask is; elsewhere the maps are zero, which as a logit would be a score
            of one half, so those anchors are left out.

    Returns:
        Boxes [R, 4] with inclusive corners, and their scores [R] in 0..1. What has a NaN proposes nothing.
    """
    anchors, (rows, columns) = len(shapes), scores.shape[-2:]
    margins = (scores[anchors:] - scores[:anchors]).transpose(1, 2, 0).reshape(-1)
    corrections = deltas.reshape(anchors, 4, rows, columns).transpose(2, 3, 0, 1).reshape(-1, 4)
    boxes = clip(decode(all_anchors(shapes, rows=rows, columns=columns), corrections), height=height, width=width)
    smallest = SMALLEST * np.array(resized, np.float32)
    usable = (boxes[:, 2:] - boxes[:, :2] + 1 >= smallest).all(axis=1) & ~np.isnan(margins)
    if mask is not None:
        usable &= np.repeat(mask.reshape(-1), anchors)
    chosen = np.flatnonzero(usable)
    chosen = chosen[np.argsort(-margins[chosen], kind="stable")[:before]]
    boxes = boxes[chosen]
    # A softmax over two is a sigmoid of the difference; written so that no exponential overflows.
    probabilities = np.exp(-np.logaddexp(0, -margins[chosen].astype(np.float64))).astype(np.float32)
    nobody = np.zeros(len(boxes), np.int64)
    kept = nms(to_exclusive(boxes), probabilities, nobody, iou=NMS_IOU, limit=after)
    return boxes[kept], probabilities[kept]


def roi_edges(rois: Boxes) -> NDArray[np.int64]:
    """[R, 4] the first and last cell of each RoI: left, top, right, bottom, both inclusive.

    Halves round away from zero, as C's ``round`` does and numpy's does not; a RoI has one cell at least.
    """
    raw = rois.astype(np.float64) / STRIDE
    cells = np.asarray(np.sign(raw) * np.floor(np.abs(raw) + 0.5), np.int64)
    cells[:, 2:] = np.maximum(cells[:, 2:], cells[:, :2])
    return cells


def pool_rois(features: NDArray[np.float32], rois: Boxes) -> NDArray[np.float32]:
    """[R, C, 6, 6] maxima of ``features`` [C, H, W] in the bins of ``rois`` [R, 4] (inclusive corners, input pixels).

    Caffe's rule (``roi_pooling_layer.cpp``): bins overlap by rounding outwards, and one that is empty because it lies
    outside the map is 0.
    """
    channels, rows, columns = features.shape
    # Cells first, channels last: a bin's maximum runs over whole lines of memory, and in one axis after the other, so
    # that overlapping bins share the first.
    cells = np.ascontiguousarray(features.transpose(1, 2, 0))
    pooled = np.zeros((len(rois), POOLED, POOLED, channels), features.dtype)
    for number, (left, top, right, bottom) in enumerate(roi_edges(rois).tolist()):
        low, high = min(max(left, 0), columns), min(max(right + 1, 0), columns)
        across = [(begin - low, end - low) for begin, end in _bins(left, right, columns)]
        for row, (begin, end) in enumerate(_bins(top, bottom, rows)):
            if begin == end:
                continue
            line = np.maximum.reduce(cells[begin:end, low:high], axis=0)  # [high - low, C]
            for column, (first, last) in enumerate(across):
                if first < last:
                    np.maximum.reduce(line[first:last], axis=0, out=pooled[number, row, column])
    return np.ascontiguousarray(pooled.transpose(0, 3, 1, 2))


def _bins(first: int, last: int, cells: int) -> list[tuple[int, int]]:
    """Begin and end of the six bins of one axis, cut to ``cells``."""
    length = last - first + 1
    edges = [(first + k * length // POOLED, first - (-(k + 1) * length // POOLED)) for k in range(POOLED)]
    return [(min(max(begin, 0), cells), min(max(end, 0), cells)) for begin, end in edges]
