"""Handlers (see ``tflite_ops``) for what transformers compute with: rows of tokens and places, float32 and int32.

What has four dimensions here keeps its order: a picture that is normalised, and maps that are normed channels-last.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.onnx_graph import Node
from edgekit.exporters.tflite_emitter import Emitter

NO_ACTIVATION, RELU = 0, 1
"""Values of the schema's ``ActivationFunctionType``."""

BINARY = {"Add": "ADD", "Div": "DIV", "Min": "MINIMUM", "Mul": "MUL", "Sub": "SUB"}
OPTIONS = {"ADD": "AddOptions", "DIV": "DivOptions", "MUL": "MulOptions", "SUB": "SubOptions"}
"""Of the operators that can end in an activation."""

UNARY = {"Abs": "ABS", "Floor": "FLOOR", "Gelu": "GELU", "Sigmoid": "LOGISTIC", "Sin": "SIN", "Sqrt": "SQRT"}


def is_binary_of_tokens(emitter: Emitter, node: Node) -> bool:
    """Whether an Add or Mul is none of feature maps, or of one and its mask."""
    if any(tensor in emitter.graph.constants for tensor in node.inputs):
        return True
    return any(len(emitter.graph.shapes[tensor]) != 4 for tensor in node.inputs)


def binary(emitter: Emitter, node: Node, output: str) -> None:
    """Add, Div, Min, Mul or Sub of two tensors, or a tensor and a constant, that broadcast."""
    _plain(node)
    code = BINARY[node.op]
    rank = len(emitter.graph.shapes[node.output])
    inputs = [_operand(emitter, tensor, rank=rank) for tensor in node.inputs]
    fields = {"options": OPTIONS[code], "fusedActivationFunction": _activation(node, output)} if code in OPTIONS else {}
    emitter.operator(code, _kind(emitter, output), inputs, emitter.result(output), **fields)  # type: ignore[arg-type]


def unary(emitter: Emitter, node: Node, output: str) -> None:
    """A function of each value."""
    _plain(node)
    options = {"options": "GeluOptions", "approximate": 0} if node.op == "Gelu" else {}
    source = _operand(emitter, node.inputs[0])
    emitter.operator(UNARY[node.op], _kind(emitter, output), [source], emitter.result(output), **options)  # type: ignore[arg-type]


def clip(emitter: Emitter, node: Node, output: str) -> None:
    """Clip to constant bounds -> MAXIMUM and MINIMUM."""
    _plain(node)
    if not emitter.graph.constants.keys() >= set(node.inputs[1:]) or len(node.inputs) != 3:
        raise ExportError(f"node {node.name!r} (Clip): expected two constant bounds, got {node.inputs[1:]}")
    low, high = (_operand(emitter, tensor) for tensor in node.inputs[1:])
    kind = _kind(emitter, output)
    lifted = _scratch(emitter, f"{node.name}.lifted", emitter.shape(output))
    emitter.operator("MAXIMUM", kind, [_operand(emitter, node.inputs[0]), low], lifted)
    emitter.operator("MINIMUM", kind, [lifted, high], emitter.result(output))


def product(emitter: Emitter, node: Node, output: str) -> None:
    """Gemm, or MatMul by a constant -> FULLY_CONNECTED; MatMul of two tensors -> BATCH_MATMUL."""
    weights = emitter.graph.constants.get(node.inputs[1])
    if weights is None and node.op == "MatMul":
        inputs = [_operand(emitter, tensor) for tensor in node.inputs]
        emitter.operator(
            "BATCH_MATMUL", "FLOAT32", inputs, emitter.result(output), options="BatchMatMulOptions", adjX=0, adjY=0
        )
        return
    expected = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    wrong = {name: value for name, value in node.attributes.items() if name != "transB" and expected[name] != value}
    if weights is None or weights.ndim != 2 or wrong:
        raise ExportError(f"node {node.name!r} ({node.op}): expected constant weights [out, in] and no factors")
    rows = weights if node.attributes.get("transB") else weights.T
    bias = np.zeros(len(rows), np.float32)
    if len(node.inputs) > 2:
        bias = emitter.graph.constants[node.inputs[2]].reshape(-1)
    constants = [
        emitter.float_weight(f"{node.name}.weight", np.ascontiguousarray(rows, np.float32)),
        emitter.writer.tensor(f"{node.name}.bias", bias.shape, "FLOAT32", data=bias.astype(np.float32)),
    ]
    emitter.operator(
        "FULLY_CONNECTED",
        "FLOAT32",
        [_operand(emitter, node.inputs[0]), *constants],
        emitter.result(output),
        options="FullyConnectedOptions",
        fusedActivationFunction=_activation(node, output),
        keepNumDims=1,
    )


def join(emitter: Emitter, node: Node, output: str) -> None:
    """Concat of rows, constant ones among them -> CONCATENATION."""
    if emitter.kind(output) == "INT8":
        raise ExportError(f"node {node.name!r} (Concat): expected rows of float32 numbers")
    inputs = [_operand(emitter, tensor) for tensor in node.inputs]
    emitter.operator(
        "CONCATENATION",
        "FLOAT32",
        inputs,
        emitter.result(output),
        options="ConcatenationOptions",
        axis=int(node.attributes["axis"]) % 2,
        fusedActivationFunction=NO_ACTIVATION,
    )


def layer_norm(emitter: Emitter, node: Node, output: str) -> None:
    """LayerNormalization over the last dimension: mean, variance, and a factor and a shift for each channel."""
    if node.inputs[0] in emitter.channels_last:
        emitter.channels_last.add(output)
    shape = emitter.shape(output)
    if node.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise ExportError(f"node {node.name!r} (LayerNormalization): expected one over the last dimension")
    one = (*shape[:-1], 1)
    source, gamma, beta = (_operand(emitter, tensor) for tensor in node.inputs)
    epsilon = emitter.writer.tensor(
        f"{node.name}.epsilon", (1,), "FLOAT32", data=np.array([node.attributes["epsilon"]], np.float32)
    )
    axes = _integers(emitter, f"{node.name}.axes", [len(shape) - 1])

    def step(code: str, name: str, inputs: list[int], size: tuple[int, ...], **fields: Any) -> int:
        made = _scratch(emitter, f"{node.name}.{name}", size)
        emitter.operator(code, "FLOAT32", inputs, made, **fields)
        return made

    mean = step("MEAN", "mean", [source, axes], one, options="ReducerOptions", keepDims=1)
    centred = step("SUB", "centred", [source, mean], shape, options="SubOptions")
    squares = step("MUL", "squares", [centred, centred], shape, options="MulOptions")
    variance = step("MEAN", "variance", [squares, axes], one, options="ReducerOptions", keepDims=1)
    safe = step("ADD", "safe", [variance, epsilon], one, options="AddOptions")
    factor = step("RSQRT", "factor", [safe], one)
    scaled = step("MUL", "scaled", [centred, factor], shape, options="MulOptions")
    weighted = step("MUL", "weighted", [scaled, gamma], shape, options="MulOptions")
    emitter.operator("ADD", "FLOAT32", [weighted, beta], emitter.result(output), options="AddOptions")


def reduction(emitter: Emitter, node: Node, output: str) -> None:
    """ReduceMean or ReduceMax over constant axes -> MEAN or REDUCE_MAX."""
    axes = _integers(emitter, f"{node.name}.axes", node.attributes["axes"])
    emitter.operator(
        "MEAN" if node.op == "ReduceMean" else "REDUCE_MAX",
        "FLOAT32",
        [_operand(emitter, node.inputs[0]), axes],
        emitter.result(output),
        options="ReducerOptions",
        keepDims=int(node.attributes.get("keepdims", 1)),
    )


def softmax(emitter: Emitter, node: Node, output: str) -> None:
    """Softmax over the last dimension."""
    if node.attributes.get("axis", -1) not in (-1, len(emitter.shape(output)) - 1):
        raise ExportError(f"node {node.name!r} (Softmax): expected one over the last dimension")
    source = _operand(emitter, node.inputs[0])
    emitter.operator("SOFTMAX", "FLOAT32", [source], emitter.result(output), options="SoftmaxOptions", beta=1.0)


def gather(emitter: Emitter, node: Node, output: str) -> None:
    """Gather of rows."""
    if node.attributes.get("axis", 0) != 0:
        raise ExportError(f"node {node.name!r} (Gather): expected one of rows, got axis {node.attributes['axis']}")
    inputs = [_operand(emitter, tensor) for tensor in node.inputs]
    emitter.operator(
        "GATHER", _kind(emitter, output), inputs, emitter.result(output), options="GatherOptions", axis=0, batchDims=0
    )


def scatter(emitter: Emitter, node: Node, output: str) -> None:
    """ScatterND of whole rows, none of them twice: what is kept, and the new rows among zeros."""
    rows, width = emitter.shape(output)
    if emitter.graph.shapes[node.inputs[1]][1:] != (1,):
        raise ExportError(f"node {node.name!r} (ScatterND): expected indices [rows, 1]")
    data, indices, updates = (_operand(emitter, tensor) for tensor in node.inputs)
    count = emitter.shape(node.inputs[1])[0]
    ones = emitter.writer.tensor(f"{node.name}.ones", (count, 1), "FLOAT32", data=np.ones((count, 1), np.float32))
    one = emitter.writer.tensor(f"{node.name}.one", (1,), "FLOAT32", data=np.ones(1, np.float32))
    hit, missed, kept, new = (
        _scratch(emitter, f"{node.name}.{name}", size)
        for name, size in (("hit", (rows, 1)), ("missed", (rows, 1)), ("kept", (rows, width)), ("new", (rows, width)))
    )
    for values, size, made in ((ones, (rows, 1), hit), (updates, (rows, width), new)):
        shape = _integers(emitter, f"{node.name}.shape{size[1]}", size)
        emitter.operator("SCATTER_ND", "FLOAT32", [indices, values, shape], made, options="ScatterNdOptions")
    emitter.operator("SUB", "FLOAT32", [one, hit], missed, options="SubOptions")
    emitter.operator("MUL", "FLOAT32", [data, missed], kept, options="MulOptions")
    emitter.operator("ADD", "FLOAT32", [kept, new], emitter.result(output), options="AddOptions")


def best(emitter: Emitter, node: Node, output: str) -> None:
    """TopK of a row, of which the indices are read -> TOPK_V2."""
    count = int(emitter.graph.constants[node.inputs[1]].reshape(()))
    if not node.attributes.get("largest", 1) or len(emitter.shape(output)) != 1 or not node.unread:
        raise ExportError(f"node {node.name!r} (TopK): expected the indices of the largest values of one row")
    size = emitter.writer.tensor(f"{node.name}.k", (), "INT32", data=np.array(count, np.int32))
    values = _scratch(emitter, f"{node.name}.values", (count,))
    inputs = [_operand(emitter, node.inputs[0]), size]
    emitter.writer.operator("TOPK_V2", inputs, [values, emitter.result(output)], options="TopKV2Options")


def cast(emitter: Emitter, node: Node, output: str) -> None:
    """Cast of float32 to integers."""
    types = emitter.writer.types
    emitter.operator(
        "CAST",
        "FLOAT32",
        [_operand(emitter, node.inputs[0])],
        emitter.result(output),
        options="CastOptions",
        inDataType=types.FLOAT32,
        outDataType=types.INT32,
    )


def cut(emitter: Emitter, node: Node, output: str) -> None:
    """Slice at constant places, in steps of one -> SLICE."""
    starts, _, axes, steps = (emitter.graph.constants[tensor].tolist() for tensor in node.inputs[1:])
    shape = emitter.graph.shapes[node.inputs[0]]
    if len(shape) == 4 or set(steps) != {1}:
        raise ExportError(f"node {node.name!r} (Slice): expected tokens, in steps of one")
    begin = [0] * len(shape)
    for start, axis in zip(starts, axes, strict=True):
        begin[axis] = start if start >= 0 else start + shape[axis]
    inputs = [
        _operand(emitter, node.inputs[0]),
        _integers(emitter, f"{node.name}.begin", begin),
        _integers(emitter, f"{node.name}.size", emitter.shape(output)),
    ]
    emitter.operator("SLICE", _kind(emitter, output), inputs, emitter.result(output), options="SliceOptions")


def reorder(emitter: Emitter, node: Node, output: str) -> None:
    """Transpose of other than feature maps."""
    inputs = [_operand(emitter, node.inputs[0]), _integers(emitter, f"{node.name}.perm", node.attributes["perm"])]
    emitter.operator("TRANSPOSE", _kind(emitter, output), inputs, emitter.result(output), options="TransposeOptions")


def unsqueeze(emitter: Emitter, node: Node, output: str) -> None:
    """Unsqueeze -> RESHAPE."""
    shape = emitter.shape(output)
    if len(shape) == 4:
        raise ExportError(f"node {node.name!r} (Unsqueeze): expected a result of other than 4 dimensions, got {shape}")
    assert prod(shape) == prod(emitter.graph.shapes[node.inputs[0]])
    inputs = [_operand(emitter, node.inputs[0]), _integers(emitter, f"{node.name}.shape", shape)]
    emitter.operator(
        "RESHAPE", _kind(emitter, output), inputs, emitter.result(output), options="ReshapeOptions", newShape=[*shape]
    )


def _operand(emitter: Emitter, tensor: str, *, rank: int = 0) -> int:
    """A tensor in float32 or int32, or a constant, in the order of feature maps where the result has ``rank`` 4."""
    if tensor not in emitter.graph.constants:
        return emitter.read(tensor, "INT32" if emitter.kind(tensor) == "INT32" else "FLOAT32")
    values: NDArray[Any] = emitter.graph.constants[tensor]
    if rank == 4:
        values = values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(0, 2, 3, 1)
    dtype = "FLOAT32" if values.dtype == np.float32 else "INT32"
    kind = np.float32 if dtype == "FLOAT32" else np.int32
    return emitter.constant(tensor, values.astype(kind), dtype)  # type: ignore[arg-type]


def _kind(emitter: Emitter, output: str) -> Any:
    kind = emitter.kind(output)
    if kind == "INT8":
        raise ExportError(f"{output!r} has no int8 form in the TFLite writer; export it with --precision fp16")
    return kind


def _scratch(emitter: Emitter, name: str, shape: tuple[int, ...]) -> int:
    return emitter.writer.tensor(name, shape, "FLOAT32")


def _integers(emitter: Emitter, name: str, values: Any) -> int:
    return emitter.writer.tensor(name, (len(values),), "INT32", data=np.array(values, np.int32))


def _plain(node: Node) -> None:
    if node.attributes:
        raise ExportError(f"node {node.name!r} ({node.op}): expected no attributes, got {dict(node.attributes)}")


def _activation(node: Node, output: str) -> int:
    return NO_ACTIVATION if output == node.output else RELU
