"""The first step of the converters that quantise by themselves: a checked graph, with int8 parameters if asked for."""

from __future__ import annotations

from pathlib import Path

from edgekit.exporters.bias_correction import correct_biases
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision, check_kept_layers, check_request
from edgekit.exporters.onnx_graph import Graph, read_graph
from edgekit.exporters.quantisation import Affine, measure_activations


def read_source(
    onnx_path: Path, precision: Precision, calibration: Calibration | None, keep_float: frozenset[str]
) -> tuple[Graph, dict[str, Affine] | None]:
    """The graph at ``onnx_path`` and, for int8, the parameters of its tensors; its biases are then corrected for int8.

    Arguments as those of :class:`edgekit.exporters.conversion.Converter`.

    Raises:
        ExportError: no valid graph, or a request that contradicts itself.
        MissingDependencyError: onnx or (int8) onnxruntime is not installed.
    """
    check_request(precision, calibration, keep_float)
    graph = read_graph(onnx_path)
    check_kept_layers(keep_float, graph.convolutions())
    if calibration is None or precision != "int8":
        return graph, None
    measured = measure_activations(onnx_path, graph, calibration)
    return correct_biases(graph, measured.means, keep_float=keep_float), measured.plan
