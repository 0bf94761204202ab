"""Mean intersection over union of class maps (PASCAL VOC's measure: IJCV 111(1), 2015, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.segmentation import IGNORED, SegmentationDataset


@dataclass(frozen=True, kw_only=True)
class SegmentationMetrics:
    """What was counted over a whole data set."""

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    """[C, C] pixels by (true class, found class)."""

    def iou(self) -> dict[str, float]:
        """By class, 0..1; NaN for a class that is neither in the data nor found there."""
        hits = np.diag(self.confusion).astype(float)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - hits
        with np.errstate(invalid="ignore"):
            values = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        return dict(zip(self.classes, values.tolist(), strict=True))

    @property
    def miou(self) -> float:
        """Mean over the classes that are in the data or were found there."""
        return float(np.nanmean(list(self.iou().values())))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the scored pixels that are right."""
        return float(np.diag(self.confusion).sum() / max(1, self.confusion.sum()))

    def to_json(self) -> dict[str, Any]:
        """The scores; a class that was nowhere is ``null``."""
        ious = {name: None if np.isnan(value) else value for name, value in self.iou().items()}
        return {"miou": self.miou, "pixel_accuracy": self.pixel_accuracy, "iou_per_class": ious}


def count(true: NDArray[np.uint8], found: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The confusion [C, C] of one picture: maps [h, w] of class numbers, ``true`` with :data:`IGNORED`."""
    scored = true != IGNORED
    pairs = true[scored].astype(np.int64) * classes + found[scored]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def evaluate_segmentation(
    dataset: SegmentationDataset,
    segment: Callable[[NDArray[np.uint8]], NDArray[np.int64]],
    *,
    seen: Callable[[], None] = lambda: None,
) -> SegmentationMetrics:
    """Score ``segment``, which turns RGB [h, w, 3] into class numbers [h, w], on every picture.

    ``seen`` is called after each.
    """
    classes = len(dataset.classes)
    confusion = np.zeros((classes, classes), np.int64)
    for picture in dataset.pictures:
        image, labels = picture.read()
        confusion += count(labels, segment(image), classes)
        seen()
    return SegmentationMetrics(classes=dataset.classes, confusion=confusion)


def evaluate_whole_pictures(
    dataset: SegmentationDataset,
    choose: Callable[[NDArray[np.uint8]], int],
    *,
    seen: Callable[[], None] = lambda: None,
) -> SegmentationMetrics:
    """The baseline without masks: each picture is wholly of the one class that ``choose`` names for it."""
    return evaluate_segmentation(dataset, lambda image: np.full(image.shape[:2], choose(image), np.int64), seen=seen)
