"""The five nodes that PyTorch writes for a GELU (arXiv 1606.08415), as one, for engines that have no erf.

x / sqrt(2) -> erf -> + 1 -> * x -> / 2
"""

from __future__ import annotations

from dataclasses import replace

from edgekit.exporters.onnx_graph import Graph, Node

GELU = "Gelu"
"""The operation that ONNX has for it since opset 20."""


def join_gelus(graph: Graph) -> Graph:
    """``graph`` with every chain that is a GELU replaced by a node ``Gelu``; an Erf elsewhere stays."""
    makers = {node.output: node for node in graph.nodes}
    joined: dict[str, Node] = {}
    gone: set[str] = set()
    for erf in (node for node in graph.nodes if node.op == "Erf"):
        chain = _chain(graph, makers, erf)
        if chain is not None:
            last = chain[-1]
            joined[last.name] = replace(last, op=GELU, inputs=chain[0].inputs[:1], attributes={})
            gone |= {node.name for node in chain[:-1]}
    if not joined:
        return graph
    return replace(graph, nodes=tuple(joined.get(node.name, node) for node in graph.nodes if node.name not in gone))


def _chain(graph: Graph, makers: dict[str, Node], erf: Node) -> list[Node] | None:
    divide = makers.get(erf.inputs[0])
    if divide is None or divide.op != "Div":
        return None
    chain = [divide, erf]
    for op in ("Add", "Mul", "Mul"):
        readers = graph.consumers(chain[-1].output)
        if len(readers) != 1 or readers[0].op != op:
            return None
        chain.append(readers[0])
    shift, product, half = chain[2:]
    numbers = [_number(graph, divide), _number(graph, shift), _number(graph, half)]
    if numbers != [1.41421, 1.0, 0.5] or divide.inputs[0] not in product.inputs:
        return None
    return chain


def _number(graph: Graph, node: Node) -> float | None:
    """The constant of a node that combines it with a tensor, to five places."""
    values = [graph.constants[tensor] for tensor in node.inputs if tensor in graph.constants]
    return round(float(values[0].reshape(())), 5) if len(values) == 1 and values[0].size == 1 else None
