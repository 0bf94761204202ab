"""What a RoI head should answer: which proposals it is shown, and what they are (Fast R-CNN, arXiv 1504.08083, 2.3).

Numbers and rules are those of py-faster-rcnn's ``proposal_target_layer.py``, which PVANet was trained with. numpy only.

RoIs have inclusive corners, boxes of the truth exclusive ones, both in input pixels. R RoIs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import Boxes, iou_matrix
from edgekit.learning.proposal_targets import PictureTruth
from edgekit.masks.pyramid import Mask
from edgekit.models.pvanet_rois import STRIDE, clip, encode, to_exclusive, to_inclusive

POSITIVE_SHARE = 0.25
"""Of the RoIs of a picture at most."""

POSITIVE_IOU = 0.5
"""Overlap from which a RoI is an object's; all others are background."""

DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
"""Deltas (dx, dy, log w, log h) are divided by them, which makes errors of all four about equally large."""


@dataclass(frozen=True, kw_only=True)
class RoITargets:
    """The RoIs of one picture that the head is shown: objects' first, then background."""

    rois: Boxes
    """[R, 4]."""

    classes: NDArray[np.int64]
    """[R] 0 for background, else one more than the class."""

    deltas: NDArray[np.float32]
    """[P, 4] what moves the first P of them onto their boxes, over :data:`DEVIATIONS`."""


def roi_targets(
    proposals: Boxes,
    truth: PictureTruth,
    *,
    count: int,
    mask: Mask | None,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> RoITargets:
    """Choose RoIs of one picture among its proposals and its true boxes.

    Args:
        proposals: [N, 4], of active cells only.
        truth: the picture's. A box whose centre the mask hides is not shown as a RoI: it would be a RoI of nothing.
        count: R at most.
        mask: [H/16, W/16] or ``None``.
        height: of the input in pixels.
        width: of the input in pixels.
        rng: draws among them.
    """
    shown = truth.boxes if mask is None else truth.boxes[_centres_active(truth.boxes, mask)]
    rois = np.concatenate([proposals, clip(to_inclusive(shown), height=height, width=width)])
    boxes = to_exclusive(rois)
    overlaps = iou_matrix(truth.boxes, boxes)  # [T, N + shown]
    best = overlaps.max(axis=0, initial=0.0)
    positive = np.flatnonzero(best >= POSITIVE_IOU)
    unsure = iou_matrix(truth.ignored, boxes).max(axis=0, initial=0.0) >= POSITIVE_IOU
    negative = np.flatnonzero((best < POSITIVE_IOU) & ~unsure)
    most = round(POSITIVE_SHARE * count)
    if len(positive) > most:
        positive = rng.choice(positive, most, replace=False)
    if len(negative) > count - len(positive):
        negative = rng.choice(negative, count - len(positive), replace=False)
    chosen = rois[np.concatenate([positive, negative])]
    classes = np.zeros(len(chosen), np.int64)
    deltas = np.zeros((0, 4), np.float32)
    if len(positive):
        owners = overlaps[:, positive].argmax(axis=0)
        classes[: len(positive)] = truth.classes[owners] + 1
        deltas = encode(rois[positive], to_inclusive(truth.boxes[owners]))
        deltas /= np.array(DEVIATIONS, np.float32)
    return RoITargets(rois=chosen, classes=classes, deltas=deltas)


def _centres_active(boxes: Boxes, mask: Mask) -> NDArray[np.bool_]:
    """[T] whether the cell under the centre of each box is active."""
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 // STRIDE).astype(np.int64)
    columns, rows = np.clip(cells, 0, np.array(mask.shape[::-1]) - 1).T
    return np.asarray(mask[rows, columns], np.bool_)
