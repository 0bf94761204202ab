"""What a DETR puts out, read: queries that answer for one object each, so nothing has to be suppressed (2005.12872).

``raw`` holds ``class_logits`` [1, Q, C] and ``boxes`` [1, Q, 4] of the decoder's last layer; boxes are centre x, centre
y, width and height, 0..1 of the input.

Q queries, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Tensors
from edgekit.data.letterbox import Letterboxed
from edgekit.decoding.candidates import Candidates
from edgekit.decoding.one_stage import sigmoid
from edgekit.detections import Detections
from edgekit.spec import DetectorSpec


def postprocess(spec: DetectorSpec, raw: Tensors, letterboxed: Letterboxed, score_threshold: float) -> Detections:
    """Queries as each class -> boxes in source pixels -> the best of those that score enough.

    A query can become objects of several classes, as in the published program (``PostProcess`` of
    https://github.com/kakaobrain/sparse-detr). What is not a number is none, and neither is a query whose
    box is not finite. A detection does not depend on ``score_threshold``, which only says whether it is reported.

    Args:
        spec: the size of the input, and how many objects there are at most (100 as published).
        raw: as above.
        letterboxed: the way back to the source picture; boxes are clipped to it, and dropped when nothing is left.
        score_threshold: 0..1, inclusive.
    """
    finite = np.isfinite(raw["boxes"][0]).all(axis=1)
    boxes = letterboxed.to_source(_input_boxes(spec, np.where(finite[:, None], raw["boxes"][0], 0)))
    seen = finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    scores = np.where(seen[:, None], sigmoid(raw["class_logits"][0]), np.nan)
    queries, class_ids = np.nonzero(scores >= score_threshold)  # which a NaN never is
    found = scores[queries, class_ids]
    best = np.argsort(-found, kind="stable")[: spec.max_detections]
    return Detections(
        boxes_xyxy=boxes[queries[best]],
        scores=found[best].astype(np.float32),
        class_ids=class_ids[best].astype(np.int64),
    )


def candidates(spec: DetectorSpec, raw: Tensors) -> Candidates:
    """Every query as every class."""
    boxes = _input_boxes(spec, raw["boxes"][0])
    return Candidates(
        scores=sigmoid(raw["class_logits"][0]), boxes=boxes[:, None], places=np.arange(len(boxes), dtype=np.int64)
    )


def compared(spec: DetectorSpec, expected: Tensors, got: Tensors) -> tuple[Tensors, Tensors]:
    """The raw outputs of two engines, a row a query, of the queries that may be reported.

    Those are the best tenth of ``expected``, and all that score half of the threshold.
    """
    best = sigmoid(expected["class_logits"][0]).max(axis=1)
    seen = (best >= spec.score_threshold / 2) | (best >= np.sort(best)[-max(1, len(best) // 10)])
    first, second = ({name: raw[name][0][seen] for name in ("class_logits", "boxes")} for raw in (expected, got))
    return first, second


def aligned(expected: Tensors, got: Tensors) -> Tensors:
    """``got`` with its queries in the order of those of ``expected`` that they are nearest to.

    Queries have no order of their own: they come from tokens in the order of scores, which engines compute alike but
    for the last bits. The nearest two belong together first; a query that only one engine has keeps what is left.
    """
    boxes, scores = ([raw[name][0] for raw in (expected, got)] for name in ("boxes", "class_logits"))
    distance = np.abs(boxes[0][:, None] - boxes[1][None]).sum(axis=2)
    distance += np.abs(sigmoid(scores[0])[:, None] - sigmoid(scores[1])[None]).max(axis=2)
    order = np.full(len(distance), -1)
    for flat in np.argsort(distance, axis=None, kind="stable"):
        row, column = divmod(int(flat), distance.shape[1])
        if order[row] < 0 and column not in order:
            order[row] = column
            if (order >= 0).all():
                break
    return {**got, **{name: got[name][:, order] for name in ("boxes", "class_logits")}}


def _input_boxes(spec: DetectorSpec, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """[Q, 4] shares of the input -> xyxy in its pixels; shares are sigmoids, whatever an engine made of them."""
    pixels = np.clip(boxes, 0, 1) * np.array([spec.width, spec.height] * 2, np.float32)
    centre, half = pixels[:, :2], pixels[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
