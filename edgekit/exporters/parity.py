"""How far a converted model is from the PyTorch model it came from, measured on whole pictures.

Both models run the same pipeline: letterbox, mask, graphs, decoding, suppression. What comes out of it is compared
loosely: suppression picks one of two nearly equal boxes, and the smallest difference turns that choice over, so a
detection needs a partner and no more. What goes into suppression is compared tightly, anchor by anchor or region by
region: the candidates (one of them and a class over the score threshold) and the raw tensors, under the reference's
mask and in its regions for both, so that a cell that flips in one mask does not hide what the graphs themselves do.
Detections of a two-stage detector are those of the same regions, for the same reason as its candidates.

G mask grid, N candidates, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit import decoding
from edgekit.backends import Tensors
from edgekit.boxes import iou_matrix
from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.exporters.quantisation import saturated
from edgekit.masks.pyramid import Mask
from edgekit.pipeline import Pipeline
from edgekit.spec import DetectorSpec

MATCH_IOU = 0.5
"""Two detections of one class that overlap this much are taken for the same one."""


@dataclass(frozen=True, kw_only=True)
class TensorParity:
    """One raw output of the detector at what is active, over all pictures; logits as far as scores can tell them."""

    cosine: float
    """Smallest cosine of the angle between the two tensors of a picture; 1 is equal up to a factor."""

    max_abs: float
    """Largest difference of a value, in the tensor's own unit (logits, or offsets before the variances)."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The distance of a candidate from its reference."""

    images: int
    detections: int
    """Of the reference, over all pictures."""

    unpaired: int
    """Detections of either side, surely over the threshold, without a partner on the other."""

    candidates: int
    """Pairs of an anchor, or a region, and a class that either side scores over the threshold, over all pictures."""

    disagreeing: int
    """Candidates whose scores or boxes are further apart than the limits allow."""

    box_error_px: float
    """Largest difference of a box side of a candidate, in pixels of the letterboxed input."""

    score_error: float
    """Largest difference of a candidate's scores, 0..1."""

    mask_cells: int
    """Cells of all masks together."""

    mask_cells_differing: int
    tensors: dict[str, TensorParity]
    """Raw output -> its distance."""

    @property
    def mask_share_differing(self) -> float:
        """Share 0..1 of the mask cells that differ."""
        return self.mask_cells_differing / max(1, self.mask_cells)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return asdict(self)


def measure_parity(
    reference: Pipeline, candidate: Pipeline, images: Iterable[NDArray[np.uint8]], *, box_px: float, score: float
) -> Parity:
    """Run both pipelines on ``images`` (RGB [h, w, 3]) and compare.

    Args:
        reference: usually the PyTorch model.
        candidate: the converted model, with the same specification and kind of mask source.
        images: pictures.
        box_px: candidates whose box sides differ by more (input pixels) disagree.
        score: candidates whose scores differ by more disagree; a detection without a partner is forgiven if it is no
            further than this above the score threshold, where the partner may have fallen below.

    Raises:
        ValueError: no picture was given.
        EngineError: a graph fails or gives NaN.
    """
    totals = _Totals(box_px=box_px, score=score)
    for image in images:
        totals.add(reference, candidate, image)
    if totals.images == 0:
        raise ValueError("parity needs at least one picture, got none")
    return totals.result()


class _Totals:
    """Adds up pictures."""

    def __init__(self, *, box_px: float, score: float) -> None:
        self._box_px, self._score = box_px, score
        self.images = 0
        self._detections = self._unpaired = self._candidates = self._disagreeing = 0
        self._cells = self._cells_differing = 0
        self._box_error = self._score_error = 0.0
        self._cosines: dict[str, list[float]] = {}
        self._max_abs: dict[str, float] = {}

    def add(self, reference: Pipeline, candidate: Pipeline, image: NDArray[np.uint8]) -> None:
        expected, got = reference.process(image), candidate.process(image)
        self.images += 1
        self._cells += expected.mask.size
        self._cells_differing += int((expected.mask != got.mask).sum())
        boxed = letterbox(image, height=reference.spec.height, width=reference.spec.width)
        sure = reference.spec.score_threshold + self._score
        # With an empty mask there is nothing to compare; the whole picture then shows what the graph does.
        mask = expected.mask if expected.mask.any() else np.ones_like(expected.mask)
        wanted = reference.detect(reference.input_tensor(boxed), mask, scale=boxed.scale)
        # Regions that one side proposes and the other does not say nothing about the rest: both get the reference's.
        found = candidate.detect(candidate.input_tensor(boxed), mask, scale=boxed.scale, rois=wanted.get("rois"))
        found = decoding.aligned(reference.spec, wanted, found)
        if reference.spec.two_stage is None:
            self._add_detections(expected.detections, got.detections, sure=sure)
        else:
            # Proposals are suppressed, too, and each that is chosen otherwise drags its detections along.
            known = (
                decoding.detections(reference.spec, raw, mask, boxed, reference.spec.score_threshold)
                for raw in (wanted, found)
            )
            self._add_detections(*known, sure=sure)
        self._add_candidates(reference.spec, wanted, found, mask)
        self._add_tensors(reference.spec, wanted, found, mask)

    def _add_detections(self, expected: Detections, got: Detections, *, sure: float) -> None:
        partners = match_detections(expected, got)
        self._detections += len(expected)
        for side, found in enumerate((expected, got)):
            paired = {pair[side] for pair in partners}
            self._unpaired += sum(float(found.scores[k]) > sure for k in range(len(found)) if k not in paired)

    def _add_candidates(self, spec: DetectorSpec, expected: Tensors, got: Tensors, mask: Mask) -> None:
        first, second = (decoding.candidates(spec, raw, mask) for raw in (expected, got))
        candidates = np.maximum(first.scores, second.scores) >= spec.score_threshold  # [N, C]
        box = np.abs(first.boxes - second.boxes).max(axis=2)  # [N, C], or [N, 1] where classes share boxes
        score = np.abs(first.scores - second.scores)
        self._candidates += int(candidates.sum())
        self._disagreeing += int((candidates & ((box > self._box_px) | (score > self._score))).sum())
        self._box_error = max(self._box_error, float((box * candidates).max(initial=0)))
        self._score_error = max(self._score_error, float((score * candidates).max(initial=0)))

    def _add_tensors(self, spec: DetectorSpec, expected: Tensors, got: Tensors, mask: Mask) -> None:
        first, second = decoding.compared(spec, expected, got, mask)
        for name, wanted in first.items():
            a, b = (saturated(name, side).astype(np.float64).ravel() for side in (wanted, second[name]))
            self._cosines.setdefault(name, []).append(_cosine(a, b))
            self._max_abs[name] = max(self._max_abs.get(name, 0.0), float(np.abs(a - b).max(initial=0)))

    def result(self) -> Parity:
        return Parity(
            images=self.images,
            detections=self._detections,
            unpaired=self._unpaired,
            candidates=self._candidates,
            disagreeing=self._disagreeing,
            box_error_px=self._box_error,
            score_error=self._score_error,
            mask_cells=self._cells,
            mask_cells_differing=self._cells_differing,
            tensors={
                name: TensorParity(cosine=min(cosines), max_abs=self._max_abs[name])
                for name, cosines in self._cosines.items()
            },
        )


def match_detections(first: Detections, second: Detections) -> list[tuple[int, int]]:
    """Pairs (index in ``first``, index in ``second``) of one class and an overlap of :data:`MATCH_IOU`, best first.

    Each detection has one partner at most; the most overlapping pairs are made first.
    """
    overlap = iou_matrix(first.boxes_xyxy, second.boxes_xyxy)
    overlap = np.where(first.class_ids[:, None] == second.class_ids[None, :], overlap, 0)
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(second))
        if overlap[row, column] < MATCH_IOU:
            break
        if all(row != taken[0] and column != taken[1] for taken in pairs):
            pairs.append((row, column))
    return pairs


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else float(not (a.any() or b.any()))
