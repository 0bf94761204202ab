"""One handler an ONNX operation: check what a sparse program cannot express, then add the operation."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.onnx_graph import Node
from edgekit.exporters.quantisation import quantise_convolution
from edgekit.exporters.sparse_chains import Chain, CRelu
from edgekit.exporters.sparse_emitter import Emitter, Part
from edgekit.exporters.sparse_nodes import (
    ANY,
    WINDOW,
    Window,
    check_attributes,
    constant_bias,
    constant_weights,
    read_factor,
    read_window,
    refusal,
)
from edgekit.sparse.limits import MAX_FACTOR, MAX_STRIDE
from edgekit.sparse.program import DType, Kind

CONVOLUTION = {"auto_pad": (b"NOTSET",), "dilations": ([1, 1],), "group": ANY} | WINDOW


def convolution(emitter: Emitter, chain: Chain) -> None:
    """Conv, dense or depthwise -> CONV or DEPTHWISE."""
    node = chain.root
    check_attributes(node, CONVOLUTION)
    weights = constant_weights(emitter.graph, node)
    groups, channels = int(node.attributes.get("group", 1)), emitter.graph.shapes[node.inputs[0]][1]
    if groups not in (1, channels) or (groups > 1 and len(weights) != groups):
        raise refusal(
            node,
            f"group 1 or depthwise ({channels} groups and as many outputs)",
            f"{groups} groups and {len(weights)} outputs",
        )
    if groups > 1 and chain.crelu is not None:
        raise refusal(node, "a dense convolution before a C.ReLU", "a depthwise one")
    dtype = emitter.numbers.of_convolution(node)
    stored = DType.FLOAT32 if dtype is DType.FLOAT32 else emitter.numbers.of(chain.output)
    if groups > 1:
        _weighted(emitter, chain, Kind.DEPTHWISE, read_window(node, weights.shape[2:]), dtype, stored)
    else:
        _weighted(emitter, chain, Kind.CONV, read_window(node, weights.shape[2:]), dtype, stored)


def transposed_convolution(emitter: Emitter, chain: Chain) -> None:
    """ConvTranspose that doubles rows and columns channel by channel -> DECONV."""
    node = chain.root
    check_attributes(node, CONVOLUTION | {"output_padding": ([0, 0],)})
    weights = constant_weights(emitter.graph, node)
    channels = emitter.graph.shapes[node.inputs[0]][1]
    got = (weights.shape, node.attributes.get("group", 1), node.attributes.get("strides"), node.attributes.get("pads"))
    if got != ((channels, 1, 4, 4), channels, [2, 2], [1, 1, 1, 1]):
        expected = f"weights [{channels}, 1, 4, 4], {channels} groups, strides of 2 and pads of 1"
        raise refusal(node, expected, f"{list(got[0])}, {got[1]}, {got[2]} and {got[3]}")
    dtype = emitter.numbers.of(chain.output)
    _weighted(emitter, chain, Kind.DECONV, read_window(node, weights.shape[2:]), dtype, dtype)


def addition(emitter: Emitter, chain: Chain) -> None:
    """Add of two feature maps of one shape that no convolution takes along -> ADD."""
    node = chain.root
    check_attributes(node, {})
    left, right = (emitter.graph.shapes.get(tensor) for tensor in node.inputs)
    if left is None or left != right or len(left) != 4:
        raise refusal(node, "two feature maps of one shape", f"{left} and {right}")
    dtype = emitter.numbers.of(chain.output)
    first, second = (emitter.read(tensor, dtype, node) for tensor in node.inputs)
    output, channel = emitter.place(chain.output, dtype)
    scales = {}
    if dtype is DType.UINT8:
        target = emitter.tensor(output)
        scales["first_scale"] = emitter.tensor(first).scale / target.scale
        scales["second_scale"] = emitter.tensor(second).scale / target.scale
    emitter.operation(
        Kind.ADD,
        input=first,
        second=second,
        output=output,
        channel_offset=channel,
        low=chain.low,
        high=chain.high,
        **scales,
    )


def max_pool(emitter: Emitter, node: Node) -> None:
    """MaxPool, with or without ceil_mode -> MAXPOOL."""
    check_attributes(
        node,
        {"auto_pad": (b"NOTSET",), "ceil_mode": ANY, "dilations": ([1, 1],), "storage_order": ANY} | WINDOW,
    )
    window, dtype = read_window(node), emitter.numbers.of(node.output)
    source = emitter.read(node.inputs[0], dtype, node)
    output, channel = emitter.place(node.output, dtype)
    emitter.operation(Kind.MAXPOOL, input=source, output=output, channel_offset=channel, **_fields(window))


def average_pool(emitter: Emitter, node: Node) -> None:
    """AveragePool without padding -> AVGPOOL."""
    check_attributes(node, {"auto_pad": (b"NOTSET",), "ceil_mode": (0,), "count_include_pad": ANY} | WINDOW)
    if any(node.attributes.get("pads", ())):
        raise refusal(node, "no padding", node.attributes["pads"])
    window, dtype = read_window(node), emitter.numbers.of(node.output)
    source = emitter.read(node.inputs[0], dtype, node)
    if window.stride > MAX_STRIDE:
        *steps, last = _steps(node, window.stride)
        for step in steps:
            source = _shrink(emitter, node, source, step)
        window = Window(kernel_rows=last, kernel_columns=last, stride=last, pad_top=0, pad_left=0)
    output, channel = emitter.place(node.output, dtype)
    _average(emitter, source, output, window, channel)


def resize(emitter: Emitter, node: Node) -> None:
    """Resize to a whole multiple by repetition -> UPSAMPLE."""
    factor = read_factor(emitter.graph, node)
    if not 1 <= factor <= MAX_FACTOR:
        raise refusal(node, f"a factor of at most {MAX_FACTOR}", factor)
    dtype = emitter.numbers.of(node.output)
    source = emitter.read(node.inputs[0], dtype, node)
    output, channel = emitter.place(node.output, dtype)
    emitter.operation(Kind.UPSAMPLE, input=source, output=output, channel_offset=channel, stride=factor)


def multiplication(emitter: Emitter, node: Node) -> None:
    """Mul by the mask -> nothing: compact rows are those that the mask keeps."""
    check_attributes(node, {})
    feature = emitter.multiplied.get(node.name)
    if feature is None:
        raise refusal(node, "a feature map and a mask", " and ".join(node.inputs))
    emitter.alias(node.output, feature, node)


def concat(emitter: Emitter, node: Node) -> None:
    """Concat of channels -> one wider tensor; of predictions -> a list of parts."""
    check_attributes(node, {"axis": ANY})
    rank = len(emitter.graph.shapes[node.output])
    axis = int(node.attributes["axis"]) % rank
    if rank == 4 and axis == 1:
        emitter.concatenate(node)
    elif rank == 3 and axis == 1 and all(tensor in emitter.parts for tensor in node.inputs):
        emitter.parts[node.output] = [part for tensor in node.inputs for part in emitter.parts[tensor]]
    else:
        raise refusal(
            node, "channels of feature maps or rows of predictions", f"axis {axis} of {', '.join(node.inputs)}"
        )


def transpose(emitter: Emitter, node: Node) -> None:
    """[1, C, H, W] -> [1, H, W, C], the order of compact rows."""
    check_attributes(node, {"perm": ([0, 2, 3, 1],)})
    emitter.stored(node.inputs[0], node)  # refuses what is no feature map
    emitter.turned[node.output] = node.inputs[0]


def reshape(emitter: Emitter, node: Node) -> None:
    """[1, H, W, anchors * K] -> [1, H * W * anchors, K]: predictions on their way out."""
    check_attributes(node, {"allowzero": ANY})
    feature, shape = emitter.turned.get(node.inputs[0]), emitter.graph.shapes[node.output]
    if feature is None:
        raise refusal(node, "a Transpose to [1, H, W, C] before it", repr(node.inputs[0]))
    channels = emitter.graph.shapes[feature][1]
    if len(shape) != 3 or shape[0] != 1 or channels % shape[2] or prod(shape) != prod(emitter.graph.shapes[feature]):
        raise refusal(node, "a result [1, anchors of all sites, numbers an anchor]", list(shape))
    emitter.parts[node.output] = [Part(feature=feature, anchors=channels // shape[2], columns=shape[2])]


CHAINS: dict[str, Callable[[Emitter, Chain], None]] = {
    "Add": addition,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
}

HANDLERS: dict[str, Callable[[Emitter, Node], None]] = {
    "AveragePool": average_pool,
    "Concat": concat,
    "MaxPool": max_pool,
    "Mul": multiplication,
    "Reshape": reshape,
    "Resize": resize,
    "Transpose": transpose,
}


def _steps(node: Node, stride: int) -> list[int]:
    """Strides of several pools that are one of ``stride``: the mean of means of windows of one size is their mean."""
    steps = []
    for step in range(MAX_STRIDE, 1, -1):
        while stride % step == 0:
            steps.append(step)
            stride //= step
    if stride > 1:
        raise refusal(node, f"a stride that is a product of numbers up to {MAX_STRIDE}", node.attributes["strides"][0])
    return steps


def _shrink(emitter: Emitter, node: Node, source: int, step: int) -> int:
    """A pool on the way to that of ``node``."""
    tensor = emitter.tensor(source)
    rows, columns = (side // step for side in emitter.size(source))
    output = emitter.between(node.output, tensor.dtype, rows=rows, columns=columns)
    window = Window(kernel_rows=step, kernel_columns=step, stride=step, pad_top=0, pad_left=0)
    _average(emitter, source, output, window, 0)
    return output


def _average(emitter: Emitter, source: int, output: int, window: Window, channel: int) -> None:
    sites = window.kernel_rows * window.kernel_columns
    scale = emitter.tensor(source).scale / (sites * emitter.tensor(output).scale)
    fields = _fields(window) | {"channel_offset": channel}
    emitter.operation(Kind.AVGPOOL, input=source, output=output, first_scale=scale, **fields)


def _weighted(emitter: Emitter, chain: Chain, kind: Kind, window: Window, dtype: DType, stored: DType) -> None:
    """A convolution of any kind, which reads ``dtype`` and writes ``stored``."""
    node = chain.root
    weights = constant_weights(emitter.graph, node)
    bias = constant_bias(emitter.graph, node, len(weights))
    source = emitter.read(node.inputs[0], dtype, node)
    residual = None if chain.residual is None else emitter.read(chain.residual, stored, node)
    output, channel = emitter.place(chain.output, stored)
    target = emitter.tensor(output)
    fields = {}
    if residual is not None and stored is DType.UINT8:
        fields["second_scale"] = emitter.tensor(residual).scale / target.scale
    crelu = chain.crelu or CRelu(factors=np.ones(len(bias)), shifts=np.zeros(len(bias)))
    if dtype is DType.FLOAT32:
        constants = _float_constants(weights, bias, crelu)
        if chain.crelu is None:
            del constants["multipliers"]
    else:
        constants = _integer_constants(weights, bias, crelu, emitter.tensor(source).scale, target.scale)
    order = (0, 2, 3, 1) if kind is Kind.CONV else (1, 2, 3, 0)  # to [K, kh, kw, C], or [1, kh, kw, C] of depthwise
    arranged = constants["weights"].transpose(order)
    constants["weights"] = np.ascontiguousarray(arranged if kind is Kind.CONV else arranged[0])
    emitter.operation(
        kind,
        input=source,
        second=residual,
        output=output,
        channel_offset=channel,
        crelu=chain.crelu is not None,
        low=chain.low,
        high=chain.high,
        **constants,
        **_fields(window),
        **fields,
    )


Constants = dict[str, NDArray[np.generic]]


def _float_constants(weights: NDArray[np.float32], bias: NDArray[np.float32], crelu: CRelu) -> Constants:
    """(sum + bias) * multiplier == factor * (sum + the convolution's bias) + shift."""
    return {
        "weights": weights.astype(np.float32),
        "bias": _biases(bias, crelu).astype(np.float32),
        "multipliers": crelu.factors.astype(np.float32),
    }


def _integer_constants(
    weights: NDArray[np.float32], bias: NDArray[np.float32], crelu: CRelu, input_scale: float, output_scale: float
) -> Constants:
    """The same in integers; the scale of a filter suits the larger of its biases."""
    biases = _biases(bias, crelu)
    halves = biases.reshape(-1, len(bias))  # [1 or 2, K]
    widest = np.take_along_axis(halves, np.abs(halves).argmax(axis=0)[None], axis=0)[0]
    integers = quantise_convolution(weights, widest.astype(np.float32), input_scale)
    scales = np.tile(integers.bias_scales, len(halves)).astype(np.float64)
    # As quantise_convolution rounds: a bias that is float32, divided by a scale that is.
    rounded = np.round(biases.astype(np.float32).astype(np.float64) / scales)
    return {
        "weights": integers.weight,
        "bias": rounded.astype(np.int32),
        "multipliers": (scales * crelu.factors / output_scale).astype(np.float32),
    }


def _biases(bias: NDArray[np.float32], crelu: CRelu) -> NDArray[np.float64]:
    """[K], or [2 K] of a C.ReLU, to add before the factors."""
    repeated = np.tile(bias.astype(np.float64), len(crelu.factors) // len(bias))
    return np.asarray(repeated + crelu.shifts / crelu.factors, np.float64)


def _fields(window: Window) -> dict[str, int]:
    return {
        "kernel_rows": window.kernel_rows,
        "kernel_columns": window.kernel_columns,
        "stride": window.stride,
        "pad_top": window.pad_top,
        "pad_left": window.pad_left,
    }
