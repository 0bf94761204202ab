"""One handler an ONNX operation: check what TFLite cannot express, then write the operator.

Feature maps are [N, H, W, C] here. ONNX's Transpose to that order becomes nothing, and a Reshape is only allowed
after it. Strided convolutions get an explicit PAD where TFLite's SAME would pad the other side. ReLU and ReLU6 are
fused into the operation before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np

from edgekit.errors import ExportError
from edgekit.exporters import tflite_token_ops as tokens
from edgekit.exporters.onnx_graph import Node, relu_bound
from edgekit.exporters.tflite_emitter import Emitter

Handler = Callable[[Emitter, Node, str], None]
"""(emitter, node, ONNX tensor that receives the result: the node's own, or that of a ReLU or ReLU6 fused into it)."""

ANY = (object(),)
"""Every value of an attribute is handled, or it cannot matter."""

NO_ACTIVATION, RELU, RELU6 = 0, 1, 3
"""Values of the schema's ``ActivationFunctionType``."""

SAME, VALID = 0, 1
"""Values of the schema's ``Padding``."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a convolution or pool sees."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    """top, left, bottom, right"""


def convolution(emitter: Emitter, node: Node, output: str) -> None:
    """Conv -> CONV_2D or DEPTHWISE_CONV_2D, with PAD before it where needed."""
    _check(node, {"auto_pad": (b"NOTSET",), "dilations": ANY, "group": ANY} | WINDOW)
    if node.inputs[1] not in emitter.graph.constants:
        raise ExportError(f"node {node.name!r} (Conv): expected constant weights, got the tensor {node.inputs[1]!r}")
    weight = emitter.graph.constants[node.inputs[1]]
    if weight.ndim != 4:
        raise ExportError(f"node {node.name!r} (Conv): expected weights [out, in, kh, kw], got {list(weight.shape)}")
    source = node.inputs[0]
    groups, channels = int(node.attributes.get("group", 1)), emitter.shape(source)[3]
    if groups not in (1, channels) or (groups > 1 and len(weight) != groups):
        raise ExportError(
            f"node {node.name!r} (Conv): expected group 1 or depthwise ({channels} groups and as many outputs),"
            f" got {groups} groups and {len(weight)} outputs"
        )
    down, right = node.attributes.get("dilations", (1, 1))
    rows, columns = weight.shape[2:]
    window = _window(node, ((rows - 1) * down + 1, (columns - 1) * right + 1))  # what it spans
    kind, depthwise = emitter.kind(output), groups > 1
    padding = _padding(window, emitter.shape(source)[1:3], emitter.shape(node.output)[1:3])
    if padding is None:
        data, padding = emitter.padded(node, kind, window.pads), VALID
    else:
        data = emitter.read(source, kind)
    constants = emitter.convolution_constants(node, kind, depthwise=depthwise)
    emitter.operator(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        kind,
        [data, *constants],
        emitter.result(output),
        options="DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        dilationHFactor=down,
        dilationWFactor=right,
        fusedActivationFunction=_activation(emitter, node, output),
        **({"depthMultiplier": 1} if depthwise else {}),
    )


def addition(emitter: Emitter, node: Node, output: str) -> None:
    """Add of two feature maps of one shape -> ADD."""
    if tokens.is_binary_of_tokens(emitter, node):
        tokens.binary(emitter, node, output)
        return
    _check(node, {})
    left, right = (emitter.graph.shapes.get(tensor) for tensor in node.inputs)
    if left is None or left != right or emitter.masks & set(node.inputs):
        raise ExportError(f"node {node.name!r} (Add): expected two feature maps of one shape, got {left} and {right}")
    kind = emitter.kind(output)
    inputs = [emitter.read(tensor, kind) for tensor in node.inputs]
    emitter.operator(
        "ADD",
        kind,
        inputs,
        emitter.result(output),
        options="AddOptions",
        fusedActivationFunction=_activation(emitter, node, output),
    )


def multiplication(emitter: Emitter, node: Node, output: str) -> None:
    """Mul of a feature map by a mask [1, 1, H, W] -> MUL that repeats the mask over the channels."""
    if tokens.is_binary_of_tokens(emitter, node):
        tokens.binary(emitter, node, output)
        return
    _check(node, {})
    feature = emitter.mask_multiplications.get(node.name)
    if feature is None:
        raise ExportError(
            f"node {node.name!r} (Mul): expected a feature map and a mask, got {' and '.join(node.inputs)}"
        )
    mask = node.inputs[1] if node.inputs[0] == feature else node.inputs[0]
    shape, mask_shape = emitter.graph.shapes[feature], emitter.graph.shapes[mask]
    if len(shape) != 4 or mask_shape != (1, 1, *shape[2:]):
        raise ExportError(
            f"node {node.name!r} (Mul): expected a mask [1, 1, H, W] for features {shape}, got {mask_shape}"
        )
    kind = emitter.kind(output)
    inputs = [emitter.read(feature, kind), emitter.read(mask, kind)]
    emitter.operator(
        "MUL", kind, inputs, emitter.result(output), options="MulOptions", fusedActivationFunction=NO_ACTIVATION
    )


def activation(emitter: Emitter, node: Node, output: str) -> None:
    """A ReLU or ReLU6 that could not be fused -> RELU or RELU6."""
    _check(node, {})
    bound = relu_bound(emitter.graph, node)
    if bound is None:
        tokens.clip(emitter, node, output)
        return
    kind = emitter.kind(output)
    code = "RELU" if bound == inf else "RELU6"
    emitter.operator(code, kind, [emitter.read(node.inputs[0], kind)], emitter.result(output))


def max_pool(emitter: Emitter, node: Node, output: str) -> None:
    """MaxPool, with or without ceil_mode -> MAX_POOL_2D."""
    _check(node, {"auto_pad": (b"NOTSET",), "ceil_mode": ANY, "dilations": ([1, 1],), "storage_order": ANY} | WINDOW)
    _pool(emitter, node, output, "MAX_POOL_2D")


def average_pool(emitter: Emitter, node: Node, output: str) -> None:
    """AveragePool without padding -> AVERAGE_POOL_2D."""
    _check(node, {"auto_pad": (b"NOTSET",), "ceil_mode": (0,), "count_include_pad": ANY} | WINDOW)
    if any(_window(node).pads):
        raise ExportError(f"node {node.name!r} (AveragePool): expected no padding, got {_window(node).pads}")
    _pool(emitter, node, output, "AVERAGE_POOL_2D")


def resize(emitter: Emitter, node: Node, output: str) -> None:
    """Resize to a whole multiple by repetition -> RESIZE_NEAREST_NEIGHBOR."""
    _check(
        node,
        {
            "coordinate_transformation_mode": (b"asymmetric",),
            "cubic_coeff_a": ANY,
            "mode": (b"nearest",),
            "nearest_mode": (b"floor",),
        },
    )
    before, after = emitter.shape(node.inputs[0]), emitter.shape(output)
    if len(before) != 4 or before[3] != after[3] or after[1] % before[1] or after[2] % before[2]:
        raise ExportError(
            f"node {node.name!r} (Resize): expected rows and columns to grow by whole factors, got {before} to {after}"
        )
    kind = emitter.kind(output)
    size = emitter.writer.tensor(f"{node.name}.size", (2,), "INT32", data=np.array(after[1:3], np.int32))
    emitter.operator(
        "RESIZE_NEAREST_NEIGHBOR",
        kind,
        [emitter.read(node.inputs[0], kind), size],
        emitter.result(output),
        options="ResizeNearestNeighborOptions",
        alignCorners=0,
        halfPixelCenters=0,
    )


def transpose(emitter: Emitter, node: Node, output: str) -> None:
    """[N, C, H, W] -> [N, H, W, C], the order that everything is stored in anyway, or back."""
    if len(emitter.graph.shapes[output]) != 4:
        tokens.reorder(emitter, node, output)
        return
    back = node.inputs[0] in emitter.channels_last
    _check(node, {"perm": ([0, 3, 1, 2] if back else [0, 2, 3, 1],)})
    if output in emitter.graph.outputs:
        raise ExportError(f"node {node.name!r} (Transpose): expected a feature map that something reads")
    if not back:
        emitter.channels_last.add(output)
    emitter.alias(output, node.inputs[0])


def reshape(emitter: Emitter, node: Node, output: str) -> None:
    """Reshape of something whose order in memory is the same in ONNX and TFLite -> RESHAPE."""
    _check(node, {"allowzero": ANY})
    source, shape = node.inputs[0], emitter.graph.shapes[output]
    if len(emitter.graph.shapes[source]) == 4 and source not in emitter.channels_last:
        raise ExportError(f"node {node.name!r} (Reshape): expected a Transpose to channels-last before it")
    readers = {reader.op for reader in emitter.graph.consumers(output)}
    if len(shape) == 4 and readers and readers <= {"Transpose", "LayerNormalization"}:
        emitter.channels_last.add(output)  # tokens that become a map
    if (len(shape) == 4 and output not in emitter.channels_last) or prod(shape) != prod(emitter.graph.shapes[source]):
        raise ExportError(
            f"node {node.name!r} (Reshape): expected a result of other than 4 dimensions, or a Transpose behind it, got"
            f" {shape}"
        )
    kind = emitter.kind(output)
    stored = emitter.writer.tensor(f"{node.name}.shape", (len(shape),), "INT32", data=np.array(shape, np.int32))
    emitter.operator(
        "RESHAPE",
        kind,
        [emitter.read(source, kind), stored],
        emitter.result(output),
        options="ReshapeOptions",
        newShape=list(shape),
    )


def concat(emitter: Emitter, node: Node, output: str) -> None:
    """Concat -> CONCATENATION; all parts are brought to the result's scale, which int8 kernels insist on."""
    _check(node, {"axis": ANY})
    if len(emitter.graph.shapes[output]) == 2:
        tokens.join(emitter, node, output)
        return
    if emitter.channels_last & set(node.inputs) or set(node.inputs) & emitter.graph.constants.keys():
        raise ExportError(f"node {node.name!r} (Concat): expected feature maps or reshaped predictions")
    rank = len(emitter.graph.shapes[output])
    axis = int(node.attributes["axis"]) % rank
    kind = emitter.kind(output)
    inputs = [emitter.read_as(tensor, kind, output) for tensor in node.inputs]
    emitter.operator(
        "CONCATENATION",
        kind,
        inputs,
        emitter.result(output),
        options="ConcatenationOptions",
        axis=(0, 3, 1, 2)[axis] if rank == 4 else axis,
        fusedActivationFunction=NO_ACTIVATION,
    )


HANDLERS: dict[str, Handler] = {
    "Add": addition,
    "AveragePool": average_pool,
    "Cast": tokens.cast,
    "Clip": activation,
    "Concat": concat,
    "Conv": convolution,
    "Gather": tokens.gather,
    "Gemm": tokens.product,
    "LayerNormalization": tokens.layer_norm,
    "MatMul": tokens.product,
    "MaxPool": max_pool,
    "Mul": multiplication,
    "ReduceMax": tokens.reduction,
    "ReduceMean": tokens.reduction,
    "Relu": activation,
    "Reshape": reshape,
    "Resize": resize,
    "ScatterND": tokens.scatter,
    "Slice": tokens.cut,
    "Softmax": tokens.softmax,
    "TopK": tokens.best,
    "Transpose": transpose,
    "Unsqueeze": tokens.unsqueeze,
    **dict.fromkeys(("Div", "Min", "Sub"), tokens.binary),
    **dict.fromkeys(tokens.UNARY, tokens.unary),
}

FUSES_RELU = frozenset({"Conv", "Add", "Gemm"})
"""Operations whose TFLite form can end in a ReLU or ReLU6."""

WINDOW = {"kernel_shape": ANY, "pads": ANY, "strides": ANY}


def _check(node: Node, known: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse attributes that no handler has thought of, and values that it cannot express."""
    for name, value in node.attributes.items():
        allowed = known.get(name, ())
        if allowed is not ANY and value not in allowed:
            expected = " or ".join(map(str, allowed)) or "no such attribute"
            raise ExportError(f"node {node.name!r} ({node.op}): attribute {name} is {value}, expected {expected}")


def _window(node: Node, kernel: tuple[int, ...] | None = None) -> Window:
    rows, columns = node.attributes["kernel_shape"] if kernel is None else kernel
    down, right = node.attributes.get("strides", (1, 1))
    before_rows, before_columns, after_rows, after_columns = node.attributes.get("pads", (0, 0, 0, 0))
    return Window(
        kernel=(rows, columns), strides=(down, right), pads=(before_rows, before_columns, after_rows, after_columns)
    )


def _padding(window: Window, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """SAME or VALID if it samples where ONNX does, else ``None``.

    Both engines treat what lies past the last row as padding, so the number of results and the padding before the
    first one decide. With ceil_mode (5 -> 3) that is SAME.
    """
    axes = tuple(zip(before, after, window.kernel, window.strides, window.pads[:2], strict=True))
    if not any(window.pads[:2]) and all(out == (size - k) // s + 1 for size, out, k, s, _ in axes):
        return VALID
    if all(out == -(-size // s) and pad == max((out - 1) * s + k - size, 0) // 2 for size, out, k, s, pad in axes):
        return SAME
    return None


def _pool(emitter: Emitter, node: Node, output: str, code: str) -> None:
    window = _window(node)
    source = node.inputs[0]
    padding = _padding(window, emitter.shape(source)[1:3], emitter.shape(output)[1:3])
    kind = emitter.kind(output)
    if padding is None and (code != "MAX_POOL_2D" or node.attributes.get("ceil_mode")):
        raise ExportError(
            f"node {node.name!r} ({node.op}): TFLite cannot pad a pool by {window.pads}"
            f" from {emitter.shape(source)[1:3]} to {emitter.shape(output)[1:3]}"
        )
    if padding is None:
        data, padding = emitter.padded(node, kind, window.pads, lowest=True), VALID
    else:
        data = emitter.read(source, kind)
    emitter.operator(
        code,
        kind,
        [data],
        emitter.result(output),
        options="Pool2DOptions",
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
        fusedActivationFunction=NO_ACTIVATION,
    )


def _activation(emitter: Emitter, node: Node, output: str) -> int:
    if output == node.output:
        return NO_ACTIVATION
    relu = next(reader for reader in emitter.graph.consumers(node.output) if reader.output == output)
    return RELU if relu_bound(emitter.graph, relu) == inf else RELU6
