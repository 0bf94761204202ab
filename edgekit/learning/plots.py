"""Pictures of a training run: loss curves, precision-recall curves, masks laid over photographs (matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.torch import load_pair
from edgekit.data.datasets import DetectionDataset
from edgekit.data.letterbox import Letterboxed, letterbox
from edgekit.detections import Detections
from edgekit.errors import MissingDependencyError, StorageError
from edgekit.masks.pyramid import mask_at
from edgekit.masks.sources import parse_mask_source
from edgekit.metrics.detection import RECALL_LEVELS, DetectionMetrics
from edgekit.models.masked_detector import MaskedDetector
from edgekit.pipeline import Pipeline

PICTURES = 12
"""Photographs on the sheet of masks."""

BACKGROUND_LIGHT = 0.3
"""Inactive cells keep this share of their brightness."""


def draw_losses(rows: list[dict[str, Any]], names: tuple[str, ...], path: Path) -> None:
    """The losses called ``names`` that the run had, and the scores where they were measured, against the epoch."""
    figure = new_figure(width=10, height=4)
    losses, scores = figure.subplots(1, 2)
    epochs = [int(row["epoch"]) for row in rows]
    for name in names:
        values = [float(row[name]) for row in rows]
        if any(values):
            losses.plot(epochs, values, label=name)
    losses.set(xlabel="epoch", ylabel="training loss")
    losses.legend()
    for name in ("ap50", "ap50_mask_off", "mask_recall", "active_share"):
        measured = [row for row in rows if row.get(name) not in (None, "")]
        scores.plot(
            [int(row["epoch"]) for row in measured], [float(row[name]) for row in measured], marker="o", label=name
        )
    scores.set(xlabel="epoch", ylim=(0, 1), title="validation")
    scores.legend()
    save_figure(figure, path)


def draw_precision_recall(metrics: DetectionMetrics, path: Path) -> None:
    """Precision against recall at IoU .5: every class thin, their mean thick."""
    figure = new_figure(width=7, height=6)
    axes = figure.subplots()
    for name, precision in metrics.precision_at_recall.items():
        axes.plot(RECALL_LEVELS, precision, linewidth=0.8, alpha=0.6, label=f"{name} {precision.mean():.2f}")
    axes.plot(RECALL_LEVELS, metrics.mean_precision(), color="black", linewidth=2.5, label=f"mean {metrics.ap50:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1), title="IoU 0.5")
    axes.legend(fontsize=6, ncols=2)
    save_figure(figure, path)


def draw_masks(model: MaskedDetector, dataset: DetectionDataset, path: Path, *, threads: int) -> None:
    """A sheet of validation pictures as the detector sees them, inactive cells darkened, detections boxed."""
    omg, detector = load_pair(model, threads=threads)
    spec = model.spec
    pipeline = Pipeline(spec, omg, detector, parse_mask_source("omg", spec))
    samples = dataset.samples[:: max(1, len(dataset) // PICTURES)][:PICTURES]
    figure = new_figure(width=12, height=9)
    for axes, sample in zip(figure.subplots(3, 4).flat, samples, strict=False):
        image = sample.read()
        result = pipeline.process(image)
        boxed = letterbox(image, height=spec.height, width=spec.width)
        light = np.where(mask_at(result.mask, rows=spec.height, columns=spec.width), 1.0, BACKGROUND_LIGHT)
        axes.imshow((boxed.image * light[..., None]).astype(np.uint8))
        outline(axes, boxed, result.detections, spec.classes)
        axes.set_title(f"{result.active_share:.0%} active", fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    save_figure(figure, path)


def outline(axes: Any, boxed: Letterboxed, found: Detections, classes: tuple[str, ...]) -> None:
    """Box what was ``found`` in the picture ``boxed``, which ``axes`` show letterboxed."""
    for box, class_id, score in zip(boxed.to_input(found.boxes_xyxy), found.class_ids, found.scores, strict=True):
        left, top, right, bottom = (float(value) for value in box)
        axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="lime", linewidth=1)
        axes.text(left, top, f"{classes[int(class_id)]} {score:.2f}", color="lime", fontsize=7)


def new_figure(*, width: float, height: float) -> Any:
    """An off-screen figure; nothing of pyplot's global state is touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "train", "draw the plots of a training run") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write it as ``path`` says; raises ``StorageError`` where that cannot be written."""
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise StorageError(f"the plot {path} could not be written: {error.strerror}") from error
