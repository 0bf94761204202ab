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

FLOAT, FLOAT16 = 1, 10
"""Element types of ``onnx.TensorProto``."""


def onnx_fp16(path: Path, out: Path) -> None:
    """Write a half-precision copy of the graph at ``path``.

    Raises:
        ExportError: not a valid graph, or a weight too large for float16 (65504).
    """
    save_model(build_model(halve_precision(read_graph(path))), out)


def halve_precision(graph: Graph) -> Graph:
    """``graph`` computing in float16 between a cast of each input and a cast of each output."""
    kept = {tensor for node in graph.nodes if node.op == "Resize" for tensor in node.inputs[1:]}
    constants = {name: value if name in kept else _half(name, value) for name, value in graph.constants.items()}
    inner = {name: f"{name}.float16" for name in (*graph.inputs, *graph.outputs)}
    nodes = [
        *(_cast(name, inner[name], FLOAT16) for name in graph.inputs),
        *(
            replace(
                node,
                inputs=tuple(inner.get(tensor, tensor) for tensor in node.inputs),
                output=inner.get(node.output, node.output),
            )
            for node in graph.nodes
        ),
        *(_cast(inner[name], name, FLOAT) for name in graph.outputs),
    ]
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
