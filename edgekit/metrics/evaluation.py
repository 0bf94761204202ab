"""Everything that is measured of one pipeline on one data set: accuracy, masks, MACs and zero activations."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.datasets import DetectionDataset, Sample
from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.masks.expression import names_in, parse_expression
from edgekit.metrics.detection import DetectionMetrics, evaluate_detections
from edgekit.metrics.macs import LayerMacs, executed_layer_macs, total_macs
from edgekit.metrics.masks import MaskMeter, MaskMetrics
from edgekit.pipeline import Pipeline

if TYPE_CHECKING:
    from edgekit.metrics.zeros import ActivationStatistics, LayerZeros


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One pipeline on one data set."""

    detection: DetectionMetrics
    mask: MaskMetrics
    layers: tuple[LayerMacs, ...]

    layer_macs_executed: NDArray[np.float64]
    """[layers] mean over images of the MACs at active sites; the OMG network's own if the mask comes from it."""

    zeros: tuple[LayerZeros, ...] | None
    """Sums over all images, if they were counted."""

    @property
    def macs(self) -> int:
        """Dense MACs of the detector: what an image costs without a mask."""
        return total_macs(self.layers, "detector")

    @property
    def macs_executed(self) -> int:
        """Mean MACs an image, the OMG network included."""
        return round(float(self.layer_macs_executed.sum()))

    def to_json(self) -> dict[str, Any]:
        """The numbers of ``edgekit val --json``; shares and precisions are 0..1, MACs are means over images."""
        document: dict[str, Any] = {
            "ap50": self.detection.ap50,
            "map": self.detection.map,
            "active_share": self.mask.active_share,
            "mask_recall": self.mask.mask_recall,
            "macs": self.macs,
            "macs_omg": total_macs(self.layers, "omg"),
            "macs_executed": self.macs_executed,
            "ap50_per_class": dict(self.detection.ap50_per_class),
        }
        if self.zeros is not None:
            document["zeros"] = self._zeros_to_json(self.zeros)
        return document

    def _zeros_to_json(self, zeros: Sequence[LayerZeros]) -> dict[str, Any]:
        images = self.detection.images
        detector = [layer for layer in zeros if layer.name.startswith("detector.")]
        dense = {layer.name: layer.macs for layer in self.layers}
        executed = dict(zip(dense, self.layer_macs_executed, strict=True))
        return {
            "zero_share": sum(layer.zeros for layer in detector) / max(1, sum(layer.activations for layer in detector)),
            "zero_share_layer_mean": float(np.mean([layer.zero_share for layer in detector])) if detector else 0.0,
            "macs_nonzero": round(sum(layer.nonzero_macs for layer in zeros) / images),
            "layers": [
                {
                    "name": layer.name,
                    "zero_share": layer.zero_share,
                    "macs": dense[layer.name],
                    "macs_executed": round(float(executed[layer.name])),
                    "macs_nonzero": round(layer.nonzero_macs / images),
                }
                for layer in zeros
            ],
        }


class Evaluator:
    """Runs ``pipeline`` on one sample after another and adds up."""

    def __init__(
        self,
        pipeline: Pipeline,
        layers: tuple[LayerMacs, ...],
        *,
        score_threshold: float,
        zeros: ActivationStatistics | None = None,
    ) -> None:
        """Prepare to measure.

        Args:
            pipeline: what to measure.
            layers: its layer table.
            score_threshold: lowest score 0..1 of a detection; low, because average precision wants the whole curve.
            zeros: counts zero activations of the model that ``pipeline`` runs.
        """
        self.pipeline = pipeline
        self.layers = layers
        self._score_threshold = score_threshold
        self._zeros = zeros
        self._detections: dict[int, Detections] = {}
        self._masks = MaskMeter()
        self._executed = np.zeros(len(layers))

    def add(self, sample: Sample, image: NDArray[np.uint8]) -> None:
        """Run ``image``, the picture of ``sample``; its ignored boxes are no part of a ``truth`` mask either."""
        spec = self.pipeline.spec
        boxes = sample.boxes_xyxy[~sample.ignore]
        with self._zeros or contextlib.nullcontext():
            result = self.pipeline.process(image, truth_xyxy=boxes, score_threshold=self._score_threshold)
        self._detections[sample.image_id] = result.detections
        boxes = letterbox(image, height=spec.height, width=spec.width).to_input(boxes)
        self._masks.add(result.mask, boxes, height=spec.height, width=spec.width)
        self._executed += executed_layer_macs(self.layers, result.mask, omg=result.omg_ran, regions=result.regions)

    def result(self, dataset: DetectionDataset) -> Evaluation:
        """The evaluation of all samples of ``dataset``, which must have been added, each once.

        Raises:
            DataError: the data set has no box to find.
            MissingDependencyError: pycocotools is not installed.
        """
        return Evaluation(
            detection=evaluate_detections(dataset, self._detections),
            mask=self._masks.result(),
            layers=self.layers,
            layer_macs_executed=self._executed / len(dataset),
            zeros=self._zeros.layers(images=len(dataset)) if self._zeros else None,
        )


def uses_omg(mask: str) -> bool:
    """Whether the mask source with this text runs the OMG network (``omg&zones.json`` does)."""
    return "omg" in names_in(parse_expression(mask))
