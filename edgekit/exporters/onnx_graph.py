"""An ONNX file as a short list of nodes: constants resolved, every shape known. What all converters read.

Shapes are ONNX's: N batch (always 1), C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.dependencies import load

MASK_INPUT = "mask"
"""The graph input that holds the objectness mask; the OMG graph has none."""

MASK_OPS = frozenset({"Resize", "MaxPool"})
"""What may happen to a mask on its way to a multiplication: every result is still all zeros and ones."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation with one result that something reads."""

    name: str
    op: str
    inputs: tuple[str, ...]
    """Tensor names; an absent optional input is the empty string."""

    output: str
    attributes: Mapping[str, Any]
    unread: int = 0
    """How many results come before ``output``: the values of a TopK whose indices are meant."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A static graph; ``nodes`` are in execution order."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read ``tensor``."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

    def convolutions(self) -> tuple[str, ...]:
        """Names of all Conv and ConvTranspose nodes, in execution order."""
        return tuple(node.name for node in self.nodes if node.op in ("Conv", "ConvTranspose"))

    def mask_tensors(self) -> frozenset[str]:
        """The mask input and everything that is only a resized mask."""
        masks = {MASK_INPUT} & set(self.inputs)
        for node in self.nodes:
            if node.op in MASK_OPS and node.inputs[0] in masks:
                masks.add(node.output)
        return frozenset(masks)

    def predictions(self) -> frozenset[str]:
        """What is left to do behind the last convolutions: their results and all made of them, up to the outputs.

        What something else reads too is no prediction: the features that a head pools also feed more convolutions.
        """
        masks = self.mask_tensors()
        makers = {node.output: node for node in self.nodes if node.output not in masks}
        found: set[str] = set()
        waiting = list(self.outputs)
        while waiting:
            tensor = waiting.pop()
            if tensor in makers and tensor not in found:
                found.add(tensor)
                waiting += makers[tensor].inputs if makers[tensor].op != "Conv" else ()
        while shared := {
            tensor for tensor in found if any(node.output not in found for node in self.consumers(tensor))
        }:
            found -= shared
        return frozenset(found)

    def mask_multiplications(self) -> dict[str, str]:
        """Name of each Mul of a feature map by a mask -> the feature map's tensor."""
        masks = self.mask_tensors()
        found = {}
        for node in self.nodes:
            if node.op == "Mul":
                features = [tensor for tensor in node.inputs if tensor not in masks]
                if len(features) == 1 and features[0] not in self.constants:
                    found[node.name] = features[0]
        return found


def fused_relu(graph: Graph, node: Node) -> Node | None:
    """The ReLU or ReLU6 that alone reads the result of ``node``, or ``None``: engines compute the two as one."""
    consumers = graph.consumers(node.output)
    if len(consumers) == 1 and node.output not in graph.outputs:
        return None if relu_bound(graph, consumers[0]) is None else consumers[0]
    return None


def relu_bound(graph: Graph, node: Node) -> float | None:
    """The upper bound of a ReLU (infinity) or ReLU6 (a Clip to exactly 0..6); ``None`` for any other node."""
    if node.op == "Relu":
        return inf
    if node.op != "Clip":
        return None
    bounds = [graph.constants.get(tensor) for tensor in node.inputs[1:]]
    return 6.0 if [None if bound is None else float(bound) for bound in bounds] == [0.0, 6.0] else None


def read_graph(path: Path) -> Graph:
    """Load and check an ONNX file.

    Raises:
        ExportError: not a valid ONNX file, or a node or shape that no converter can take.
    """
    onnx = load("onnx", package="onnx", purpose="read an exported graph")
    model = load_model(path)
    nodes: list[Node] = []
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    renamed: dict[str, str] = {}
    read = {tensor for proto in model.graph.node for tensor in proto.input} | {o.name for o in model.graph.output}
    for proto in model.graph.node:
        inputs = tuple(renamed.get(tensor, tensor) for tensor in proto.input)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        name = proto.name or f"{proto.op_type} -> {', '.join(proto.output)}"
        output, unread = proto.output[-1], len(proto.output) - 1
        if read & set(proto.output[:-1]):
            raise ExportError(
                f"node {name!r} ({proto.op_type}): expected only the last of its {len(proto.output)} outputs to be read"
            )
        if proto.op_type == "Constant" and "value" in attributes:
            constants[output] = onnx.numpy_helper.to_array(attributes["value"])
        elif proto.op_type == "Identity" and output not in {o.name for o in model.graph.output}:
            renamed[output] = inputs[0]
        else:
            nodes.append(
                Node(name=name, op=proto.op_type, inputs=inputs, output=output, attributes=attributes, unread=unread)
            )
    return Graph(
        nodes=tuple(nodes),
        constants={name: np.asarray(value) for name, value in constants.items()},
        shapes=_shapes(model, {node.output for node in nodes}),
        inputs=tuple(i.name for i in model.graph.input if i.name not in constants),
        outputs=tuple(o.name for o in model.graph.output),
    )


def load_model(path: Path) -> Any:
    """``path`` as a checked ``onnx.ModelProto`` with all shapes inferred.

    Raises:
        ExportError: the file is missing, damaged or no valid model.
    """
    onnx = load("onnx", package="onnx", purpose="read an exported graph")
    protobuf = load("google.protobuf.message", package="protobuf", purpose="read an exported graph")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except FileNotFoundError as error:
        raise ExportError(f"there is no ONNX graph at {path}") from error
    except (protobuf.DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path} is not a valid ONNX graph: {error}") from error


def _shapes(model: Any, produced: set[str]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if any(not dimension.HasField("dim_value") for dimension in dimensions):
            raise ExportError(f"tensor {value.name!r} has no fixed shape; export with a static batch of 1")
        shapes[value.name] = tuple(int(dimension.dim_value) for dimension in dimensions)
    unknown = sorted(produced - shapes.keys())
    if unknown:
        raise ExportError(f"tensor {unknown[0]!r} has no fixed shape; export with a static batch of 1")
    return shapes
