"""ONNX -> ONNX in another precision, for onnxruntime and its TensorRT and CUDA providers."""

from __future__ import annotations

from pathlib import Path

from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision, check_request
from edgekit.exporters.onnx_build import save_model
from edgekit.exporters.onnx_fp16 import onnx_fp16
from edgekit.exporters.onnx_graph import load_model
from edgekit.exporters.onnx_int8 import quantise_onnx


def to_onnx(
    onnx_path: Path,
    out_path: Path,
    precision: Precision,
    calibration: Calibration | None = None,
    keep_float: frozenset[str] = frozenset(),
) -> None:
    """Write an ``.onnx`` file; see :class:`edgekit.exporters.conversion.Converter`.

    Raises:
        ExportError: not a valid graph, or a request that contradicts itself.
        MissingDependencyError: onnx or (int8) onnxruntime is not installed.
    """
    check_request(precision, calibration, keep_float)
    if precision == "fp16":
        onnx_fp16(onnx_path, out_path)
    elif calibration is not None and precision == "int8":
        quantise_onnx(onnx_path, out_path, calibration, keep_float)
    else:
        save_model(load_model(onnx_path), out_path)
