"""ONNX -> OpenVINO IR (``.xml`` with the weights beside it in ``.bin``); int8 through NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision, check_kept_layers, check_request
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_graph import Graph, read_graph

PURPOSE = "write OpenVINO graphs"

MASK_OPERATIONS = frozenset({"Multiply", "Interpolate", "MaxPool"})
"""What the nodes that carry or apply the mask become in OpenVINO."""


def to_openvino(
    onnx_path: Path,
    out_path: Path,
    precision: Precision,
    calibration: Calibration | None = None,
    keep_float: frozenset[str] = frozenset(),
) -> None:
    """Write ``out_path`` (``.xml``) and a ``.bin`` beside it; see :class:`edgekit.exporters.conversion.Converter`.

    Raises:
        ExportError: OpenVINO does not know an operation, or a request that contradicts itself.
        MissingDependencyError: onnx, openvino or (int8) nncf is not installed.
    """
    check_request(precision, calibration, keep_float)
    graph = read_graph(onnx_path)
    check_kept_layers(keep_float, graph.convolutions())
    openvino = load("openvino", package="openvino", purpose=PURPOSE)
    transformations = load("openvino._offline_transformations", package="openvino", purpose=PURPOSE)
    try:
        model = openvino.Core().read_model(str(onnx_path))
    except RuntimeError as error:  # the one type that reading raises
        raise ExportError(f"OpenVINO cannot convert {onnx_path}: {error}") from error
    # What openvino.convert_model does besides reporting to its makers over the network: among others it makes one
    # operation of ReLU6, without which int8 would quantise before it.
    transformations.apply_moc_transformations(model, cf=False)
    if calibration is not None and precision == "int8":
        model = _quantise(model, graph, calibration, keep_float)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, str(out_path), compress_to_fp16=precision == "fp16")


def _quantise(model: Any, graph: Graph, calibration: Calibration, keep_float: frozenset[str]) -> Any:
    """Post-training quantisation; what carries or applies the mask is left alone, so it stays exact."""
    with _no_report():
        nncf = load("nncf", package="nncf", purpose="write int8 OpenVINO graphs")
        advanced = load("nncf.quantization.advanced_parameters", package="nncf", purpose="write int8 OpenVINO graphs")
    wanted = set(graph.inputs)
    dataset = nncf.Dataset(
        calibration.inputs, lambda feed: {name: value for name, value in feed.items() if name in wanted}
    )
    with _silenced():
        return nncf.quantize(
            model,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,  # weights symmetric, activations asymmetric
            subset_size=calibration.images,
            ignored_scope=nncf.IgnoredScope(names=untouched_operations(model, graph, keep_float)),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                # AVX2 without VNNI saturates sums of 8-bit products; halving the weights' range avoids it everywhere.
                overflow_fix=advanced.OverflowFix.ENABLE
            ),
        )


def untouched_operations(model: Any, graph: Graph, keep_float: frozenset[str]) -> list[str]:
    """The OpenVINO names of everything that stays float: mask operations, and the convolutions in ``keep_float``.

    OpenVINO renames operations on the way but keeps ONNX's tensor names. A convolution with a bias becomes two
    operations, of which the second (Add) carries the tensor name.
    """
    masks = graph.mask_tensors()
    multiplied = graph.mask_multiplications()
    mask_results = {node.output for node in graph.nodes if node.output in masks or node.name in multiplied}
    kept_results = {node.output for node in graph.nodes if node.name in keep_float}
    found = []
    for operation in model.get_ordered_ops():
        names = {name for output in operation.outputs() for name in output.get_names()}
        if names & mask_results and operation.get_type_name() in MASK_OPERATIONS:
            found.append(operation.get_friendly_name())
        elif names & kept_results and operation.get_type_name() != "Result":
            if operation.get_type_name() == "Add":
                operation = operation.input_value(0).get_node()
            found.append(operation.get_friendly_name())
    return found


@contextlib.contextmanager
def _no_report() -> Iterator[None]:
    """NNCF reports each use over the network, without asking, unless this variable is there when it is imported."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """NNCF logs and draws progress bars on stdout, which belongs to data."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
