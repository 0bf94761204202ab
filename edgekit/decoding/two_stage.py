"""What a two-stage detector puts out, read: regions that were proposed and then classified (arXiv 1506.01497).

R regions of interest (RoIs), C classes without the background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Tensors
from edgekit.data.letterbox import Letterboxed
from edgekit.decoding.candidates import Candidates
from edgekit.detections import Detections
from edgekit.masks.pyramid import Mask
from edgekit.models.pvanet_rois import clip, decode, to_exclusive
from edgekit.spec import DetectorSpec
from edgekit.two_stage import find_objects


def candidates(spec: DetectorSpec, raw: Tensors) -> Candidates:
    """Every RoI as every class."""
    rois, deltas = raw["rois"], raw["roi_deltas"][0]
    boxes = to_exclusive(clip(decode(rois, deltas), height=spec.height, width=spec.width).reshape(len(rois), -1, 4))
    return Candidates(
        scores=probabilities(raw["roi_logits"][0])[:, 1:], boxes=boxes[:, 1:], places=np.arange(len(rois))
    )


def compared(raw: Tensors, mask: Mask) -> Tensors:
    """The outputs for every RoI, and those of the proposal network at active cells, a row a RoI or cell."""
    active = mask.reshape(-1)
    return {
        **{name: raw[name][0] for name in ("roi_logits", "roi_deltas")},
        **{name: raw[name][0][active] for name in ("rpn_logits", "rpn_deltas")},
    }


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """[R, C + 1] logits -> as many probabilities in 0..1 that sum to 1; the background is the first."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def postprocess(spec: DetectorSpec, raw: Tensors, letterboxed: Letterboxed, score_threshold: float) -> Detections:
    """RoIs as each class -> boxes in source pixels -> class-wise NMS -> voting -> scores over the threshold.

    ``edgekit.two_stage.find_objects`` says how.
    """
    return find_objects(
        raw["rois"],
        raw["roi_logits"][0],
        raw["roi_deltas"][0],
        height=spec.height,
        width=spec.width,
        letterboxed=letterboxed,
        score_threshold=score_threshold,
        nms_iou=spec.nms_iou,
        vote_iou=spec.vote_iou,
        most=spec.max_detections,
    )
