"""Multiply-accumulates and parameters of any exported graph, counted on its nodes."""

from __future__ import annotations

from math import prod

from edgekit.exporters.onnx_graph import Graph

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul"})
"""Operations whose constants are parameters."""


def graph_macs(graph: Graph) -> int:
    """Of one run: convolutions (taps on padding count) and products of matrices, as ``edgekit.metrics.macs`` counts."""
    total = 0
    for node in graph.nodes:
        if node.op == "Conv":
            total += prod(graph.shapes[node.output]) * prod(graph.constants[node.inputs[1]].shape[1:])
        elif node.op in ("Gemm", "MatMul"):
            total += prod(graph.shapes[node.output]) * graph.shapes[node.inputs[0]][-1]
    return total


def graph_parameters(graph: Graph) -> int:
    """Numbers that were learnt: weights and biases, batch norms folded into them."""
    found = {
        tensor for node in graph.nodes if node.op in WEIGHTED for tensor in node.inputs[1:] if tensor in graph.constants
    }
    return sum(int(graph.constants[tensor].size) for tensor in found)
