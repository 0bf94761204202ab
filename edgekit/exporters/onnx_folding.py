"""What does not depend on a graph's inputs, computed once: its results become constants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_build import IR_VERSION, OPSET
from edgekit.exporters.onnx_graph import Graph, Node


def fold_constants(graph: Graph) -> Graph:
    """``graph`` without nodes of which all inputs are constants, Shapes, and Reshapes that change nothing.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    constants = dict(graph.constants)
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(tensor, tensor) for tensor in node.inputs)
        node = replace(node, inputs=inputs)
        if node.op == "Shape":
            constants[node.output] = np.array(_shape(graph, constants, inputs[0]), np.int64)
        elif node.output not in graph.outputs and all(not tensor or tensor in constants for tensor in inputs):
            constants[node.output] = _evaluate(node, constants)
        elif _changes_nothing(graph, node):
            renamed[node.output] = inputs[0]
        else:
            nodes.append(node)
    used = {tensor for node in nodes for tensor in node.inputs}
    return replace(
        graph,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
    )


def _shape(graph: Graph, constants: dict[str, NDArray[Any]], tensor: str) -> tuple[int, ...]:
    return constants[tensor].shape if tensor in constants else graph.shapes[tensor]


def _changes_nothing(graph: Graph, node: Node) -> bool:
    if node.op != "Reshape" or node.output in graph.outputs or node.inputs[0] not in graph.shapes:
        return False
    return graph.shapes[node.inputs[0]] == graph.shapes[node.output]


def _evaluate(node: Node, constants: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The result of one node, by ONNX's own reference."""
    onnx = load("onnx", package="onnx", purpose="export a model")
    reference = load("onnx.reference", package="onnx", purpose="export a model")
    helper = onnx.helper
    outputs = [*(f"unread.{index}" for index in range(node.unread)), "result"]
    names = {tensor: f"input.{index}" for index, tensor in enumerate(node.inputs)}
    proto = helper.make_graph(
        [helper.make_node(node.op, [names[t] if t else "" for t in node.inputs], outputs, **node.attributes)],
        "constant",
        [_info(onnx, names[tensor], constants[tensor]) for tensor in dict.fromkeys(node.inputs) if tensor],
        [helper.make_empty_tensor_value_info("result")],
    )
    model = helper.make_model(proto, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    feeds = {names[tensor]: constants[tensor] for tensor in node.inputs if tensor}
    (result,) = reference.ReferenceEvaluator(model).run(["result"], feeds)
    return np.asarray(result)


def _info(onnx: Any, name: str, value: NDArray[Any]) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
