"""float32 ONNX -> float16 weights and arithmetic, with float32 inputs and outputs.

onnxruntime's own converter (``onnxruntime.transformers.float16``) handles far more operations, but importing it puts
its folder on ``sys.path``; for our dozen operations the rules are: cast at the borders, store floating constants in
half precision, and leave Resize's scales alone, which ONNX defines as float32.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, read_graph
from edgekit.exporters.onnx_places import integer_tensors, place_tensors

FLOAT, FLOAT16 = 1, 10
"""Element types of ``onnx.TensorProto``."""


def onnx_fp16(path: Path, out: Path) -> None:
    """Write a half-precision copy of the graph at ``path``.

    Raises:
        ExportError: not a valid graph, or a weight too large for float16 (65504).
    """
    save_model(build_model(halve_precision(read_graph(path))), out)


def halve_precision(graph: Graph) -> Graph:
    """``graph`` computing in float16 between a cast of each input and a cast of each output.

    What says where something lies stays float32 (:mod:`edgekit.exporters.onnx_places`), between casts of its own.
    """
    places = place_tensors(graph)
    exact = {tensor for node in graph.nodes if node.op == "Resize" for tensor in node.inputs[1:]}
    exact |= {tensor for node in graph.nodes if node.output in places for tensor in node.inputs}
    constants = {name: value if name in exact else _half(name, value) for name, value in graph.constants.items()}
    integers = integer_tensors(graph)
    nodes = [_cast(name, f"{name}.float16", FLOAT16) for name in graph.inputs]
    half = {name: f"{name}.float16" for name in graph.inputs}
    single: dict[str, str] = {name: name for name in graph.inputs}

    def read(tensor: str, *, exactly: bool) -> str:
        if tensor not in half and tensor not in single:
            return tensor
        known, others = (single, half) if exactly else (half, single)
        if tensor not in known:
            known[tensor] = f"{tensor}.{'float32' if exactly else 'float16'}"
            nodes.append(_cast(others[tensor], known[tensor], FLOAT if exactly else FLOAT16))
        return known[tensor]

    for node in graph.nodes:
        exactly = node.output in places or (node.op == "Cast" and node.output in integers)
        inputs = tuple(read(tensor, exactly=exactly) for tensor in node.inputs)
        output = node.output
        if node.output not in integers and (exactly or node.output not in graph.outputs):
            (single if exactly else half)[node.output] = output
        elif node.output not in integers:
            output = half[node.output] = f"{output}.float16"
        nodes.append(replace(node, inputs=inputs, output=output))
    nodes += [_cast(half[name], name, FLOAT) for name in graph.outputs if name not in single]
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _cast(source: str, result: str, to: int) -> Node:
    return Node(name=f"{result}.Cast", op="Cast", inputs=(source,), output=result, attributes={"to": to})


def _half(name: str, value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype != np.float32:
        return value
    if np.abs(value, dtype=np.float32).max(initial=0) > np.finfo(np.float16).max:
        raise ExportError(
            f"{name!r} holds {float(np.abs(value).max()):.3g}, more than float16 can (65504); export it as fp32"
        )
    return value.astype(np.float16)
