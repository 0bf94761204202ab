"""Where each ONNX tensor goes in a TFLite file, in which layout and in which kind of numbers.

TFLite keeps feature maps as [N, H, W, C], so every 4-D tensor changes its order. In an int8 file a tensor is stored
once, as the kind that its operation computes in; whoever needs the other kind gets it through one conversion.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.onnx_graph import Graph, Node
from edgekit.exporters.onnx_places import integer_tensors
from edgekit.exporters.quantisation import Affine, float_tensors, quantise_convolution
from edgekit.exporters.tflite_writer import DType, Quantisation, TfliteWriter

Kind = Literal["FLOAT32", "INT8", "INT32"]
"""What an activation is stored as."""

INT8_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,  # per-channel weights
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "MAX_POOL_2D": 2,
    "MUL": 3,  # input scales over output scale >= 1: the mask multiplies by exactly 1
    "PAD": 2,
    "PADV2": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
}
"""Operator versions for int8, where they differ from 1 (op_version.cc)."""


class Emitter:
    """Writes operators and remembers where each ONNX tensor went.

    Args:
        graph: what is converted.
        half_weights: store float weights in half precision.
        plan: int8 parameters of every tensor, or ``None`` for a float graph.
        keep_float: convolutions that stay float32 in an int8 graph.
    """

    def __init__(
        self, graph: Graph, *, half_weights: bool, plan: dict[str, Affine] | None, keep_float: frozenset[str]
    ) -> None:
        self.graph = graph
        self.writer = TfliteWriter()
        self.masks = graph.mask_tensors()
        self.mask_multiplications = graph.mask_multiplications()
        self.channels_last: set[str] = set()
        """ONNX tensors that are [N, H, W, C] already in ONNX, so stored as they are."""

        self._half_weights = half_weights
        self._plan = plan
        self._floats = float_tensors(graph, keep_float)
        self._integers = integer_tensors(graph)
        self._indices: dict[tuple[str, Kind], int] = {}
        self._constants: dict[tuple[str, tuple[int, ...]], int] = {}

    def kind(self, tensor: str) -> Kind:
        """What the ONNX tensor is stored as; indices are integers in every file."""
        if tensor in self._integers:
            return "INT32"
        return "FLOAT32" if self._plan is None or tensor in self._floats else "INT8"

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The stored shape: [N, H, W, C] for a feature map."""
        shape = self.graph.shapes[tensor]
        if len(shape) != 4 or tensor in self.channels_last:
            return shape
        return shape[0], shape[2], shape[3], shape[1]

    def result(self, tensor: str) -> int:
        """A new stored tensor for the ONNX tensor, whose operator is about to be written."""
        index = self._new(tensor, tensor, self.kind(tensor))
        self._indices[tensor, self.kind(tensor)] = index
        return index

    def read(self, tensor: str, kind: Kind) -> int:
        """The stored tensor as ``kind``, converted once if it is stored as the other."""
        if (tensor, kind) not in self._indices:
            source = self.stored(tensor)
            index = self._new(f"{tensor}.{kind.lower()}", tensor, kind)
            self.operator("QUANTIZE" if kind == "INT8" else "DEQUANTIZE", self.kind(tensor), [source], index)
            self._indices[tensor, kind] = index
        return self._indices[tensor, kind]

    def read_as(self, tensor: str, kind: Kind, other: str) -> int:
        """The stored tensor as ``kind``, in int8 with the parameters of the tensor ``other``."""
        source = self.read(tensor, kind)
        if kind == "FLOAT32" or self.affine(tensor) == self.affine(other):
            return source
        quantisation = self.quantisation(other, kind)
        index = self.writer.tensor(f"{tensor}.in.{other}", self.shape(tensor), kind, quantisation=quantisation)
        self.writer.operator("QUANTIZE", [source], [index], version=2)  # 2: reads int8
        return index

    def stored(self, tensor: str) -> int:
        """The stored tensor as it was written."""
        return self._indices[tensor, self.kind(tensor)]

    def alias(self, tensor: str, source: str) -> None:
        """``tensor`` is stored where ``source`` is."""
        self._indices[tensor, self.kind(tensor)] = self.read(source, self.kind(tensor))

    def padded(self, node: Node, kind: Kind, amounts: tuple[int, int, int, int], *, lowest: bool = False) -> int:
        """A node's input with ``amounts`` of zeros at its top, left, bottom, right; 0 is exact in int8.

        With ``lowest`` of the lowest number there is, for the maximum of a pool.
        """
        tensor = node.inputs[0]
        top, left, bottom, right = amounts
        rows, columns = self.shape(tensor)[1:3]
        shape = (1, rows + top + bottom, columns + left + right, self.shape(tensor)[3])
        pads = [[0, 0], [top, bottom], [left, right], [0, 0]]
        stored = self.writer.tensor(f"{node.name}.pads", (4, 2), "INT32", data=np.array(pads, np.int32))
        index = self.writer.tensor(f"{node.name}.padded", shape, kind, quantisation=self.quantisation(tensor, kind))
        inputs = [self.read(tensor, kind), stored]
        if lowest:
            value = np.array([-128], np.int8) if kind == "INT8" else np.array([np.finfo(np.float32).min], np.float32)
            parameters = self.quantisation(tensor, kind)
            inputs.append(self.writer.tensor(f"{node.name}.low", (1,), kind, data=value, quantisation=parameters))
        self.operator("PADV2" if lowest else "PAD", kind, inputs, index, options=f"Pad{'V2' * lowest}Options")
        return index

    def quantisation(self, tensor: str, kind: Kind) -> Quantisation | None:
        """The tensor's parameters when stored as ``kind``."""
        if kind != "INT8":
            return None
        affine = self.affine(tensor)
        return Quantisation([affine.scale], [affine.zero_point])

    def affine(self, tensor: str) -> Affine:
        """The tensor's int8 parameters."""
        assert self._plan is not None
        return self._plan[tensor]

    def operator(
        self,
        code: str,
        kind: Kind,
        inputs: list[int],
        output: int,
        *,
        options: str | None = None,
        **fields: float | list[int],
    ) -> None:
        """Add an operator in the version that ``kind`` needs."""
        version = INT8_VERSIONS.get(code, 1) if kind == "INT8" or code == "DEQUANTIZE" else 1
        self.writer.operator(code, inputs, [output], version=version, options=options, **fields)

    def convolution_constants(self, node: Node, kind: Kind, *, depthwise: bool) -> list[int]:
        """Indices of weight ([out, kh, kw, in], or [1, kh, kw, out] for depthwise) and bias [out]."""
        weight = self.graph.constants[node.inputs[1]]
        has_bias = len(node.inputs) > 2 and node.inputs[2] != ""
        bias = self.graph.constants[node.inputs[2]] if has_bias else np.zeros(len(weight), np.float32)
        order, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
        names = f"{node.name}.weight", f"{node.name}.bias"
        if kind == "FLOAT32":
            stored = self.float_weight(names[0], weight.transpose(order).astype(np.float32))
            return [stored, self.writer.tensor(names[1], bias.shape, "FLOAT32", data=bias.astype(np.float32))]
        integers = quantise_convolution(weight, bias, self.affine(node.inputs[0]).scale)
        values, zeros = integers.weight.transpose(order), [0] * len(bias)
        return [
            self.writer.tensor(
                names[0],
                values.shape,
                "INT8",
                data=values,
                quantisation=Quantisation(integers.weight_scales, zeros, axis),
            ),
            self.writer.tensor(
                names[1],
                bias.shape,
                "INT32",
                data=integers.bias,
                quantisation=Quantisation(integers.bias_scales, zeros),
            ),
        ]

    def float_weight(self, name: str, values: NDArray[np.float32]) -> int:
        """A constant in float32, stored in half precision where that is wanted."""
        if not self._half_weights:
            return self.writer.tensor(name, values.shape, "FLOAT32", data=values)
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ExportError(f"{name!r} holds values that float16 cannot (over 65504); export it as fp32")
        half = self.writer.tensor(f"{name}.half", values.shape, "FLOAT16", data=values.astype(np.float16))
        index = self.writer.tensor(name, values.shape, "FLOAT32")
        self.writer.operator("DEQUANTIZE", [half], [index], version=3)  # 3: reads float16
        return index

    def constant(self, tensor: str, values: NDArray[Any], dtype: DType) -> int:
        """The ONNX constant ``tensor``, whose ``values`` are in the order that they are stored in; written once."""
        key = tensor, values.shape
        if key not in self._constants:
            self._constants[key] = self.writer.tensor(tensor, values.shape, dtype, data=values)
        return self._constants[key]

    def _new(self, name: str, tensor: str, kind: Kind) -> int:
        return self.writer.tensor(name, self.shape(tensor), kind, quantisation=self.quantisation(tensor, kind))
