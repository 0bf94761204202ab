"""Gives the channels of a network with plain ReLUs about one range, which int8 needs: it has one scale for all of them.

A ReLU passes any positive factor through, and so do sums, maxima, masks and concats. So a channel can be multiplied
where it is made, by the rows of convolutions, and divided where it is read, by the columns of others, whatever lies
between: the same function (after arXiv 1906.04721, section 4.1, which does it for pairs of layers). Channels that a sum
connects share a factor: all blocks of a residual stage have one for each of its channels.

What activations reach on calibration pictures decides, as in ``equalisation``, which does this for ReLU6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, read_graph
from edgekit.exporters.quantisation import real_tensors
from edgekit.exporters.ranges import Range, measure

STRENGTH = 0.5
"""Power of the ratio of ranges that becomes the factor. 1 makes the ranges equal, but then the columns of the weights
that read them differ as much as the ranges did, and a filter has one scale for all its columns."""

MOST = 64.0
"""Largest factor, up and down: nothing is gained by blowing up what is as good as never there."""

UNCHANGED = frozenset({"Relu", "Neg", "MaxPool", "AveragePool", "Resize"})
"""A factor of a channel of the input becomes a factor of the same channel of the result."""

Numbers = NDArray[np.int64]


def equalise_relus(path: Path, calibration: Calibration) -> None:
    """:func:`equalise` the ONNX graph at ``path`` in place, by what its activations reach on ``calibration``.

    Raises:
        ExportError: not a valid graph, nothing to calibrate with, or an activation is not finite.
    """
    graph = read_graph(path)
    if not any(node.op == "Relu" for node in graph.nodes):
        return
    channels = number_channels(graph)
    save_model(build_model(equalise(graph, channels, measure(path, sorted(channels.of), calibration))), path)


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Which channels must have one factor."""

    of: Mapping[str, Numbers]
    """Feature map -> the number of each of its channels' factor, [C]."""

    fixed: Numbers
    """Numbers of factors that are 1."""

    count: int


def equalise(graph: Graph, channels: Channels, ranges: Mapping[str, Range]) -> Graph:
    """``graph`` with the weights that give its channels about one range; it computes the same.

    Args:
        graph: with float weights.
        channels: of that graph.
        ranges: of each tensor in ``channels.of``.
    """
    factors = choose_factors(channels, ranges)
    constants = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        if node.output in channels.of and node.op in ("Conv", "Mul", "Add"):
            node = _scaled(graph, node, channels, factors, constants)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def choose_factors(channels: Channels, ranges: Mapping[str, Range]) -> NDArray[np.float64]:
    """One positive factor for each number."""
    reached = np.zeros(channels.count)
    for tensor, numbers in channels.of.items():
        np.maximum.at(reached, numbers, ranges[tensor].channel_sizes)
    known = reached > 0
    middle = float(np.exp(np.log(reached[known]).mean())) if known.any() else 1.0
    factors = np.ones(channels.count)
    factors[known] = np.clip((middle / reached[known]) ** STRENGTH, 1 / MOST, MOST)
    factors[channels.fixed] = 1.0
    return factors


def number_channels(graph: Graph) -> Channels:
    """Go through ``graph`` once and number the factors of its feature maps' channels."""
    return _Numbering(graph).result()


class _Numbering:
    """Numbers channels node by node; numbers that turn out to mean one factor get one root."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._masks = graph.mask_tensors()
        self._real = real_tensors(graph)
        self._multiplied = graph.mask_multiplications()
        self._parents: list[int] = []
        self._of: dict[str, Numbers] = {}
        self._fixed: list[int] = []

    def result(self) -> Channels:
        for name in self._graph.inputs:
            if name not in self._masks:
                self._start(name)
                self._fix(name)
        for node in self._graph.nodes:
            if node.output not in self._masks:
                self._number(node)
        for name in self._graph.outputs:
            self._fix(name)
        roots = np.array([self._root(number) for number in range(len(self._parents))], np.int64)
        return Channels(
            of={name: roots[numbers] for name, numbers in self._of.items()},
            fixed=roots[np.array(self._fixed, np.int64)],
            count=len(roots),
        )

    def _number(self, node: Node) -> None:
        sources = [name for name in node.inputs if name in self._of]
        if node.output in self._real:
            for name in sources:
                self._fix(name)
        elif node.name in self._multiplied or node.op in UNCHANGED:
            self._of[node.output] = self._of[sources[0]]
        elif node.op == "Concat" and len(sources) == len(node.inputs) and node.attributes["axis"] in (1, -3):
            self._of[node.output] = np.concatenate([self._of[name] for name in sources])
        elif node.op == "Add" and len(sources) == 2:
            for left, right in zip(*(self._of[name] for name in sources), strict=True):
                self._parents[self._root(int(left))] = self._root(int(right))
            self._of[node.output] = self._of[sources[0]]
        elif node.op == "Add" and _per_channel(self._graph, node) is not None:
            self._of[node.output] = self._of[sources[0]]
        elif is_free(self._graph, node):
            self._start(node.output)
        elif node.op == "ConvTranspose" and node.attributes.get("group") == self._graph.shapes[node.output][1]:
            self._of[node.output] = self._of[sources[0]]
        else:
            for name in sources:
                self._fix(name)
            if len(self._graph.shapes[node.output]) == 4:
                self._start(node.output)
                self._fix(node.output)

    def _start(self, tensor: str) -> None:
        first, count = len(self._parents), self._graph.shapes[tensor][1]
        self._parents.extend(range(first, first + count))
        self._of[tensor] = np.arange(first, first + count)

    def _fix(self, tensor: str) -> None:
        self._fixed.extend(self._of.get(tensor, ()))

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


def is_free(graph: Graph, node: Node) -> bool:
    """Whether the channels of a result can be multiplied by changing the constants of ``node``."""
    if node.op == "Conv":
        return all(name in graph.constants and len(graph.consumers(name)) == 1 for name in node.inputs[1:] if name)
    return node.op == "Mul" and _per_channel(graph, node) is not None


def _scaled(
    graph: Graph,
    node: Node,
    channels: Channels,
    factors: NDArray[np.float64],
    constants: dict[str, NDArray[Any]],
) -> Node:
    """Scale the constants of a node by what its result is multiplied by, and its operand divided."""
    made = factors[channels.of[node.output]]
    if node.op == "Conv":
        if not is_free(graph, node):
            return node
        weight = graph.constants[node.inputs[1]]  # [out, in / groups, kh, kw]
        read = 1 / factors[channels.of[node.inputs[0]]]
        grouped = read.reshape(-1, 1, weight.shape[1], 1, 1).astype(np.float32)  # [groups, 1, in / groups, 1, 1]
        scaled = weight.reshape(len(grouped), -1, *weight.shape[1:]) * grouped  # a head has 75 million: no copies
        scaled = scaled.reshape(weight.shape)
        scaled *= made.reshape(-1, 1, 1, 1).astype(np.float32)
        constants[node.inputs[1]] = scaled
        if len(node.inputs) > 2 and node.inputs[2]:
            constants[node.inputs[2]] = (graph.constants[node.inputs[2]] * made).astype(np.float32)
        return node
    known = _per_channel(graph, node)
    if known is None:
        return node
    name, values = known
    position = node.inputs.index(name)
    source = node.inputs[1 - position]
    ratio = made / factors[channels.of[source]] if node.op == "Mul" else made
    own = f"{node.name}.scaled"
    constants[own] = (values * ratio).reshape(-1, 1, 1).astype(np.float32)
    constants.pop(name, None)
    inputs = (own, source) if position == 0 else (source, own)
    return replace(node, inputs=inputs)


def _per_channel(graph: Graph, node: Node) -> tuple[str, NDArray[np.float64]] | None:
    """The constant operand of a Mul or Add, by name and as one number a channel, if there is one of that kind."""
    names = [name for name in node.inputs if name in graph.constants]
    count = graph.shapes[node.output][1]
    if len(names) != 1 or len(graph.consumers(names[0])) != 1:
        return None
    values = graph.constants[names[0]]
    if values.shape not in ((), (1,), (count, 1, 1), (1, count, 1, 1)):
        return None
    return names[0], np.broadcast_to(values.astype(np.float64).ravel(), (count,))
