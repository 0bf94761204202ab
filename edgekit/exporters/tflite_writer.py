"""The TFLite file format: tensors, operators and one signature, packed into a flatbuffer.

The schema is TensorFlow's ``schema.fbs`` (version 3); ai-edge-litert ships its generated Python classes, so neither
TensorFlow nor its converter is needed. Operators carry the version that the reader's kernels ask for
(tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc), which is what old runtimes check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekit.exporters.dependencies import load

DType = Literal["FLOAT32", "FLOAT16", "INT8", "INT32", "UINT8"]
"""Names in the schema's ``TensorType``."""

FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Bytes; schema.fbs demands it of constant data, which kernels read in place."""

PURPOSE = "write TFLite files"


@dataclass(frozen=True)
class Quantisation:
    """real = scale * (stored - zero_point), per tensor or per slice along ``axis``."""

    scales: Sequence[float] | NDArray[np.float32]
    zero_points: Sequence[int]
    axis: int = 0


class TfliteWriter:
    """Collects one subgraph; tensors and constants are referred to by the index that :meth:`tensor` returns."""

    def __init__(self) -> None:
        self._schema = load("ai_edge_litert.schema_py_generated", package="ai-edge-litert", purpose=PURPOSE)
        self._flatbuffers = load("flatbuffers", package="flatbuffers", purpose=PURPOSE)
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int, str | None], int] = {}
        self._buffers: list[Any] = [self._schema.BufferT()]  # buffer 0 is the empty one of all activations

    @property
    def types(self) -> Any:
        """The schema's ``TensorType``."""
        return self._schema.TensorType

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DType,
        *,
        data: ArrayLike | None = None,
        quantisation: Quantisation | None = None,
    ) -> int:
        """Add a tensor, a constant if ``data`` is given, and return its index."""
        tensor = self._schema.TensorT()
        tensor.name = name
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = getattr(self._schema.TensorType, dtype)
        tensor.buffer = 0 if data is None else self._buffer(np.asarray(data))
        if quantisation is not None:
            parameters = self._schema.QuantizationParametersT()
            parameters.scale = np.asarray(quantisation.scales, np.float32)
            parameters.zeroPoint = np.asarray(quantisation.zero_points, np.int64)
            parameters.quantizedDimension = quantisation.axis
            tensor.quantization = parameters
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        options: str | None = None,
        **fields: float | Sequence[int],
    ) -> None:
        """Add an operator; ``code`` is a ``BuiltinOperator``, ``options`` one of ``BuiltinOptions`` with ``fields``."""
        operator = self._operator((code, version, None), inputs, outputs)
        if options is not None:
            table = getattr(self._schema, f"{options}T")()
            for field, value in fields.items():
                if not hasattr(table, field):
                    raise AttributeError(f"{options} of the TFLite schema has no field {field!r}")
                setattr(table, field, value if isinstance(value, int | float) else np.asarray(value, np.int32))
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = table

    def custom_operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: bytes) -> None:
        """Add an operator that the reader must get from elsewhere, with ``options`` that only it understands."""
        operator = self._operator(("CUSTOM", 1, name), inputs, outputs)
        operator.customOptions = np.frombuffer(options, np.uint8)

    def finish(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file: tensor indices of the public inputs and outputs by name, which a signature carries too."""
        schema = self._schema
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs = np.asarray(list(inputs.values()), np.int32)
        subgraph.outputs = np.asarray(list(outputs.values()), np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [self._named(name, index) for name, index in inputs.items()]
        signature.outputs = [self._named(name, index) for name, index in outputs.items()]
        model = schema.ModelT()
        model.version, model.description = 3, "edgekit"
        model.operatorCodes = [self._operator_code(*code) for code in self._codes]
        model.subgraphs, model.buffers, model.signatureDefs = [subgraph], self._buffers, [signature]
        builder = _aligned_builder(self._flatbuffers)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _buffer(self, data: NDArray[Any]) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _operator(self, code: tuple[str, int, str | None], inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray(outputs, np.int32)
        self._operators.append(operator)
        return operator

    def _operator_code(self, code: str, version: int, custom: str | None) -> Any:
        entry = self._schema.OperatorCodeT()
        entry.builtinCode = getattr(self._schema.BuiltinOperator, code)
        entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)  # what readers before 2020 look at
        entry.version = version
        entry.customCode = custom
        return entry

    def _named(self, name: str, index: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        return entry


def _aligned_builder(flatbuffers: Any) -> Any:
    """A flatbuffer builder that aligns byte vectors; the generated Python code ignores schema.fbs's force_align."""

    class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803
            return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)

    return AlignedBuilder(1 << 20)
