"""Where each ONNX tensor goes in a sparse program, and in which kind of numbers.

As in a TFLite file, a tensor is stored once, as the kind that its operation computes in; whoever needs the other kind
gets it through one conversion. A tensor that only a concatenation reads is written straight into the wider one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from edgekit.errors import ExportError
from edgekit.exporters.onnx_graph import MASK_INPUT, Graph, Node
from edgekit.exporters.quantisation import Affine, float_tensors
from edgekit.exporters.sparse_chains import only_reader
from edgekit.exporters.sparse_nodes import refusal
from edgekit.exporters.sparse_order import shortcuts_first
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor

TO_UNSIGNED = 128
"""uint8 zero point minus int8 zero point."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What the values of a program are stored as."""

    plan: dict[str, Affine] | None
    """int8 parameters of every tensor; ``None`` for a float program."""

    keep_float: frozenset[str]
    """Convolutions that stay float32."""

    floats: frozenset[str]
    """Tensors that stay float32 in a program that has a ``plan``."""

    def of(self, tensor: str) -> DType:
        """What an ONNX tensor is stored as."""
        return DType.FLOAT32 if self.plan is None or tensor in self.floats else DType.UINT8

    def of_convolution(self, node: Node) -> DType:
        """What a convolution reads and multiplies."""
        return DType.FLOAT32 if self.plan is None or node.name in self.keep_float else DType.UINT8

    def affine(self, tensor: str) -> Affine:
        """The int8 parameters of a tensor in a program that has them."""
        assert self.plan is not None
        return self.plan[tensor]


def choose_numbers(
    graph: Graph, plan: dict[str, Affine] | None, keep_float: frozenset[str], *, float_predictions: bool
) -> Numbers:
    """As the TFLite writer chooses, and float32 for what the last convolutions predict if that is asked for."""
    floats = float_tensors(graph, keep_float)
    predictions = graph.predictions() if float_predictions else frozenset[str]()
    return Numbers(plan=plan, keep_float=keep_float, floats=floats | predictions)


class Emitter:
    """Collects levels, tensors and operations, and remembers where each ONNX tensor went."""

    def __init__(self, graph: Graph, numbers: Numbers) -> None:
        self.graph = graph
        self.numbers = numbers
        self.multiplied = graph.mask_multiplications()
        self.covered: set[str] = set()
        """Names of nodes that need no operation of their own any more."""

        self.turned: dict[str, str] = {}
        """[1, H, W, C] tensor -> the feature map that it is."""

        self.parts: dict[str, list[Part]] = {}
        """[1, A, K] tensor -> what it consists of, in order of its rows."""

        self._levels: list[Level] = []
        self._tensors: list[Tensor] = []
        self._operations: list[Operation] = []
        self._stored: dict[str, dict[DType, int]] = {}
        self._joined: dict[str, int] = {}
        """Result of a concatenation -> the tensor that its parts are written into."""

        self._in_place: set[tuple[str, str]] = set()
        """(result of a concatenation, part) that some operation has written."""

    def tensor(self, index: int) -> Tensor:
        """A tensor of the program."""
        return self._tensors[index]

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of a tensor."""
        level = self._levels[self._tensors[index].level]
        return level.rows, level.columns

    def operation(self, kind: Kind, *, low: float = -inf, high: float = inf, **fields: Any) -> None:
        """Add an operation; ``low`` and ``high`` are real numbers, whatever its output is stored as."""
        if kind is not Kind.OUTPUT:
            low, high = self._clamp(self._tensors[fields["output"]], low, high)
        self._operations.append(Operation(kind=kind, low=low, high=high, **fields))

    def _clamp(self, target: Tensor, low: float, high: float) -> tuple[float, float]:
        if target.dtype is DType.FLOAT32:
            return low, high
        return _quantised(target, low), _quantised(target, high)

    def place(self, name: str, dtype: DType) -> tuple[int, int]:
        """(tensor, first channel) for the result of an operation that is about to be added."""
        link = only_reader(self.graph, name, self.multiplied)
        if link is not None and self._joins(link.reader, link.tensor, dtype):
            self.covered |= set(link.masks)
            self._in_place.add((link.reader.output, link.tensor))
            return self._concatenated(link.reader), self._first_channel(link.reader, link.tensor)
        return self.new(name, dtype), 0

    def new(self, name: str, dtype: DType) -> int:
        """A tensor of the ONNX tensor's own."""
        index = self._add(name, dtype)
        self._stored.setdefault(name, {})[dtype] = index
        return index

    def between(self, name: str, dtype: DType, *, rows: int, columns: int) -> int:
        """A tensor as ``name`` at another resolution, for a step on the way to it."""
        return self._add(name, dtype, (rows, columns))

    def read(self, name: str, dtype: DType, node: Node) -> int:
        """The tensor as ``dtype``, converted once if it is stored as the other."""
        stored = self._versions(name, node)
        if dtype not in stored:
            source = self.stored(name, node)
            stored[dtype] = self._add(name, dtype)
            self.operation(self._conversion(dtype), input=source, output=stored[dtype])
        return stored[dtype]

    def stored(self, name: str, node: Node) -> int:
        """The tensor as it was written first."""
        return next(iter(self._versions(name, node).values()))

    def alias(self, name: str, source: str, node: Node) -> None:
        """``name`` is stored where ``source`` is."""
        self._stored[name] = self._versions(source, node)

    def concatenate(self, node: Node) -> None:
        """Write what is missing of a concatenation of channels."""
        target = self._concatenated(node)
        dtype = self._tensors[target].dtype
        first = 0
        for name in node.inputs:
            if (node.output, name) not in self._in_place:
                stored = self._versions(name, node)
                fields = {"output": target, "channel_offset": first}
                if dtype in stored:
                    self._copy(stored[dtype], **fields)
                else:
                    self.operation(self._conversion(dtype), input=self.stored(name, node), **fields)
            first += self.graph.shapes[name][1]
        self._stored[node.output] = {dtype: target}

    def _copy(self, source: int, *, output: int, channel_offset: int) -> None:
        """A tensor into channels of another of its type, at the other's scale."""
        old, new = self._tensors[source], self._tensors[output]
        fields = {"input": source, "output": output, "channel_offset": channel_offset}
        if (old.scale, old.zero_point) == (new.scale, new.zero_point):
            self.operation(Kind.UPSAMPLE, stride=1, **fields)
        else:
            self.operation(Kind.AVGPOOL, first_scale=old.scale / new.scale, **fields)  # the mean of one site

    def finish(self) -> Program:
        """The program, with an OUTPUT operation for each part of each of the graph's outputs."""
        outputs = []
        for number, name in enumerate(self.graph.outputs):
            parts, row = self.parts.get(name) or [self._whole_map(name)], 0
            for part in parts:
                source = next(iter(self._stored[part.feature].values()))
                self.operation(Kind.OUTPUT, input=source, output=number, row_offset=row, anchors=part.anchors)
                level = self._levels[self._tensors[source].level]
                row += level.rows * level.columns * part.anchors
            outputs.append(Output(name=name, rows=row, columns=parts[0].columns))
        mask_rows, mask_columns = self.graph.shapes[MASK_INPUT][2:] if MASK_INPUT in self.graph.inputs else (0, 0)
        return Program(
            mask_rows=mask_rows,
            mask_columns=mask_columns,
            levels=tuple(self._levels),
            tensors=tuple(self._tensors),
            operations=shortcuts_first(self._operations),
            outputs=tuple(outputs),
        )

    def _whole_map(self, name: str) -> Part:
        """A feature map [1, C, H, W] as an output: rows are its sites."""
        if name not in self._stored:
            raise ExportError(f"the output {name!r}: expected predictions [1, A, K] or a feature map [1, C, H, W]")
        return Part(feature=name, anchors=1, columns=self.graph.shapes[name][1])

    def _joins(self, reader: Node, name: str, dtype: DType) -> bool:
        return (
            reader.op == "Concat"
            and len(self.graph.shapes[reader.output]) == 4
            and reader.attributes["axis"] in (1, -3)
            and self.numbers.of(reader.output) is dtype
            and (dtype is DType.FLOAT32 or self.numbers.affine(reader.output) == self.numbers.affine(name))
        )

    def _concatenated(self, node: Node) -> int:
        if node.output not in self._joined:
            self._joined[node.output] = self._add(node.output, self.numbers.of(node.output))
        return self._joined[node.output]

    def _first_channel(self, node: Node, name: str) -> int:
        before = node.inputs[: node.inputs.index(name)]
        return sum(self.graph.shapes[tensor][1] for tensor in before)

    def _conversion(self, dtype: DType) -> Kind:
        return Kind.QUANTISE if dtype is DType.UINT8 else Kind.DEQUANTISE

    def _versions(self, name: str, node: Node) -> dict[DType, int]:
        if name not in self._stored:
            raise refusal(node, "feature maps [1, C, H, W]", repr(name))
        return self._stored[name]

    def _add(self, name: str, dtype: DType, size: tuple[int, int] | None = None) -> int:
        _, channels, *own = self.graph.shapes[name]
        rows, columns = size or own
        level = Level(rows=rows, columns=columns, masked=MASK_INPUT in self.graph.inputs)
        if level not in self._levels:
            self._levels.append(level)
        tensor = Tensor(level=self._levels.index(level), channels=channels)
        if dtype is DType.UINT8:
            affine = self.numbers.affine(name)
            tensor = replace(tensor, dtype=dtype, scale=affine.scale, zero_point=affine.zero_point + TO_UNSIGNED)
        self._tensors.append(tensor)
        return len(self._tensors) - 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """A feature map [1, anchors * columns, H, W] as rows of an output."""

    feature: str
    anchors: int
    columns: int
    """Numbers an anchor."""


def _quantised(target: Tensor, bound: float) -> float:
    """A real number as a uint8 tensor stores it, or the nearest that it can store."""
    return float(np.clip(np.rint(bound / target.scale) + target.zero_point, 0, 255))
