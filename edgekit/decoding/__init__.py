"""From what a detector's graphs put out to detections: one file for each kind of detector, chosen by the spec.

``raw`` is what :meth:`edgekit.pipeline.Pipeline.detect` gave under ``mask`` [G, G].
"""

from __future__ import annotations

from edgekit.backends import Tensors
from edgekit.data.letterbox import Letterboxed
from edgekit.decoding import detr, one_stage, two_stage
from edgekit.decoding.candidates import Candidates
from edgekit.detections import Detections
from edgekit.masks.pyramid import Mask
from edgekit.spec import DetectorSpec

__all__ = ["Candidates", "candidates", "compared", "detections"]


def detections(
    spec: DetectorSpec, raw: Tensors, mask: Mask, letterboxed: Letterboxed, score_threshold: float
) -> Detections:
    """The objects of a frame that score ``score_threshold`` (0..1) or more, in pixels of its source."""
    match spec.kind:
        case "one_stage":
            logits, offsets = raw["class_logits"], raw["box_offsets"]
            return one_stage.postprocess(spec, logits, offsets, mask, letterboxed, score_threshold)
        case "two_stage":
            return two_stage.postprocess(spec, raw, letterboxed, score_threshold)
        case "detr":
            return detr.postprocess(spec, raw, letterboxed, score_threshold)


def candidates(spec: DetectorSpec, raw: Tensors, mask: Mask) -> Candidates:
    """What was there before suppression."""
    match spec.kind:
        case "one_stage":
            return one_stage.candidates(spec, raw, mask)
        case "two_stage":
            return two_stage.candidates(spec, raw)
        case "detr":
            return detr.candidates(spec, raw)


def aligned(spec: DetectorSpec, expected: Tensors, got: Tensors) -> Tensors:
    """``got`` in the order of ``expected``, where the order of candidates is an accident."""
    return detr.aligned(expected, got) if spec.kind == "detr" else got


def compared(spec: DetectorSpec, expected: Tensors, got: Tensors, mask: Mask) -> tuple[Tensors, Tensors]:
    """Those raw outputs by which two engines can be compared, without the rows that nothing can come of."""
    match spec.kind:
        case "one_stage":
            return one_stage.compared(spec, expected, mask), one_stage.compared(spec, got, mask)
        case "two_stage":
            return two_stage.compared(expected, mask), two_stage.compared(got, mask)
        case "detr":
            return detr.compared(spec, expected, got)
