"""ONNX -> TFLite, written directly: one small handler (``tflite_ops``) an operation, for the subset our models use.

* fp32: as is.
* fp16: weights in half precision behind a DEQUANTIZE; arithmetic and biases stay float32, inputs and outputs too.
* int8: see :mod:`edgekit.exporters.quantisation`. Inputs and outputs are int8 with their own scales. Convolutions
  named in ``keep_float`` stay float32 between DEQUANTIZE and QUANTIZE; an output that comes straight from one is
  float32, so that nothing of what was repaired is lost again.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision
from edgekit.exporters.dense_graph import dense_copy
from edgekit.exporters.onnx_gelu import join_gelus
from edgekit.exporters.onnx_graph import fused_relu
from edgekit.exporters.source_graph import read_source
from edgekit.exporters.tflite_emitter import Emitter
from edgekit.exporters.tflite_ops import FUSES_RELU, HANDLERS


def to_tflite(
    onnx_path: Path,
    out_path: Path,
    precision: Precision,
    calibration: Calibration | None = None,
    keep_float: frozenset[str] = frozenset(),
) -> None:
    """Write a ``.tflite`` file; see :class:`edgekit.exporters.conversion.Converter`.

    Raises:
        ExportError: an operation or attribute outside the subset (the message names the node), or a request that
            contradicts itself.
        MissingDependencyError: onnx, ai-edge-litert or (int8) onnxruntime is not installed.
    """
    with dense_copy(onnx_path) as path:
        graph, plan = read_source(path, precision, calibration, keep_float)
    graph = join_gelus(graph)
    emitter = Emitter(graph, half_weights=precision == "fp16", plan=plan, keep_float=keep_float)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    out_path.write_bytes(emit(emitter))


def emit(emitter: Emitter) -> bytes:
    """The whole file: every node of the emitter's graph through its handler."""
    graph = emitter.graph
    inputs = {name: emitter.result(name) for name in graph.inputs}
    done: set[str] = set()
    for node in graph.nodes:
        if node.name in done:
            continue
        if node.op not in HANDLERS:
            raise ExportError(
                f"node {node.name!r} is a {node.op}, which the TFLite writer does not know;"
                f" it knows: {', '.join(sorted(HANDLERS))}"
            )
        relu = fused_relu(graph, node) if node.op in FUSES_RELU else None
        if relu is not None:
            done.add(relu.name)
        HANDLERS[node.op](emitter, node, node.output if relu is None else relu.output)
    return emitter.writer.finish(inputs, {name: emitter.stored(name) for name in graph.outputs})
