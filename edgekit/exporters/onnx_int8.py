"""float32 ONNX -> int8 ONNX for onnxruntime: QuantizeLinear/DequantizeLinear pairs around every operation.

onnxruntime fuses each DequantizeLinear -> operation -> QuantizeLinear into one integer kernel. The scales are those
of the TFLite file (:mod:`edgekit.exporters.quantisation`), which onnxruntime's own quantiser would not give: it
measures the two sides of a mask multiplication apart, so that multiplying by 1 would round. Activations are uint8,
weights int8 per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.bias_correction import correct_biases
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import check_kept_layers
from edgekit.exporters.dense_graph import dense_copy
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, fused_relu, read_graph, relu_bound
from edgekit.exporters.quantisation import Affine, float_tensors, measure_activations, quantise_convolution

PAIR_LIMIT = 128
"""AVX2 without VNNI adds pairs of uint8 x int8 products in 16 bits, and 2 * 255 * 127 saturates there. The usual cure
("reduce_range") halves all weights; it is enough that no two of one channel and sign exceed 128 together, in
convolutions over channels: depthwise kernels widen first. On ImageNet MobileNetV2, before biases are corrected, the
last feature map keeps a cosine of .935 with float instead of .823, at the same speed."""

TO_UNSIGNED = 128
"""uint8 zero point minus int8 zero point."""


def quantise_onnx(
    path: Path,
    out: Path,
    calibration: Calibration,
    keep_float: frozenset[str] = frozenset(),
    *,
    float_predictions: bool = False,
) -> None:
    """Write an int8 copy of the graph at ``path``; its inputs and outputs stay float32.

    Args:
        path: the float32 graph.
        out: the file to write.
        calibration: inputs that show the range of every activation.
        keep_float: names of convolutions that stay float32.
        float_predictions: leave what the last convolutions compute in float32, for engines whose integer convolutions
            can give that (onnxruntime's cannot).

    Raises:
        ExportError: not a valid graph, nothing to calibrate with, or no convolution of a given name.
    """
    with dense_copy(path) as dense:
        graph = read_graph(dense)
        check_kept_layers(keep_float, graph.convolutions())
        measured = measure_activations(dense, graph, calibration)
    graph = correct_biases(graph, measured.means, keep_float=keep_float, pair_limit=PAIR_LIMIT)
    unquantised = graph.predictions() if float_predictions else frozenset()
    plan = {tensor: affine for tensor, affine in measured.plan.items() if tensor not in unquantised}
    save_model(build_model(_Rewriter(graph, plan, float_tensors(graph, keep_float)).rewrite()), out)


class _Rewriter:
    """Copies a graph node by node; in the copy ``x.restored`` is what is left of the tensor ``x`` after int8."""

    def __init__(self, graph: Graph, plan: Mapping[str, Affine], floats: frozenset[str]) -> None:
        self._graph = graph
        self._plan = plan
        self._floats = floats
        self._nodes: list[Node] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._restored: dict[str, str] = {}

    def rewrite(self) -> Graph:
        """The graph with quantisation nodes."""
        for name in self._graph.inputs:
            self._restore(name, name, f"{name}.restored")
        skipped: set[str] = set()
        for node in self._graph.nodes:
            if node.name not in skipped:
                relu = fused_relu(self._graph, node)
                if relu is not None and self._clips_like(relu):
                    skipped.add(relu.name)
                    self._copy(node, relu.output)
                else:
                    self._copy(node, node.output)
        return replace(self._graph, nodes=tuple(self._nodes), constants=self._constants)

    def _copy(self, node: Node, output: str) -> None:
        integer = output in self._plan and output not in self._floats
        fused = output not in self._plan and output not in self._floats  # its ReLU follows, then QuantizeLinear
        if node.op == "Conv" and (integer or fused):
            constants = self._integer_constants(node)
        else:
            constants = {name: name for name in node.inputs if name in self._graph.constants}
            self._constants.update({name: self._graph.constants[name] for name in constants})
        inputs = tuple(constants.get(name) or self._read(name, integer or fused) for name in node.inputs)
        if not integer:
            self._nodes.append(replace(node, inputs=inputs, output=output))
            return
        self._nodes.append(replace(node, inputs=inputs, output=f"{output}.exact"))
        restored = output if output in self._graph.outputs else f"{output}.restored"
        self._restore(output, f"{output}.exact", restored)

    def _read(self, name: str, integer: bool) -> str:
        """What an operation reads for ``name``: the int8 version if it exists or the operation needs it."""
        if name == "" or name not in self._plan:
            return name
        if integer and name not in self._restored:
            self._restore(name, name, f"{name}.restored")
        return name if name in self._floats and not integer else self._restored[name]

    def _restore(self, name: str, source: str, restored: str) -> None:
        """``source`` through uint8 and back."""
        affine = self._plan[name]
        scale, zero = f"{name}.scale", f"{name}.zero_point"
        self._constants[scale] = np.array(affine.scale, np.float32)
        self._constants[zero] = np.array(affine.zero_point + TO_UNSIGNED, np.uint8)
        self._add("QuantizeLinear", (source, scale, zero), f"{name}.integer")
        self._add("DequantizeLinear", (f"{name}.integer", scale, zero), restored)
        self._restored[name] = restored

    def _integer_constants(self, node: Node) -> dict[str, str]:
        """Integer weight and bias behind a DequantizeLinear each: name in the source -> name in the copy."""
        weight = self._graph.constants[node.inputs[1]]
        has_bias = len(node.inputs) > 2 and node.inputs[2] != ""
        bias = self._graph.constants[node.inputs[2]] if has_bias else np.zeros(len(weight), np.float32)
        integers = quantise_convolution(weight, bias, self._plan[node.inputs[0]].scale, pair_limit=PAIR_LIMIT)
        copies: dict[str, tuple[str, NDArray[Any], NDArray[np.float32]]] = {}
        copies[node.inputs[1]] = (f"{node.name}.weight", integers.weight, integers.weight_scales)
        if has_bias:
            copies[node.inputs[2]] = (f"{node.name}.bias", integers.bias, integers.bias_scales)
        for name, values, scales in copies.values():
            self._constants[f"{name}.integer"] = values
            self._constants[f"{name}.scales"] = scales
            self._add("DequantizeLinear", (f"{name}.integer", f"{name}.scales"), f"{name}.restored", axis=0)
        return {source: f"{name}.restored" for source, (name, _, _) in copies.items()}

    def _clips_like(self, relu: Node) -> bool:
        """Whether storing the result of a ReLU or ReLU6 as uint8 already cuts it as that does, so that it can go."""
        bound = relu_bound(self._graph, relu)
        if bound is None or relu.output in self._floats or relu.output not in self._plan:
            return False
        affine = self._plan[relu.output]
        return affine.zero_point == -128 and affine.scale * 255 <= bound * (1 + 1e-6)

    def _add(self, op: str, inputs: tuple[str, ...], output: str, **attributes: int) -> None:
        self._nodes.append(Node(name=f"{output}.{op}", op=op, inputs=inputs, output=output, attributes=attributes))
