"""What a sparse program computes at once: a convolution or sum, and what is done to its result before it is stored.

* Conv, ConvTranspose or Add, then ReLU6 or ReLU.
* Conv, then Add of a residual (then ReLU6 or ReLU).
* Conv, then C.ReLU (arXiv 1603.05201): concat with the negative, channel-wise factors and shifts, ReLU6 or ReLU.

Between them may stand multiplications by the mask, which change nothing at active sites. Nothing else may read what is
in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.onnx_graph import Graph, Node, relu_bound
from edgekit.exporters.sparse_nodes import refusal

ROOTS = frozenset({"Conv", "ConvTranspose", "Add"})


@dataclass(frozen=True, kw_only=True)
class CRelu:
    """Channel j of 2 K is ``factors[j] * convolution[j % K] + shifts[j]``."""

    factors: NDArray[np.float64]
    shifts: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One operation of the program."""

    root: Node
    place: str
    """The node at whose place it is computed: all its inputs exist there."""

    nodes: frozenset[str]
    """All nodes that it stands for."""

    output: str
    """The tensor that the last of them makes."""

    residual: str | None = None
    crelu: CRelu | None = None
    low: float = -inf
    high: float = inf


def find_chains(graph: Graph, fuses_residual: Callable[[Node, Node], bool]) -> tuple[Chain, ...]:
    """Every Conv, ConvTranspose and Add of a graph, with what can be computed along.

    Args:
        graph: what is lowered.
        fuses_residual: whether the kinds of numbers allow that a Conv and an Add become one.
    """
    finder = _Finder(graph, fuses_residual)
    chains = [finder.chain(node) for node in graph.nodes if node.op in ROOTS and node.op != "Add"]
    fused = {name for chain in chains for name in chain.nodes}
    chains += [finder.chain(node) for node in graph.nodes if node.op == "Add" and node.name not in fused]
    return tuple(chains)


@dataclass(frozen=True)
class _Link:
    """The only reader of a tensor."""

    reader: Node
    tensor: str
    """What it reads: the tensor itself, or that times the mask."""

    masks: tuple[str, ...]
    """The multiplications by the mask on the way."""


def only_reader(graph: Graph, tensor: str, multiplied: dict[str, str]) -> _Link | None:
    """Who alone reads ``tensor``, looking through multiplications by the mask (``Graph.mask_multiplications``)."""
    masks: list[str] = []
    while True:
        readers = graph.consumers(tensor)
        if len(readers) != 1 or tensor in graph.outputs or readers[0].inputs.count(tensor) != 1:
            return None
        if multiplied.get(readers[0].name) != tensor:
            return _Link(readers[0], tensor, tuple(masks))
        masks.append(readers[0].name)
        tensor = readers[0].output


@dataclass(frozen=True, kw_only=True)
class _Halves:
    """x and -x behind each other."""

    output: str
    positive_first: bool
    nodes: frozenset[str]


class _Finder:
    """Walks from each root along its only readers."""

    def __init__(self, graph: Graph, fuses_residual: Callable[[Node, Node], bool]) -> None:
        self._graph = graph
        self._fuses_residual = fuses_residual
        self._multiplied = graph.mask_multiplications()
        self._taken: set[str] = set()

    def chain(self, root: Node) -> Chain:
        chain = Chain(root=root, place=root.name, nodes=frozenset({root.name}), output=root.output)
        if root.op == "Conv":
            crelu = self._with_crelu(chain)
            if crelu is not None:
                return crelu
            chain = self._with_residual(chain)
        return self._with_activation(chain)

    def _next(self, tensor: str) -> _Link | None:
        return only_reader(self._graph, tensor, self._multiplied)

    def _with_residual(self, chain: Chain) -> Chain:
        link = self._next(chain.output)
        if link is None or link.reader.op != "Add" or link.reader.name in self._taken:
            return chain
        add, shapes = link.reader, self._graph.shapes
        other = add.inputs[1] if add.inputs[0] == link.tensor else add.inputs[0]
        if shapes.get(other) != shapes[link.tensor] or not self._fuses_residual(chain.root, add):
            return chain
        self._taken.add(add.name)
        nodes = chain.nodes | {add.name, *link.masks}
        return replace(chain, place=add.name, nodes=nodes, output=add.output, residual=other)

    def _with_activation(self, chain: Chain) -> Chain:
        link = self._next(chain.output)
        high = None if link is None else relu_bound(self._graph, link.reader)
        if link is None or high is None:
            return chain
        nodes = chain.nodes | {link.reader.name, *link.masks}
        return replace(chain, nodes=nodes, output=link.reader.output, low=0.0, high=high)

    def _with_crelu(self, chain: Chain) -> Chain | None:
        halves = self._halves(chain)
        if halves is None:
            return None
        channels = self._graph.shapes[halves.output][1]
        factors, shifts = np.repeat([1.0, -1.0], channels // 2), np.zeros(channels)
        if not halves.positive_first:
            factors = -factors
        nodes, tensor = chain.nodes | halves.nodes, halves.output
        while (link := self._next(tensor)) is not None and link.reader.op in ("Mul", "Add"):
            values = self._per_channel(link.reader, link.tensor, channels)
            if values is None:
                return None
            if link.reader.op == "Mul":
                factors, shifts = factors * values, shifts * values
            else:
                shifts = shifts + values
            nodes, tensor = nodes | {link.reader.name, *link.masks}, link.reader.output
        if not factors.all():
            raise refusal(chain.root, "a C.ReLU whose factors are not 0", "0 for a channel")
        crelu = CRelu(factors=factors, shifts=shifts)
        scaled = replace(chain, nodes=nodes, output=tensor, crelu=crelu)
        done = self._with_activation(scaled)
        return done if done is not scaled else None

    def _halves(self, chain: Chain) -> _Halves | None:
        """The concat of a convolution's result and its negative."""
        tensor, masks = chain.output, []
        readers = self._graph.consumers(tensor)
        if len(readers) == 1 and self._multiplied.get(readers[0].name) == tensor and tensor not in self._graph.outputs:
            masks.append(readers[0].name)
            tensor = readers[0].output
            readers = self._graph.consumers(tensor)
        if {node.op for node in readers} != {"Neg", "Concat"} or len(readers) != 2 or tensor in self._graph.outputs:
            return None
        negative = next(node for node in readers if node.op == "Neg")
        link = self._next(negative.output)
        if (
            link is None
            or link.reader not in readers
            or link.reader.attributes.get("axis") not in (1, -3)
            or link.masks
        ):
            return None
        concat = link.reader
        if sorted(concat.inputs) != sorted((tensor, negative.output)):
            return None
        return _Halves(
            output=concat.output,
            positive_first=concat.inputs[0] == tensor,
            nodes=frozenset({negative.name, concat.name, *masks}),
        )

    def _per_channel(self, node: Node, tensor: str, channels: int) -> NDArray[np.float64] | None:
        """The constant of a Mul or Add as one number a channel, if it is that."""
        other = node.inputs[1] if node.inputs[0] == tensor else node.inputs[0]
        values = self._graph.constants.get(other)
        if values is None or values.shape not in ((), (1,), (channels, 1, 1), (1, channels, 1, 1), (1, 1, 1, 1)):
            return None
        return np.broadcast_to(values.astype(np.float64).ravel(), (channels,))
