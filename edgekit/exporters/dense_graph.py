"""A graph in operations that every dense engine has good kernels for, in integers too.

Two things in PVANet are rewritten; each computes what it did, up to the order of sums:

* C.ReLU (arXiv 1603.05201) becomes one convolution with twice the filters, with the factors of both signs. Engines
  have no kernel for the negative, the concat and the factors together: one by one they are six passes over the largest
  maps of the network, and in int8 six roundings.
* Transposed convolution that doubles a map by bilinear interpolation becomes repetition and a depthwise 3x3 convolution
  of (1 2 1) x (1 2 1) / 16. It sees zeros outside the map, as the transposed convolution does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, read_graph
from edgekit.exporters.sparse_chains import Chain, find_chains
from edgekit.exporters.sparse_nodes import constant_bias, constant_weights

LINE = np.array([0.25, 0.75, 0.75, 0.25])
"""One side of the kernel that interpolates between the centres of cells: what is half a cell away counts .75."""

REPEATED_LINE = np.array([0.25, 0.5, 0.25])
"""The same over a map in which every value is there twice."""


@contextmanager
def dense_copy(path: Path) -> Iterator[Path]:
    """``path``, or a temporary file with :func:`dense` of it where that is another graph.

    Raises:
        ExportError: no valid graph.
    """
    graph = read_graph(path)
    rewritten = dense(graph)
    if rewritten is graph:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgekit-dense-") as folder:
        copy = Path(folder) / path.name
        save_model(build_model(rewritten), copy)
        yield copy


def dense(graph: Graph) -> Graph:
    """``graph`` rewritten, or ``graph`` itself where nothing is to be done; convolutions keep their names."""
    multiplied = graph.mask_multiplications()
    chains = find_chains(graph, lambda *_: False)
    doubled = {
        chain.root.name: chain
        for chain in chains
        if chain.crelu is not None and multiplied.keys().isdisjoint(chain.nodes)
    }
    constants = dict(graph.constants)
    shapes = dict(graph.shapes)
    nodes: list[Node] = []
    gone: set[str] = set()
    for node in graph.nodes:
        if node.name in gone:
            continue
        if node.name in doubled:
            chain = doubled[node.name]
            activation = _last(graph, chain)
            gone |= chain.nodes - {activation.name}
            nodes.append(_both_signs(graph, chain, activation.inputs[0], constants))
        elif node.op == "ConvTranspose" and _doubles_bilinearly(graph, node):
            nodes += _repeat_and_smooth(graph, node, constants, shapes)
        else:
            nodes.append(node)
    if [node.name for node in nodes] == [node.name for node in graph.nodes]:
        return graph
    used = {tensor for node in nodes for tensor in node.inputs}
    return replace(
        graph,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
        shapes=shapes,
    )


def _last(graph: Graph, chain: Chain) -> Node:
    """The activation of a C.ReLU."""
    return next(node for node in graph.nodes if node.output == chain.output)


def _both_signs(graph: Graph, chain: Chain, output: str, constants: dict[str, NDArray[Any]]) -> Node:
    """The convolution that gives what the activation of a C.ReLU reads; its weights go to ``constants``."""
    assert chain.crelu is not None
    node, factors = chain.root, chain.crelu.factors
    weights = constant_weights(graph, node).astype(np.float64)
    bias = constant_bias(graph, node, len(weights)).astype(np.float64)
    names = f"{node.name}.both_weights", f"{node.name}.both_biases"
    both = np.concatenate([weights, weights]) * factors.reshape(-1, 1, 1, 1)
    constants[names[0]] = both.astype(np.float32)
    constants[names[1]] = (np.tile(bias, 2) * factors + chain.crelu.shifts).astype(np.float32)
    return replace(node, inputs=(node.inputs[0], *names), output=output)


def _doubles_bilinearly(graph: Graph, node: Node) -> bool:
    """Whether a ConvTranspose interpolates each channel by itself, to twice the rows and columns."""
    weights = graph.constants.get(node.inputs[1])
    if weights is None or weights.shape[1:] != (1, 4, 4) or len(node.inputs) > 2:
        return False
    wanted = {"group": len(weights), "strides": [2, 2], "pads": [1, 1, 1, 1]}
    others = {"dilations": [1, 1], "kernel_shape": [4, 4], "output_padding": [0, 0], "auto_pad": b"NOTSET"}
    found = dict(node.attributes)
    return (
        all(found.pop(name, None) == value for name, value in wanted.items())
        and all(others.get(name) == value for name, value in found.items())
        and bool((weights == np.outer(LINE, LINE).astype(weights.dtype)).all())
    )


def _repeat_and_smooth(
    graph: Graph, node: Node, constants: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]
) -> tuple[Node, Node]:
    """Resize and depthwise convolution; the latter has the name and the output of ``node``."""
    source, channels = node.inputs[0], graph.shapes[node.inputs[0]][1]
    repeated, scales, weights = (f"{node.name}.{part}" for part in ("repeated", "scales", "smoothing"))
    constants[scales] = np.array([1, 1, 2, 2], np.float32)
    kernel = np.outer(REPEATED_LINE, REPEATED_LINE).astype(np.float32)
    constants[weights] = np.ascontiguousarray(np.broadcast_to(kernel, (channels, 1, 3, 3)))
    shapes[repeated] = graph.shapes[node.output]
    nearest = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": channels}
    return (
        Node(name=repeated, op="Resize", inputs=(source, "", scales), output=repeated, attributes=nearest),
        Node(name=node.name, op="Conv", inputs=(repeated, weights), output=node.output, attributes=window),
    )
