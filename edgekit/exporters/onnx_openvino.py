"""ONNX -> OpenVINO IR (``.xml`` with the weights beside it in ``.bin``).

int8 is the int8 ONNX graph of :mod:`edgekit.exporters.onnx_int8`, which OpenVINO reads as its own integer operations.
NNCF, OpenVINO's quantiser, lost 1.4 points of AP50 on the built-in model where this loses none (voc07 val: .615 and
.629 of .629); it knows nothing of class logits that saturate. What the last convolutions predict stays float32, which
OpenVINO's integer convolutions give for nothing: through uint8, its zeros outside the mask came back as 1e-5.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision, check_request
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_graph import load_model
from edgekit.exporters.onnx_int8 import quantise_onnx

PURPOSE = "write OpenVINO graphs"


def to_openvino(
    onnx_path: Path,
    out_path: Path,
    precision: Precision,
    calibration: Calibration | None = None,
    keep_float: frozenset[str] = frozenset(),
) -> None:
    """Write ``out_path`` (``.xml``) and a ``.bin`` beside it; see :class:`edgekit.exporters.conversion.Converter`.

    Raises:
        ExportError: not a valid graph, an operation that OpenVINO does not know, or a request that contradicts itself.
        MissingDependencyError: onnx, openvino or (int8) onnxruntime is not installed.
    """
    check_request(precision, calibration, keep_float)
    if calibration is None or precision != "int8":
        load_model(onnx_path)  # says what is wrong with a broken file, where OpenVINO says that it is
        _convert(onnx_path, out_path, half=precision == "fp16")
        return
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / onnx_path.name
        quantise_onnx(onnx_path, quantised, calibration, keep_float, float_predictions=True)
        _convert(quantised, out_path, half=False)


def _convert(onnx_path: Path, out_path: Path, *, half: bool) -> None:
    openvino = load("openvino", package="openvino", purpose=PURPOSE)
    transformations = load("openvino._offline_transformations", package="openvino", purpose=PURPOSE)
    try:
        model = openvino.Core().read_model(str(onnx_path))
    except RuntimeError as error:  # the one type that reading raises
        raise ExportError(f"OpenVINO cannot convert {onnx_path}: {error}") from error
    # What openvino.convert_model does besides reporting to its makers over the network.
    transformations.apply_moc_transformations(model, cf=False)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, str(out_path), compress_to_fp16=half)
