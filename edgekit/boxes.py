"""Boxes as arrays: overlap, clipping and class-wise greedy suppression, numpy only.

N, M count boxes. Every box is xyxy: left, top, right, bottom in pixels, right and bottom exclusive, so a box's
width is ``right - left`` with no "+ 1".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
"""[N, 4] left, top, right, bottom."""

FEW = 64
"""Up to so many boxes :func:`nms` computes all overlaps at once: in a frame from a camera a call of numpy takes longer
than the overlaps. Where candidates come in thousands, most are dropped before anyone asks for theirs."""


def area(boxes_xyxy: Boxes) -> NDArray[np.float32]:
    """[N] square pixels; 0 for a box whose right is not right of its left, or whose bottom is not below its top."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)  # [N, 2]
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def iou_matrix(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """[N, M] intersection over union in 0..1 of every box of ``first`` [N, 4] with every one of ``second`` [M, 4].

    Two boxes without area overlap by 0, not by 0/0.
    """
    # Whole [N, M] planes: numpy takes three times as long over the last axis of [N, M, 2].
    left, top, right, bottom = first.T[:, :, None]
    width = np.maximum(np.minimum(right, second[:, 2]) - np.maximum(left, second[:, 0]), 0)
    height = np.maximum(np.minimum(bottom, second[:, 3]) - np.maximum(top, second[:, 1]), 0)
    shared = width * height
    union = area(first)[:, None] + area(second) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), np.float32)


def clip_boxes(boxes_xyxy: Boxes, *, height: float, width: float) -> Boxes:
    """The part of each box [N, 4] inside a picture; a box outside it becomes one without area."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(boxes_xyxy, 0, limit).astype(np.float32)


def nms(
    boxes_xyxy: Boxes,
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    *,
    iou: float,
    limit: int,
) -> NDArray[np.int64]:
    """Indices of the boxes that survive class-wise greedy suppression, best score first, at most ``limit``.

    A box is dropped when a better one of the same class overlaps it by more than ``iou``. Classes compete only for
    ``limit``, which is why one loop in score order over all classes may stop early and still be exact.

    Args:
        boxes_xyxy: [N, 4].
        scores: [N]; equal scores keep their order.
        class_ids: [N].
        iou: 0..1.
        limit: how many boxes to keep at most.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes_xyxy[order], class_ids[order]
    few = iou_matrix(boxes, boxes) if len(order) <= FEW else None
    members = {int(name): np.flatnonzero(classes == name) for name in np.unique(classes)}
    alive = np.ones(len(order), np.bool_)
    kept: list[int] = []
    for position in range(len(order)):
        if len(kept) >= limit:
            break
        if not alive[position]:
            continue
        kept.append(position)
        rivals = members[int(classes[position])]
        if few is None:
            rivals = members[int(classes[position])] = rivals[alive[rivals] & (rivals > position)]
            overlaps = iou_matrix(boxes[position : position + 1], boxes[rivals])[0]
        else:
            overlaps = few[position, rivals]
        alive[rivals[overlaps > iou]] = False
    return np.asarray(order[kept], np.int64)
