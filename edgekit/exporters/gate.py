"""The gate behind every conversion: a model that got worse is refused, by name and number.

Two halves. *Parity* compares the converted model with PyTorch on pictures, through the whole pipeline; it needs no
annotations. *Accuracy* measures AP50 of both on annotated data. Either can fail the gate (exit code 5), and then no
bundle is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.datasets import DetectionDataset
from edgekit.errors import GateError
from edgekit.exporters.parity import Parity, measure_parity
from edgekit.exporters.parity_limits import PARITY_LIMITS, ParityLimits, parity_failures
from edgekit.exporters.sensitivity import LayerError
from edgekit.metrics.detection import evaluate_detections
from edgekit.pipeline import Pipeline

PARITY_IMAGES = 16
"""Pictures for parity: it looks for faults, which show on all pictures, not for a small average loss."""

EVALUATION_SCORE = 0.01
"""Detections below it do not move average precision."""

LISTED_LAYERS = 8
"""The worst layers that a refusal names."""

OUTSTANDING_DB = 30.0
"""A layer under this does more harm than rounding does in a healthy network, whose layers lie between 35 and 60."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """AP50 before and after a conversion."""

    data: str
    """Name of the data set and split."""

    images: int
    ap50_before: float
    """Of the PyTorch model, 0..1."""

    ap50_after: float
    """Of the converted model, 0..1."""

    max_drop: float
    """Largest allowed drop, in points (hundredths of AP50)."""

    @property
    def drop(self) -> float:
        """Points lost; negative where the converted model is better."""
        return 100 * (self.ap50_before - self.ap50_after)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return {**asdict(self), "drop": self.drop}


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gate measured, and what it holds against the model."""

    precision: str
    engine: str
    """The engine that ran the converted model, with its version."""

    parity: Parity
    limits: ParityLimits
    accuracy: Accuracy | None
    """``None`` where no annotated data was given: then nobody knows what the conversion cost."""

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each broken limit; none if the model passed."""
        return (*parity_failures(self.parity, self.limits), *_accuracy_failures(self.accuracy))

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.failures

    def lines(self) -> list[str]:
        """What was measured, for people."""
        parity, accuracy = self.parity, self.accuracy
        lines = [
            f"parity    {parity.images} pictures, {parity.detections} detections, {parity.unpaired} unpaired;"
            f" {parity.candidates} candidates, {parity.disagreeing} apart;"
            f" worst box {parity.box_error_px:.2f} px, worst score {parity.score_error:.4f},"
            f" {parity.mask_cells_differing} of {parity.mask_cells} mask cells differ ({self.engine})"
        ]
        if accuracy is None:
            return [*lines, "accuracy  not measured"]
        lines.append(
            f"accuracy  AP50 {accuracy.ap50_before:.4f} -> {accuracy.ap50_after:.4f} on {accuracy.images} pictures of"
            f" {accuracy.data}"
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write; ``accuracy`` is null where it was not measured."""
        return {
            "precision": self.precision,
            "engine": self.engine,
            "passed": self.passed,
            "failures": list(self.failures),
            "parity": {**self.parity.to_json(), "limits": self.limits.to_json()},
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
        }


def run_gate(
    reference: Pipeline,
    candidate: Pipeline,
    *,
    precision: str,
    pictures: Iterable[NDArray[np.uint8]],
    dataset: DetectionDataset | None,
    max_drop: float,
    ap50_before: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> GateReport:
    """Compare ``candidate`` with ``reference``; the verdict is in the report.

    Args:
        reference: the PyTorch model's pipeline.
        candidate: the converted model's.
        precision: which limits of :data:`PARITY_LIMITS` apply.
        pictures: RGB [h, w, 3]; the first :data:`PARITY_IMAGES` are compared.
        dataset: annotated pictures with the reference's classes, or ``None`` to leave accuracy unmeasured.
        max_drop: allowed drop of AP50 in points.
        ap50_before: the reference's AP50 on ``dataset`` if it is known already; measured otherwise.
        progress: called with (what is going on, pictures done, pictures in all).
    """
    limits = PARITY_LIMITS[precision]
    parity = measure_parity(
        reference, candidate, itertools.islice(pictures, PARITY_IMAGES), box_px=limits.box_px, score=limits.score
    )
    accuracy = None
    if dataset is not None:
        if ap50_before is None:
            ap50_before = measure_ap50(reference, dataset, "AP50 before", progress)
        accuracy = Accuracy(
            data=dataset.name,
            images=len(dataset),
            ap50_before=ap50_before,
            ap50_after=measure_ap50(candidate, dataset, "AP50 after", progress),
            max_drop=max_drop,
        )
    return GateReport(
        precision=precision, engine=candidate.engine_name, parity=parity, limits=limits, accuracy=accuracy
    )


def measure_ap50(
    pipeline: Pipeline,
    dataset: DetectionDataset,
    what: str = "AP50",
    progress: Callable[[str, int, int], None] | None = None,
) -> float:
    """AP50 (0..1) of ``pipeline`` on ``dataset``, as ``edgekit val`` measures it."""
    detections = {}
    for done, sample in enumerate(dataset.samples):
        result = pipeline.process(
            sample.read(), truth_xyxy=sample.boxes_xyxy[~sample.ignore], score_threshold=EVALUATION_SCORE
        )
        detections[sample.image_id] = result.detections
        if progress is not None:
            progress(what, done + 1, len(dataset))
    return evaluate_detections(dataset, detections).ap50


def _accuracy_failures(accuracy: Accuracy | None) -> Iterable[str]:
    if accuracy is not None and accuracy.drop > accuracy.max_drop:
        yield (
            f"AP50 on {accuracy.data} ({accuracy.images} pictures): expected at least"
            f" {accuracy.ap50_before - accuracy.max_drop / 100:.4f} ({accuracy.ap50_before:.4f} before, at most"
            f" {accuracy.max_drop:g} points less), got {accuracy.ap50_after:.4f}, {accuracy.drop:.1f} points less"
        )


def suggest_count(ranking: Sequence[LayerError]) -> int:
    """How many of the worst layers to keep in float so that a tenth of the noise is left; at most a tenth of all."""
    total = sum(error.noise for error in ranking)
    left = total
    for count, error in enumerate(ranking, start=1):
        left -= error.noise
        if left <= total / 10 or count >= len(ranking) / 10:
            return count
    return 1


def gate_error(
    failures: Sequence[str],
    *,
    what: str,
    precision: str,
    ranking: Sequence[LayerError],
    kept: Sequence[str],
    float_precision: str = "fp16",
    optional: str | None = None,
) -> GateError:
    """The refusal: what was measured, which layers are to blame, what to type next.

    Args:
        failures: one sentence each, as :attr:`GateReport.failures` has them.
        what: what failed in words, e.g. ``int8 tflite model``.
        precision: its precision.
        ranking: layers by int8 error, worst first; empty for other precisions.
        kept: layers that were already kept in float.
        float_precision: what to try instead of int8.
        optional: the option that asked for it, where the bundle can do without it.
    """
    lines = [f"the {what} is too far from its checkpoint, so no bundle was written:"]
    lines += [f"  {failure}" for failure in failures]
    if ranking:
        lines.append(
            "Layers that lose most in int8, each quantised alone (signal to noise at the outputs; 40 dB is good):"
        )
        lines += [
            f"  {error.layer}  {error.sqnr_db:.1f} dB{'  (already kept in float)' if error.layer in kept else ''}"
            for error in ranking[:LISTED_LAYERS]
        ]
        open_layers = [error for error in ranking if error.layer not in kept]
        command = f"edgekit export ... --keep-float worst:{len(kept) + suggest_count(open_layers)}"
        if open_layers and open_layers[0].sqnr_db < OUTSTANDING_DB:
            lines.append(f"Keep the worst in float32: {command}   (or give up int8: --precision {float_precision})")
        else:
            lines.append(
                "No layer stands out. Calibrate on more pictures like the camera's (--calib, --calib-images),"
                f" keep more in float32 ({command}), or give up int8 (--precision {float_precision})"
            )
    elif precision == "fp16":
        lines.append("Half precision overflows or rounds too much here; try: edgekit export ... --precision fp32")
    else:
        lines.append(
            "float32 should be exact, so the converter or the engine is at fault, not the model"
            + ("" if optional else "; try another: edgekit export ... --format onnx")
        )
    if optional:
        lines.append(f"The graphs beside it passed: without {optional} they make a bundle")
    return GateError("\n".join(lines))
