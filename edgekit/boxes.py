"""Boxes as arrays: overlap, clipping, class-wise greedy suppression and voting, numpy only.

N, M count boxes. Every box is xyxy: left, top, right, bottom in pixels, right and bottom exclusive, so a box's
width is ``right - left`` with no "+ 1".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
"""[N, 4] left, top, right, bottom."""

SUPPORTERS = 10
"""Boxes that a kept box needs around it to keep its whole score: as many as training asks to find each object
(``edgekit.learning.assignment.POSITIVES``, which needs PyTorch)."""

FEW = 64
"""Up to so many boxes :func:`nms` computes all overlaps at once: in a frame from a camera a call of numpy takes longer
than the overlaps. Where candidates come in thousands, most are dropped before anyone asks for theirs."""

OWN_WEIGHT = 0.5
"""Share of a box's own score in its score after the vote."""


def area(boxes_xyxy: Boxes) -> NDArray[np.float32]:
    """[N] square pixels; 0 for a box whose right is not right of its left, or whose bottom is not below its top."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)  # [N, 2]
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def iou_matrix(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """[N, M] intersection over union in 0..1 of every box of ``first`` [N, 4] with every one of ``second`` [M, 4].

    Two boxes without area overlap by 0, not by 0/0.
    """
    corner_low = np.maximum(first[:, None, :2], second[None, :, :2])
    corner_high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(corner_high - corner_low, 0)  # [N, M, 2]
    shared = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None, :] - shared
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


def vote(
    boxes_xyxy: Boxes,
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    kept: NDArray[np.int64],
    *,
    iou: float,
    least: float,
) -> tuple[Boxes, NDArray[np.float32]]:
    """Let the boxes that suppression dropped correct the ones that it kept.

    A kept box becomes the mean of the boxes of its class that overlap it, weighted by squared score times overlap (box
    voting: Gidaris and Komodakis, arXiv 1505.01749, section 5; PVANet uses it too). Its score becomes half its own and
    half the mean of its ``SUPPORTERS`` best voters', missing ones counting 0: an object is found from many anchors at
    once, a false alarm often from one alone. On PASCAL VOC the first is worth half a point of AP50 and two of mAP, the
    second another point of AP50.

    Args:
        boxes_xyxy: [N, 4] all candidates.
        scores: [N] in 0..1.
        class_ids: [N].
        kept: [K] indices of the boxes that :func:`nms` chose.
        iou: 0..1, the overlap from which a box votes.
        least: the score from which it does; a kept box always votes for itself.

    Returns:
        [K, 4] boxes and [K] scores in the order of ``kept``; no score rises.
    """
    overlap = iou_matrix(boxes_xyxy[kept], boxes_xyxy)  # [K, N]
    voters = (overlap >= iou) & (scores >= least) & (class_ids[kept][:, None] == class_ids)
    voters[np.arange(len(kept)), kept] = True
    # A box without area overlaps nothing, itself included: the floor keeps its weight from being 0.
    weights = np.where(voters, np.maximum(scores**2 * overlap, 1e-12), 0)
    voted_boxes = weights @ boxes_xyxy / weights.sum(axis=1, keepdims=True)
    # The cap matters where ``iou`` is lower than that of the suppression: a better box may then be among the voters.
    support = np.where(voters, np.minimum(scores, scores[kept][:, None]), 0)
    strongest = np.sort(support, axis=1)[:, -SUPPORTERS:]
    voted_scores = OWN_WEIGHT * scores[kept] + (1 - OWN_WEIGHT) * strongest.sum(axis=1) / SUPPORTERS
    return voted_boxes.astype(np.float32), voted_scores.astype(np.float32)
