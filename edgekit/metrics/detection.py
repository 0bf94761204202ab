"""Average precision of detections, counted by pycocotools.

``ap50`` is the mean over classes of the average precision at an overlap (IoU) of at least .5, ``map`` the mean of the
same at .50, .55 ... .95; both over boxes of all sizes, with the 100 best detections an image and class, and precision
read at 101 levels of recall, as COCO does. VOC2007's own tool reads it at 11 levels, so its figure differs by up to a
few points. Classes without a single box to find are left out of the mean.

Boxes to ignore follow the VOC development kit, section 3.4: a detection that overlaps one by the threshold is neither
right nor wrong, however many do, and a detection prefers a box that counts. pycocotools cannot say this by itself: it
overwrites ``ignore`` by ``iscrowd``, and a crowd is matched by the share of the *detection* inside it, so that any
small false detection within a difficult box would be forgiven. :class:`_Evaluation` therefore splits the two meanings:
many matches for every ignored box, matching by area only for real crowds (COCO ``iscrowd``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.datasets import DetectionDataset, Sample
from edgekit.detections import Detections
from edgekit.errors import DataError, MissingDependencyError

MAX_DETECTIONS = 100
"""Detections counted an image and class, best first (COCO's limit)."""

RECALL_LEVELS: NDArray[np.float64] = np.linspace(0, 1, 101)
"""Where precision is read."""

SCORE_THRESHOLDS: NDArray[np.float64] = np.round(np.arange(0.05, 0.91, 0.01), 2)
"""Candidates for the threshold of ``run``."""


@dataclass(frozen=True, kw_only=True)
class DetectionMetrics:
    """Accuracy over one data set; every value is in 0..1."""

    ap50: float
    """Mean over classes of the average precision at IoU .5."""

    map: float
    """Mean over classes and IoU .50, .55 ... .95: COCO's mAP."""

    ap50_per_class: Mapping[str, float]
    """Only the classes that have a box to find."""

    precision_at_recall: Mapping[str, NDArray[np.float64]]
    """Class -> [101] best precision at IoU .5 with at least each recall of ``RECALL_LEVELS``; 0 where not reached."""

    score_at_recall: Mapping[str, NDArray[np.float64]]
    """Class -> [101] lowest score among the detections that reach each recall; 0 where it is not reached."""

    images: int
    objects: int
    """Boxes to find."""

    ignored: int
    """Boxes neither to find nor to miss."""

    def mean_precision(self) -> NDArray[np.float64]:
        """[101] the mean of the classes' curves; its own mean is ``ap50``."""
        return np.asarray(np.mean(list(self.precision_at_recall.values()), axis=0), np.float64)

    def best_score_threshold(self) -> float:
        """The score threshold, in steps of .01, with the highest F1 at IoU .5 (its mean over the classes);
        the highest of several equal ones.

        Recall and precision are read at the 101 levels of the curves, so this is exact to about a point of recall.
        """
        f1 = np.zeros(len(SCORE_THRESHOLDS))
        for name, precision in self.precision_at_recall.items():
            reached = self.score_at_recall[name] >= SCORE_THRESHOLDS[:, None]  # [threshold, recall level]
            last = reached.sum(axis=1) - 1
            precision_there, recall_there = precision[last], RECALL_LEVELS[last]
            both = np.maximum(precision_there + recall_there, 1e-9)
            f1 += np.where(last < 0, 0, 2 * precision_there * recall_there / both)
        return float(SCORE_THRESHOLDS[np.flatnonzero(f1 == f1.max())[-1]])


def require_pycocotools() -> None:
    """Raise :class:`MissingDependencyError` now rather than after an hour of detections."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("pycocotools", "train", "measure average precision") from error


def evaluate_detections(dataset: DetectionDataset, detections: Mapping[int, Detections]) -> DetectionMetrics:
    """Score ``detections`` (image id -> detections in source pixels) against the boxes of ``dataset``.

    ``class_ids`` index ``dataset.classes`` on both sides. Detections of classes that the data set never shows count for
    nothing.

    Raises:
        DataError: the data set has no image or no box to find.
        MissingDependencyError: pycocotools is not installed.
        ValueError: an image has no entry in ``detections``, or an entry has no image.
    """
    samples = {sample.image_id: sample for sample in dataset.samples}
    if samples.keys() != detections.keys():
        raise ValueError(
            f"detections of {len(detections)} images for {len(samples)} images of {dataset.name};"
            f" without a partner: {sorted(samples.keys() ^ detections.keys())[:5]}"
        )
    counted = [class_id for sample in dataset.samples for class_id in sample.class_ids[~sample.ignore]]
    if not counted:
        raise DataError(
            f"{dataset.name} has no box to find in its {len(samples)} images (ignored ones do not count),"
            " so there is no accuracy to measure"
        )
    class_ids = sorted({int(class_id) for class_id in counted})
    precision, scores = _curves(dataset, detections, class_ids)  # [IoU, recall, class]
    names = [dataset.classes[class_id] for class_id in class_ids]
    return DetectionMetrics(
        ap50=float(precision[0].mean()),
        map=float(precision.mean()),
        ap50_per_class={name: float(precision[0, :, k].mean()) for k, name in enumerate(names)},
        precision_at_recall={name: precision[0, :, k] for k, name in enumerate(names)},
        score_at_recall={name: scores[0, :, k] for k, name in enumerate(names)},
        images=len(samples),
        objects=len(counted),
        ignored=sum(int(sample.ignore.sum()) for sample in dataset.samples),
    )


def _curves(
    dataset: DetectionDataset, detections: Mapping[int, Detections], class_ids: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and score, each [10 IoU thresholds, 101 recall levels, classes], from pycocotools."""
    evaluation = _new_evaluation()
    evaluation.params.imgIds = sorted(detections)
    evaluation.params.catIds = class_ids
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [MAX_DETECTIONS]
    wanted = set(class_ids)
    for sample in dataset.samples:
        for box in _truth_entries(sample):
            evaluation.truth.setdefault((sample.image_id, box["category_id"]), []).append(box)
        for box in _detection_entries(detections[sample.image_id]):
            if box["category_id"] in wanted:
                evaluation.found.setdefault((sample.image_id, box["category_id"]), []).append(box)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, 0], evaluation.eval["scores"][:, :, :, 0, 0]


def _truth_entries(sample: Sample) -> list[dict[str, Any]]:
    crowd = np.zeros(len(sample.ignore), np.bool_) if sample.crowd is None else sample.crowd
    return [
        {**_box(sample.boxes_xyxy[k], k), "category_id": int(sample.class_ids[k]), "ignore": int(sample.ignore[k]),
         "iscrowd": int(sample.ignore[k]), "by_area": int(crowd[k])}
        for k in range(len(sample.boxes_xyxy))
    ]  # fmt: skip


def _detection_entries(found: Detections) -> list[dict[str, Any]]:
    return [
        {**_box(found.boxes_xyxy[k], k), "category_id": int(found.class_ids[k]), "score": float(found.scores[k])}
        for k in range(len(found))
    ]


def _box(xyxy: NDArray[np.float32], index: int) -> dict[str, Any]:
    """Position and an id; ids start at 1, because pycocotools takes a match with id 0 for no match."""
    left, top, right, bottom = map(float, xyxy)
    width, height = right - left, bottom - top
    return {"id": index + 1, "bbox": [left, top, width, height], "area": width * height}


def _new_evaluation() -> Any:
    """A COCOeval that takes its boxes from two dictionaries and tells ignored boxes from crowds."""
    require_pycocotools()
    from pycocotools import mask
    from pycocotools.cocoeval import COCOeval

    class _Evaluation(COCOeval):  # type: ignore[misc]  # it has no types
        """``iscrowd`` of a truth entry means "may be matched many times" here, ``by_area`` means a real crowd."""

        def __init__(self) -> None:
            super().__init__(iouType="bbox")
            self.truth: dict[tuple[int, int], list[dict[str, Any]]] = {}
            self.found: dict[tuple[int, int], list[dict[str, Any]]] = {}

        def _prepare(self) -> None:
            """Replaces the step that overwrites ``ignore`` by ``iscrowd``."""
            nothing: list[dict[str, Any]] = []
            keys = [(image, name) for image in self.params.imgIds for name in self.params.catIds]
            self._gts = {key: self.truth.get(key, nothing) for key in keys}
            self._dts = {key: self.found.get(key, nothing) for key in keys}

        def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803  # their name
            """[found, truth] overlaps, found by falling score, as the base class does but for ``by_area``."""
            truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
            if not truth and not found:
                return []
            order = np.argsort([-box["score"] for box in found], kind="mergesort")[: self.params.maxDets[-1]]
            return mask.iou(
                [found[k]["bbox"] for k in order],
                [box["bbox"] for box in truth],
                [box["by_area"] for box in truth],
            )

    return _Evaluation()
