"""The way back from :class:`~edgekit.exporters.onnx_graph.Graph` to an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_graph import Graph

OPSET = 17
"""Old enough for onnxruntime 1.12 (JetPack 5) and TensorRT 8.5, new enough for everything we emit."""

IR_VERSION = 8
"""The ONNX file format that came with opset 17; onnxruntime refuses versions newer than itself."""


def build_model(graph: Graph) -> Any:
    """A checked ``onnx.ModelProto`` of ``graph``, with float32 inputs and outputs and all shapes inferred."""
    onnx = load("onnx", package="onnx", purpose="write an ONNX graph")
    helper = onnx.helper
    proto = helper.make_graph(
        [
            helper.make_node(
                node.op,
                list(node.inputs),
                [*(f"{node.name}.unread.{index}" for index in range(node.unread)), node.output],
                name=node.name,
                **node.attributes,
            )
            for node in graph.nodes
        ],
        "edgekit",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, graph.shapes[name]) for name in graph.inputs],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, graph.shapes[name]) for name in graph.outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    model = helper.make_model(
        proto, producer_name="edgekit", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def save_model(model: Any, path: Path) -> None:
    """Write ``model``; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
