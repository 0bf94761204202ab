"""What a one-stage detector puts out, read: anchors that are classified themselves (SSD, arXiv 1512.02325).

A anchors, C classes, G mask grid.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Tensors
from edgekit.backends.native import require
from edgekit.data.letterbox import Letterboxed
from edgekit.decoding.candidates import Candidates
from edgekit.detections import Detections
from edgekit.masks.pyramid import Mask
from edgekit.models.anchors import MAX_LOG_SIZE, anchor_boxes, anchor_mask, decode
from edgekit.spec import DetectorSpec

VOTING_SCORE = 0.05
"""Boxes with a lower score do not vote: there are very many of them, and they change AP50 by .02 points."""

SUPPORTERS = 10
"""Boxes that a kept box needs around it to keep its whole score: as many as training asks to find each object
(``edgekit.learning.assignment.POSITIVES``, which needs PyTorch)."""

OWN_WEIGHT = 0.5
"""Share of a box's own score in its score after the vote."""


def postprocess(
    spec: DetectorSpec,
    class_logits: NDArray[np.float32],
    box_offsets: NDArray[np.float32],
    mask: Mask,
    letterboxed: Letterboxed,
    score_threshold: float,
) -> Detections:
    """Active anchors -> boxes in source pixels -> class-wise NMS -> voting -> scores over the threshold.

    A kept box becomes the mean of the boxes of its class that overlap it, weighted by squared score times overlap (box
    voting: Gidaris and Komodakis, arXiv 1505.01749, section 5; PVANet uses it too). Its score becomes half its own and
    half the mean of its ``SUPPORTERS`` best voters', missing ones counting 0: an object is found from many anchors at
    once, a false alarm often from one alone. On PASCAL VOC the first is worth half a point of AP50 and two of mAP, the
    second another point of AP50. No score rises.

    A detection does not depend on ``score_threshold``, which only says whether it is reported.

    Args:
        spec: anchors, variances, NMS and voting settings.
        class_logits: [1, A, C].
        box_offsets: [1, A, 4].
        mask: [G, G]; anchors of inactive cells are background whatever their logits.
        letterboxed: the way back to the source picture; boxes are clipped to it, and dropped when nothing is left.
        score_threshold: 0..1, inclusive.
    """
    voting = spec.vote_iou < 1
    least = min(score_threshold, VOTING_SCORE) if voting else score_threshold
    boxes, scores, class_ids = require().find_objects(
        np.ascontiguousarray(class_logits[0]),
        np.ascontiguousarray(box_offsets[0]),
        _anchor_boxes(spec),
        anchor_mask(spec, mask).view(np.uint8),
        coding=(spec.centre_variance, spec.size_variance, MAX_LOG_SIZE),
        letterbox=(letterboxed.left, letterboxed.top, letterboxed.scale),
        source=(letterboxed.source_width, letterboxed.source_height),
        logit_limits=(_logit(least), _logit(score_threshold)),
        score=score_threshold,
        nms_iou=spec.nms_iou,
        most=spec.max_detections,
        votes=voting,
        vote_iou=spec.vote_iou,
        vote_score=VOTING_SCORE,
        supporters=SUPPORTERS,
        own_weight=OWN_WEIGHT,
    )
    return Detections(boxes_xyxy=boxes, scores=scores, class_ids=class_ids)


def candidates(spec: DetectorSpec, raw: Tensors, mask: Mask) -> Candidates:
    """Every active anchor, whatever its scores; ``raw`` is what the graph ``detector`` gave under ``mask``."""
    active = np.flatnonzero(anchor_mask(spec, mask))
    boxes = decode(spec, _anchor_boxes(spec)[active], raw["box_offsets"][0][active])
    return Candidates(scores=sigmoid(raw["class_logits"][0][active]), boxes=boxes[:, None], places=active)


def compared(spec: DetectorSpec, raw: Tensors, mask: Mask) -> Tensors:
    """The raw outputs at active anchors, a row an anchor."""
    active = anchor_mask(spec, mask)
    return {name: raw[name][0][active] for name in ("class_logits", "box_offsets")}


@functools.lru_cache(maxsize=4)
def _anchor_boxes(spec: DetectorSpec) -> NDArray[np.float32]:
    return anchor_boxes(spec)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + e^-x); clipped where float32 saturates anyway, so that e^-x never overflows."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)


def _logit(score: float) -> float:
    """The logit of a score, a little lower, so that rounding in the sigmoid loses none that reaches the score."""
    if score <= 0:
        return -math.inf
    score = min(score, 1 - 1e-7)  # from here on the sigmoid rounds to 1
    return math.log(score / (1 - score)) - 1e-5
