"""Which numbers of a graph say where something lies, and so need more than the 11 bits of float16.

Whatever becomes an integer (the cell that a transformer looks at), back to the matrix products that it comes from, and
forward to the next ones: what lies between two cells, the boxes, their sines.
"""

from __future__ import annotations

from edgekit.exporters.onnx_graph import Graph

INTEGERS = frozenset({6, 7})
"""int32 and int64, as ``onnx.TensorProto`` numbers them."""

VALUE_BY_VALUE = frozenset(
    {"Abs", "Add", "Clip", "Concat", "Div", "Floor", "Min", "Mul", "Relu", "Sigmoid", "Sin", "Sub"}
)
MOVES = frozenset({"Gather", "Reshape", "Slice", "Unsqueeze"})
"""The first input holds the values, the others say which."""


def place_tensors(graph: Graph) -> frozenset[str]:
    """The results of nodes that compute with places; none in a graph without a Cast to integers."""
    makers = {node.output: node for node in graph.nodes}
    found: set[str] = set()
    waiting = [node.inputs[0] for node in graph.nodes if node.op == "Cast" and node.attributes.get("to") in INTEGERS]
    while waiting:
        tensor = waiting.pop()
        node = makers.get(tensor)
        if node is not None and tensor not in found and node.op in VALUE_BY_VALUE | MOVES:
            found.add(tensor)
            waiting += node.inputs if node.op in VALUE_BY_VALUE else node.inputs[:1]
    for node in graph.nodes:
        sources = node.inputs if node.op in VALUE_BY_VALUE else node.inputs[:1] if node.op in MOVES else ()
        if found & set(sources):
            found.add(node.output)
    return frozenset(found)


def integer_tensors(graph: Graph) -> frozenset[str]:
    """Results of nodes that compute with integers: casts to them, indices of the best, and what is made of either."""
    found: set[str] = set()
    for node in graph.nodes:
        whole = node.op == "TopK" or (node.op == "Cast" and node.attributes["to"] in INTEGERS)
        if whole or (node.op in VALUE_BY_VALUE | MOVES and node.inputs[0] in found):
            found.add(node.output)
    return frozenset(found)
