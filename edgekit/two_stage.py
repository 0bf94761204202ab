"""The steps of a Faster R-CNN that lie between its two graphs and behind them, in edgekit's own kernels.

maps of the region proposal network -> RoIs -> pooled features -> (the graph ``head``) -> objects. Inference engines
have no operations for these, or slow ones. ``edgekit.models.pvanet_rois`` has the first two in numpy, from which no
result differs; the graphs are those of ``edgekit.exporters.pvanet_onnx``, whose maps have a row a cell.

A anchors a cell, C channels, R RoIs, K classes. RoIs are left, top, right, bottom in input pixels, right and bottom
inclusive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.native import require
from edgekit.boxes import Boxes
from edgekit.data.letterbox import Letterboxed
from edgekit.detections import Detections
from edgekit.masks.pyramid import Mask
from edgekit.models.anchors import MAX_LOG_SIZE
from edgekit.models.pvanet_rois import NMS_IOU, PROPOSALS, SMALLEST, STRIDE

Rows = NDArray[np.float32]

CLASS_NMS_IOU = 0.4
"""Boxes of one class that overlap by more are one object's."""

VOTE_IOU = 0.5
"""Boxes of its class that overlap a kept one by as much vote for its place."""

VOTE_SCORE = 0.01
"""Boxes with a lower score do not vote."""

MOST_OBJECTS = 100
"""In a picture."""


def propose_rows(
    scores: Rows,
    deltas: Rows,
    anchors: Boxes,
    *,
    height: int,
    width: int,
    before: int,
    after: int = PROPOSALS,
    nms_iou: float = NMS_IOU,
    smallest: float = SMALLEST,
    resized: tuple[float, float] = (1.0, 1.0),
    mask: Mask | None = None,
) -> tuple[Boxes, NDArray[np.float32]]:
    """The RoIs of one picture, best first: those of :func:`edgekit.models.pvanet_rois.propose`.

    Args:
        scores: [cells, 2A] logits, the A of the background first.
        deltas: [cells, 4A], four for each anchor in turn.
        anchors: [A, 4] of the first cell (``cell_anchors``); the others' lie a multiple of 16 pixels away.
        height: of the network's input in pixels; the maps have a sixteenth of it in rows.
        width: of the network's input in pixels.
        before: how many of the best enter suppression.
        after: how many leave it at most.
        nms_iou: overlap 0..1 over which the lower-scored of two RoIs is dropped.
        smallest: RoIs with a shorter side, in pixels of the picture before it was resized, are dropped.
        resized: input pixels over the picture's, in x and y.
        mask: [height / 16, width / 16] True where RoIs may come from.

    Returns:
        Boxes [R, 4], and their scores [R] in 0..1. What has a NaN proposes nothing; R may be 0.

    Raises:
        EngineError: the kernels cannot be loaded.
        ValueError: a shape does not fit.
    """
    boxes, chances = require().propose(
        np.ascontiguousarray(scores, np.float32),
        np.ascontiguousarray(deltas, np.float32),
        None if mask is None else np.ascontiguousarray(mask, np.bool_).reshape(-1).view(np.uint8),
        np.ascontiguousarray(anchors, np.float32),
        grid=(height // STRIDE, width // STRIDE),
        size=(width, height),
        smallest=(smallest * resized[0], smallest * resized[1]),
        stride=STRIDE,
        most_log_size=MAX_LOG_SIZE,
        iou=nms_iou,
        before=before,
        after=after,
    )
    return boxes, chances


def pool_rows(features: Rows, rois: Boxes, *, height: int, width: int, places: int) -> NDArray[np.float32]:
    """What the graph ``head`` takes as ``image``: the maxima in six by six bins of each RoI.

    The same numbers as :func:`edgekit.models.pvanet_rois.pool_rois`.

    Args:
        features: [cells, C].
        rois: [R, 4], R at most ``places``.
        height: of the network's input in pixels; the map has a sixteenth of it in rows.
        width: of the network's input in pixels.
        places: RoIs that one call of the head takes; those behind the R-th are zeros.

    Returns:
        [1, C * 36, places, 1] in the order channel, row, column; a view of memory in which each RoI's features lie side
        by side, which engines of that layout need not copy.

    Raises:
        EngineError: the kernels cannot be loaded.
        ValueError: a shape does not fit, or a corner is not finite.
    """
    pooled: NDArray[np.float32] = require().pool_rois(
        np.ascontiguousarray(features, np.float32),
        grid=(height // STRIDE, width // STRIDE),
        rois=np.ascontiguousarray(rois, np.float32),
        places=places,
    )
    return pooled.T[None, :, :, None]


def roi_mask(count: int, *, places: int) -> NDArray[np.float32]:
    """What the graph ``head`` takes as ``mask``: [1, 1, places, 1], 1 for the first ``count`` RoIs, then 0."""
    mask = np.zeros((1, 1, places, 1), np.float32)
    mask[:, :, :count] = 1
    return mask


def find_objects(
    rois: Boxes,
    class_logits: Rows,
    box_deltas: Rows,
    *,
    height: int,
    width: int,
    letterboxed: Letterboxed,
    score_threshold: float,
    nms_iou: float = CLASS_NMS_IOU,
    vote_iou: float = VOTE_IOU,
    most: int = MOST_OBJECTS,
) -> Detections:
    """Softmax -> a box for each RoI and class, in source pixels -> class-wise NMS -> voting.

    A kept box becomes the mean of the boxes of its class that overlap it by ``vote_iou`` or more, weighted by score;
    its score stays (Gidaris and Komodakis, arXiv 1505.01749, section 5; ``bbox_voting`` of
    https://github.com/sanghoon/pva-faster-rcnn). A detection does not depend on ``score_threshold``, which only says
    whether it is reported.

    Args:
        rois: [R, 4].
        class_logits: [R or more, K + 1], the background's first; rows behind the R-th are not read.
        box_deltas: [R or more, 4 (K + 1)], four a class.
        height: of the network's input in pixels.
        width: of the network's input in pixels.
        letterboxed: the way back to the source picture; boxes are clipped to it, and dropped when nothing is left.
        score_threshold: 0..1, inclusive.
        nms_iou: 0..1.
        vote_iou: 0..1; at 1 there is no vote.
        most: objects at most.

    Returns:
        Objects of the classes 0..K - 1, the best first, right and bottom exclusive. A score of NaN is none.

    Raises:
        EngineError: the kernels cannot be loaded.
        ValueError: a shape does not fit.
    """
    voting = vote_iou < 1
    boxes, scores, class_ids = require().find_region_objects(
        np.ascontiguousarray(rois, np.float32),
        np.ascontiguousarray(class_logits[: len(rois)], np.float32),
        np.ascontiguousarray(box_deltas[: len(rois)], np.float32),
        size=(width, height),
        letterbox=(letterboxed.left, letterboxed.top, letterboxed.scale),
        source=(letterboxed.source_width, letterboxed.source_height),
        most_log_size=MAX_LOG_SIZE,
        candidate_score=min(score_threshold, VOTE_SCORE) if voting else score_threshold,
        score=score_threshold,
        nms_iou=nms_iou,
        most=most,
        votes=voting,
        vote_iou=vote_iou,
    )
    return Detections(boxes_xyxy=boxes, scores=scores, class_ids=class_ids)
