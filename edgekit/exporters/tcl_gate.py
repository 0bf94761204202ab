"""The gate behind every conversion of a segmenter: label maps beside PyTorch's, and mIoU on pictures with masks.

Two halves, as for detectors (``edgekit.exporters.gate``). *Parity* compares labels and embeddings on pictures, through
the whole pipeline; it needs no masks. *Accuracy* measures mIoU of both on a data set's own classes.

N prompts, D embedding, h x w a map's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.segmentation import IGNORED, SegmentationDataset
from edgekit.metrics.segmentation import SegmentationMetrics, count, evaluate_segmentation
from edgekit.segmentation.fitting import Fitted, fit, input_tensor, way_back
from edgekit.segmentation.of_dataset import looking_for, segment_with
from edgekit.segmentation.pipeline import SegmentationPipeline, label
from edgekit.segmentation.prompts import BACKGROUND, Prompts
from edgekit.segmentation.scores import masks
from edgekit.segmentation.spec import SegmenterSpec

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, pictures done, pictures in all)."""


@dataclass(frozen=True, kw_only=True)
class SegmentationLimits:
    """How far from PyTorch a conversion of one precision may be."""

    cosine: float
    """Smallest mean cosine of a picture's embeddings, cell by cell."""

    iou: float
    """Smallest mean IoU of the label maps, PyTorch's taken for the truth."""

    margin: float = 0.0
    """Pixels whose best two scores (0..1) are nearer than this in PyTorch, which rounding may turn over, are not
    compared; 0 compares all."""


LIMITS = {
    # Engines add in another order than PyTorch: 1e-6 in an embedding (measured), which turns a handful of labels over.
    "fp32": SegmentationLimits(cosine=0.9999, iou=0.99),
    # 11 bits of mantissa move scores by up to .02 (measured) and with them outlines, which is most of a small thing:
    # .989 of labels that differed at one pixel in a thousand.
    "fp16": SegmentationLimits(cosine=0.999, iou=0.99, margin=0.03),
    # A collapsed layer falls below these; what 8 bits cost on average is the business of the accuracy half.
    "int8": SegmentationLimits(cosine=0.95, iou=0.75),
}
"""By precision."""


@dataclass(frozen=True, kw_only=True)
class SegmentationParity:
    """The distance of a candidate from its reference."""

    images: int
    cosine: float
    """Mean cosine of the embeddings of a picture's cells, of the picture where it is smallest."""

    iou: float
    """Mean IoU of the label maps over the labels that either gives, counted over all pictures; 1 where PyTorch's scores
    are nowhere far enough apart to compare, and the embeddings alone tell."""

    pixels_differing: float
    """Share 0..1 of the pixels that have another label."""

    score_error: float
    """Largest difference of a cell's score for any prompt, 0..1."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SegmentationAccuracy:
    """mIoU before and after a conversion."""

    data: str
    """Name of the data set and split."""

    images: int
    miou_before: float
    """Of the PyTorch model, 0..1."""

    miou_after: float
    """Of the converted model, 0..1."""

    max_drop: float
    """Largest allowed drop, in points (hundredths of mIoU)."""

    @property
    def drop(self) -> float:
        """Points lost; negative where the converted model is better."""
        return 100 * (self.miou_before - self.miou_after)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return {**asdict(self), "drop": self.drop}


@dataclass(frozen=True, kw_only=True)
class SegmentationReport:
    """What the gate measured, and what it holds against the model."""

    precision: str
    engine: str
    """The engine that ran the converted model, with its version."""

    parity: SegmentationParity
    limits: SegmentationLimits
    accuracy: SegmentationAccuracy | None
    """``None`` where no masks were given: then nobody knows what the conversion cost."""

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each broken limit; none if the model passed."""
        found = []
        parity, limits, accuracy = self.parity, self.limits, self.accuracy
        if not parity.cosine >= limits.cosine:
            found.append(
                f"embeddings: expected a cosine of at least {limits.cosine:g} with PyTorch's, got {parity.cosine:.4f}"
            )
        if not parity.iou >= limits.iou:
            found.append(
                f"labels: expected a mean IoU of at least {limits.iou:g} with PyTorch's, got {parity.iou:.4f}"
                f" ({100 * parity.pixels_differing:.2f} % of the pixels differ)"
            )
        if accuracy is not None and not accuracy.drop <= accuracy.max_drop:
            found.append(
                f"mIoU on {accuracy.data} ({accuracy.images} pictures): expected at least"
                f" {accuracy.miou_before - accuracy.max_drop / 100:.4f} ({accuracy.miou_before:.4f} before, at most"
                f" {accuracy.max_drop:g} points less), got {accuracy.miou_after:.4f}, {accuracy.drop:.1f} points less"
            )
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.failures

    def lines(self) -> list[str]:
        """What was measured, for people."""
        parity, accuracy = self.parity, self.accuracy
        first = (
            f"parity    {parity.images} pictures: mean IoU of labels {parity.iou:.4f},"
            f" {100 * parity.pixels_differing:.2f} % of the pixels differ; embeddings' cosine {parity.cosine:.5f},"
            f" worst score {parity.score_error:.4f} ({self.engine})"
        )
        if accuracy is None:
            return [first, "accuracy  not measured"]
        return [
            first,
            f"accuracy  mIoU {accuracy.miou_before:.4f} -> {accuracy.miou_after:.4f} on {accuracy.images} pictures of"
            f" {accuracy.data}",
        ]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write; ``accuracy`` is null where it was not measured."""
        return {
            "precision": self.precision,
            "engine": self.engine,
            "passed": self.passed,
            "failures": list(self.failures),
            "parity": {**self.parity.to_json(), "limits": asdict(self.limits)},
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
        }


def run_segmentation_gate(
    reference: SegmentationPipeline,
    candidate: SegmentationPipeline,
    *,
    precision: str,
    pictures: Iterable[NDArray[np.uint8]],
    dataset: SegmentationDataset | None,
    dataset_prompts: Prompts | None,
    max_drop: float,
    progress: Progress | None = None,
) -> SegmentationReport:
    """Compare ``candidate`` with ``reference``; the verdict is in the report.

    Args:
        reference: the PyTorch model's pipeline.
        candidate: the converted model's, with the same specification and prompts.
        precision: which of :data:`LIMITS` apply.
        pictures: RGB [h, w, 3], one or more.
        dataset: pictures with masks, or ``None`` to leave accuracy unmeasured.
        dataset_prompts: its classes, the background aside.
        max_drop: allowed drop of mIoU in points.
        progress: called now and then.
    """
    parity = measure_segmentation_parity(reference, candidate, pictures, margin=LIMITS[precision].margin)
    accuracy = None
    if dataset is not None:
        assert dataset_prompts is not None
        before, after = (
            measure_miou(pipeline, dataset, dataset_prompts, f"mIoU {what}", progress).miou
            for pipeline, what in ((reference, "before"), (candidate, "after"))
        )
        accuracy = SegmentationAccuracy(
            data=dataset.name, images=len(dataset), miou_before=before, miou_after=after, max_drop=max_drop
        )
    return SegmentationReport(
        precision=precision,
        engine=candidate.engine_name,
        parity=parity,
        limits=LIMITS[precision],
        accuracy=accuracy,
    )


def measure_segmentation_parity(
    reference: SegmentationPipeline,
    candidate: SegmentationPipeline,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    margin: float = 0.0,
) -> SegmentationParity:
    """Run both on ``pictures`` (RGB [h, w, 3]) and compare; ``margin`` is that of :class:`SegmentationLimits`.

    Raises:
        ValueError: no picture was given.
        EngineError: a graph fails or gives NaN.
    """
    spec, labels = reference.spec, len(reference.names) + 1
    confusion = np.zeros((labels, labels), np.int64)
    cosines, worst = [], 0.0
    for picture in pictures:
        fitted = fit(picture, spec)
        image = input_tensor(fitted, spec)
        outputs = [pipeline.run(image) for pipeline in (reference, candidate)]
        cosines.append(min(_cosine(outputs[0][name], outputs[1][name]) for name in spec.outputs))
        found = [masks(spec, output, reference.prompts.embeddings, image) for output in outputs]
        worst = max(worst, float(np.abs(found[0] - found[1]).max()))
        height, width = picture.shape[:2]
        first, second = (label(maps, fitted, spec, height=height, width=width)[0] for maps in found)
        sure = leads(found[0], fitted, spec, height=height, width=width) >= margin
        confusion += count(np.where(sure, first, np.uint8(IGNORED)), second.astype(np.int64), labels)
    if not cosines:
        raise ValueError("parity needs at least one picture, got none")
    metrics = SegmentationMetrics(classes=(BACKGROUND, *reference.names), confusion=confusion)
    compared = bool(confusion.any())
    return SegmentationParity(
        images=len(cosines),
        cosine=min(cosines),
        iou=metrics.miou if compared else 1.0,
        pixels_differing=1 - metrics.pixel_accuracy if compared else 0.0,
        score_error=worst,
    )


def leads(
    found: NDArray[np.float32], fitted: Fitted, spec: SegmenterSpec, *, height: int, width: int
) -> NDArray[np.float32]:
    """[height, width] how much the best score of each pixel, the background's among them, leads the second best."""
    down, across = way_back(fitted, spec, height=height, width=width)
    best = np.full((height, width), spec.background, np.float32)
    second = np.full_like(best, -np.inf)
    for mask in found @ across:
        plane = down @ mask
        np.maximum(second, np.minimum(best, plane), out=second)
        np.maximum(best, plane, out=best)
    return best - second


def measure_miou(
    pipeline: SegmentationPipeline,
    dataset: SegmentationDataset,
    prompts: Prompts,
    what: str = "mIoU",
    progress: Progress | None = None,
) -> SegmentationMetrics:
    """The scores of ``pipeline`` on ``dataset``, whose classes but for the background are ``prompts``."""
    asked = looking_for(pipeline, dataset.classes, prompts)
    done = 0

    def seen() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, len(dataset))

    return evaluate_segmentation(dataset, segment_with(asked, dataset.classes), seen=seen)


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean over the cells of two maps [1, D, h, w]."""
    a, b = (maps[0].reshape(maps.shape[1], -1).astype(np.float64) for maps in (first, second))
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(((a * b).sum(axis=0) / np.maximum(lengths, 1e-12)).mean())
