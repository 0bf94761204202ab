"""Converters from PyTorch to the engines: ``torch_onnx`` writes ONNX, the table below turns ONNX into the rest."""

from __future__ import annotations

import functools

from edgekit.exporters.conversion import Converter
from edgekit.exporters.onnx_onnx import to_onnx
from edgekit.exporters.onnx_openvino import to_openvino
from edgekit.exporters.onnx_sparse import to_sparse
from edgekit.exporters.onnx_tflite import to_tflite
from edgekit.spec import DetectorSpec

CONVERTERS: dict[str, Converter] = {
    "onnx": to_onnx,
    "tflite": to_tflite,
    "openvino": to_openvino,
}
"""Graph format -> function(onnx_path, out_path, precision, calibration, keep_float)."""

SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml", "sparse": ".sparse"}
"""Graph format -> suffix of ``out_path``; OpenVINO writes the weights beside it as ``.bin``."""


def converter(graph_format: str, spec: DetectorSpec, graph: str = "detector") -> Converter:
    """The converter of ``graph`` to ``graph_format``; sparse programs normalise pixels themselves, as ``spec`` says."""
    if graph_format == "sparse":
        mean, std = (spec.mean, spec.std) if takes_picture(graph) else (0.0, 1.0)
        # Predictions in float32 cost nothing there and are worth .2 points of the built-in detector's AP50.
        return functools.partial(to_sparse, mean=mean, std=std, float_predictions=True)
    return CONVERTERS[graph_format]


def takes_picture(graph: str) -> bool:
    """Whether the input ``image`` of a graph is the picture; that of a head is what was pooled from regions of it."""
    return graph != "head"
