"""Converters from PyTorch to the engines: ``torch_onnx`` writes ONNX, the table below turns ONNX into the rest."""

from __future__ import annotations

from edgekit.exporters.conversion import Converter
from edgekit.exporters.onnx_onnx import to_onnx
from edgekit.exporters.onnx_openvino import to_openvino
from edgekit.exporters.onnx_tflite import to_tflite

CONVERTERS: dict[str, Converter] = {
    "onnx": to_onnx,
    "tflite": to_tflite,
    "openvino": to_openvino,
}
"""Graph format -> function(onnx_path, out_path, precision, calibration, keep_float)."""

SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml"}
"""Graph format -> suffix of ``out_path``; OpenVINO writes the weights beside it as ``.bin``."""
