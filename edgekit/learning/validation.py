"""Score a model while it trains, through the pipeline that the runtime uses, and find its mask threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.backends.torch import load_pair
from edgekit.data.datasets import DetectionDataset
from edgekit.data.letterbox import letterbox, normalise
from edgekit.masks.sources import MaskInput, MaskSource, parse_mask_source
from edgekit.masks.statistics import active_area_share, active_share
from edgekit.metrics.detection import DetectionMetrics, evaluate_detections
from edgekit.models.masked_detector import MaskedDetector
from edgekit.pipeline import Pipeline
from edgekit.spec import DetectorSpec

EVALUATION_SCORE = 0.01
"""Detections below it do not move average precision."""

MIN_AREA_SHARE = 0.7
"""A box is kept by a mask that leaves this share of its area active."""

THRESHOLDS = (*(round(0.005 * k, 3) for k in range(1, 20)), *(round(0.01 * k, 2) for k in range(10, 91)))
"""Finer where photographs end up: at .05 a step of .01 is a point of active area."""


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """A mask threshold and what it gives on the validation pictures."""

    threshold: float
    recall: float
    """Share of boxes that keep ``MIN_AREA_SHARE`` of their area."""

    active_share: float


def evaluate_model(model: MaskedDetector, dataset: DetectionDataset, *, mask: str, threads: int) -> DetectionMetrics:
    """Average precision of ``model`` on ``dataset`` under the mask source ``mask``."""
    source: MaskSource = parse_mask_source(mask, model.spec)
    omg, detector = load_pair(model, threads=threads)
    pipeline = Pipeline(model.spec, omg, detector, source)
    detections = {}
    for sample in dataset.samples:
        result = pipeline.process(
            sample.read(), truth_xyxy=sample.boxes_xyxy[~sample.ignore], score_threshold=EVALUATION_SCORE
        )
        detections[sample.image_id] = result.detections
    return evaluate_detections(dataset, detections)


def choose_mask_threshold(
    model: MaskedDetector,
    dataset: DetectionDataset,
    *,
    recall: float,
    threads: int,
    thresholds: Sequence[float] = THRESHOLDS,
) -> ThresholdChoice:
    """The highest of the rising ``thresholds`` at which ``recall`` of the boxes stay visible, or the first of them."""
    omg, _ = load_pair(model, threads=threads)
    spec = model.spec
    kept = np.zeros(len(thresholds))
    shares = np.zeros(len(thresholds))
    boxes_seen = 0
    for sample in dataset.samples:
        boxed = letterbox(sample.read(), height=spec.height, width=spec.width)
        image = normalise(boxed.image, spec).transpose(2, 0, 1)
        logits = omg.run({"image": np.ascontiguousarray(image[None])})["objectness"][0, 0]
        probability = 1 / (1 + np.exp(-logits))
        boxes = boxed.to_input(sample.boxes_xyxy[~sample.ignore])
        boxes_seen += len(boxes)
        for index, threshold in enumerate(thresholds):
            trial: DetectorSpec = replace(spec, mask_threshold=threshold)
            mask = parse_mask_source("omg", trial)(
                MaskInput(letterboxed=boxed, spec=trial, objectness=lambda p=probability: p)  # type: ignore[misc]
            )
            shares[index] += active_share(mask)
            kept[index] += (active_area_share(boxes, mask, spec.height, spec.width) >= MIN_AREA_SHARE).sum()
    recalls = kept / max(1, boxes_seen)
    enough = np.flatnonzero(recalls >= recall)
    index = int(enough[-1]) if len(enough) else 0
    return ThresholdChoice(
        threshold=thresholds[index], recall=float(recalls[index]), active_share=float(shares[index] / len(dataset))
    )
