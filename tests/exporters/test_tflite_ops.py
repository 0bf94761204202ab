"""Each operation through TFLite against onnxruntime, and each refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.onnx_tflite import to_tflite

RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def conv(net: Any, size: int, **attributes: Any) -> tuple[Any, str]:
    kernel = attributes.pop("kernel", 3)
    groups = attributes.get("group", 1)
    graph = net(image=[1, 4, size, size])
    return graph, graph.conv("conv", "image", weights(4, 4 // groups, kernel, kernel), weights(4), **attributes)


def convolution(net: Any) -> tuple[Any, str]:
    return conv(net, 6)


def without_bias(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.conv("conv", "image", weights(8, 4, 1, 1))


def strided(net: Any) -> tuple[Any, str]:
    return conv(net, 6, strides=[2, 2])


def strided_odd(net: Any) -> tuple[Any, str]:
    return conv(net, 5, strides=[2, 2])


def unpadded(net: Any) -> tuple[Any, str]:
    return conv(net, 6, pads=[0, 0, 0, 0])


def one_sided_padding(net: Any) -> tuple[Any, str]:
    return conv(net, 6, pads=[2, 0, 1, 1])


def depthwise(net: Any) -> tuple[Any, str]:
    return conv(net, 6, group=4)


def depthwise_strided(net: Any) -> tuple[Any, str]:
    return conv(net, 6, group=4, strides=[2, 2])


def dilated(net: Any) -> tuple[Any, str]:
    return conv(net, 6, dilations=[2, 2], pads=[2, 2, 2, 2])


def dilated_depthwise_unpadded(net: Any) -> tuple[Any, str]:
    return conv(net, 9, dilations=[2, 2], pads=[0, 0, 0, 0], group=4)


def normed_cells(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 3, 5])
    graph.node("Transpose", ["image"], "cells", perm=[0, 2, 3, 1])
    parts = ["cells", graph.constant("gamma", weights(4)), graph.constant("beta", weights(4))]
    graph.node("LayerNormalization", parts, "normed", axis=-1, epsilon=1e-5)
    return graph, graph.conv(
        "conv", graph.node("Transpose", ["normed"], "back", perm=[0, 3, 1, 2]), weights(8, 4, 1, 1)
    )


def rows_to_map_and_back(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 3, 5])
    graph.node("Transpose", ["image"], "cells", perm=[0, 2, 3, 1])
    graph.node("Reshape", ["cells", graph.constant("rows", [15, 4])], "tokens")
    graph.node("Concat", [graph.constant("first", weights(1, 4)), "tokens"], "more", axis=0)
    places = {"start": 1, "stop": 16, "axis": 0, "step": 1}
    graph.node("Slice", ["more", *(graph.constant(name, [place]) for name, place in places.items())], "cut")
    graph.node("Reshape", ["cut", graph.constant("map", [1, 3, 5, 4])], "again")
    return graph, graph.conv("conv", graph.node("Transpose", ["again"], "back", perm=[0, 3, 1, 2]), weights(8, 4, 1, 1))


def fused_relu6(net: Any) -> tuple[Any, str]:
    graph, result = conv(net, 6)
    return graph, graph.relu6(result)


def lone_relu6(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    graph.constant("ten", weights(4, 1, 1, 1) * 10)
    graph.node("Conv", ["image", "ten"], "scaled", group=4, kernel_shape=[1, 1])
    first = graph.relu6("scaled")
    return graph, graph.node("Add", [first, "scaled"], "sum")


def relu6_of_sum(net: Any) -> tuple[Any, str]:
    graph, result = conv(net, 6)
    return graph, graph.relu6(graph.node("Add", [result, "image"], "sum"))


def mask(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6], mask=[1, 1, 3, 3])
    return graph, graph.masked("image", graph.repeat("mask", 2))


def mask_first(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6], mask=[1, 1, 6, 6])
    return graph, graph.node("Mul", ["mask", "image"], "masked")


def pooled_mask(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 3, 3], mask=[1, 1, 5, 5])
    return graph, graph.masked("image", graph.halve("mask"))


def twice_pooled_mask(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 2, 2], mask=[1, 1, 5, 5])
    return graph, graph.masked("image", graph.halve(graph.halve("mask")))


def max_pool(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 7, 7])
    return graph, graph.halve("image")


def max_pool_floor(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 7, 7])
    return graph, graph.node("MaxPool", ["image"], "pooled", kernel_shape=[2, 2], strides=[2, 2])


def average_pool(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 8, 8])
    return graph, graph.node("AveragePool", ["image"], "pooled", kernel_shape=[4, 4], strides=[4, 4])


def resize(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 3, 3])
    return graph, graph.repeat("image", 16)


def identity_and_constant(net: Any) -> tuple[Any, str]:
    graph, result = conv(net, 6)
    from onnx import numpy_helper

    graph.node("Constant", [], "shift", value=numpy_helper.from_array(weights(4)))
    graph.node("Identity", ["shift"], "shift.same")
    graph.node("Identity", [result], "same")
    graph.node("Conv", ["same", graph.constant("w", weights(4, 4, 1, 1)), "shift.same"], "last", kernel_shape=[1, 1])
    return graph, "last"


def reshape(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.flat("image", 2)


def concat(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    first = graph.flat("image", 2)
    second = graph.flat(graph.conv("conv", "image", weights(6, 4, 1, 1)), 2)
    return graph, graph.node("Concat", [first, second], "joined", axis=1)


def concat_of_channels(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    second = graph.conv("conv", "image", weights(6, 4, 1, 1))
    return graph, graph.node("Concat", ["image", second], "joined", axis=-3)


def fused_relu(net: Any) -> tuple[Any, str]:
    graph, result = conv(net, 6)
    return graph, graph.node("Relu", [result], "relu")


def lone_relu(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Add", [graph.node("Relu", ["image"], "relu"), "image"], "sum")


def relu_of_sum(net: Any) -> tuple[Any, str]:
    graph, result = conv(net, 6)
    return graph, graph.node("Relu", [graph.node("Add", [result, "image"], "sum")], "relu")


def factors_and_shifts(net: Any) -> tuple[Any, str]:
    """What is left of a batch norm that reads a sum."""
    graph = net(image=[1, 4, 6, 6])
    shifted = graph.conv("scale", "image", weights(4, 1, 1, 1), weights(4), group=4)
    return graph, graph.node("Relu", [shifted], "relu")


def caffe_pool(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 8, 6])
    return graph, graph.node("MaxPool", ["image"], "pooled", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)


def caffe_pool_odd(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 7, 5])
    return graph, graph.node("MaxPool", ["image"], "pooled", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)


def crelu(net: Any) -> tuple[Any, str]:
    graph, result = conv(net, 6, strides=[2, 2])
    both = graph.node("Concat", [result, graph.node("Neg", [result], "negative")], "both", axis=1)
    product = graph.node("Mul", [both, graph.constant("factors", weights(8, 1, 1))], "product")
    shifted = graph.node("Add", [product, graph.constant("shifts", weights(8, 1, 1))], "shifted")
    return graph, graph.node("Relu", [shifted], "relu")


def interpolation(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 5, 3])
    line = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    kernel = graph.constant("kernel", np.broadcast_to(np.outer(line, line), (4, 1, 4, 4)))
    attributes = {"group": 4, "kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    return graph, graph.node("ConvTranspose", ["image", kernel], "upsample", **attributes)


def other_clip(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.relu6("image", high=1.0)


def oddly_padded_pool(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("MaxPool", ["image"], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


OPERATIONS = [
    dilated, dilated_depthwise_unpadded, normed_cells, rows_to_map_and_back,
    convolution, without_bias, strided, strided_odd, unpadded, one_sided_padding, depthwise, depthwise_strided,
    fused_relu6, lone_relu6, relu6_of_sum, mask, mask_first, pooled_mask, twice_pooled_mask, max_pool, max_pool_floor,
    average_pool, resize, identity_and_constant, reshape, concat, concat_of_channels, fused_relu, lone_relu,
    relu_of_sum, factors_and_shifts, caffe_pool, caffe_pool_odd, crelu, interpolation, other_clip,
    oddly_padded_pool,
]  # fmt: skip


@pytest.mark.parametrize("build", OPERATIONS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equals_onnxruntime(net: Any, tmp_path: Path, build: Callable[[Any], tuple[Any, str]], precision: Any) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    to_tflite(source, tmp_path / "graph.tflite", precision)
    inputs = {name: weights(*shape) for name, shape in graph.inputs.items()}
    if "mask" in inputs:
        inputs["mask"] = (inputs["mask"] > 0).astype(np.float32)
    expected = load_engine("onnxruntime", source, threads=1).run(inputs)[output]
    found = load_engine("tflite", tmp_path / "graph.tflite", threads=1).run(inputs)[output]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (1e-4 if precision == "fp32" else 5e-3 * np.abs(expected).max() + 1e-4)


def grouped(net: Any) -> tuple[Any, str]:
    return conv(net, 6, group=2)


def automatic_padding(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    kernel = graph.constant("w", weights(4, 4, 3, 3))
    return graph, graph.node("Conv", ["image", kernel], "conv", auto_pad="SAME_UPPER", kernel_shape=[3, 3])


def computed_weights(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6], kernel=[4, 4, 1, 1])
    return graph, graph.node("Conv", ["image", "kernel"], "conv", kernel_shape=[1, 1])


def one_dimension(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6])
    return graph, graph.node("Conv", ["image", graph.constant("w", weights(4, 4, 1))], "conv", kernel_shape=[1])


def unknown(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Tan", ["image"], "slope")


def two_features(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Mul", ["image", "image"], "square")


def wide_mask(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6], mask=[1, 1, 1, 6])
    return graph, graph.node("Mul", ["image", "mask"], "masked")


def broadcast_sum(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6], other=[1, 1, 6, 6])
    return graph, graph.node("Add", ["image", "other"], "sum")


def padded_average(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("AveragePool", ["image"], "pooled", kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def smooth_resize(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 3, 3])
    return graph, graph.repeat("image", 2, mode="linear")


def fractional_resize(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 4, 4])
    scales = graph.constant("scales", np.array([1, 1, 1.5, 1.5], np.float32))
    attributes = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return graph, graph.node("Resize", ["image", "", scales], "resized", mode="nearest", **attributes)


def other_transpose(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Transpose", ["image"], "turned", perm=[0, 1, 3, 2])


def final_transpose(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Transpose", ["image"], "turned", perm=[0, 2, 3, 1])


def hasty_reshape(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Reshape", ["image", graph.constant("shape", [1, -1, 2])], "flat")


def reshape_to_features(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    graph.node("Transpose", ["image"], "turned", perm=[0, 2, 3, 1])
    return graph, graph.node("Reshape", ["turned", graph.constant("shape", [1, 4, 6, 6])], "again")


def concat_of_constant(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 6, 6])
    return graph, graph.node("Concat", ["image", graph.constant("more", weights(1, 1, 6, 6))], "joined", axis=1)


REFUSALS = [
    (grouped, r"'conv' \(Conv\): expected group 1 or depthwise \(4 groups .*got 2 groups and 4 outputs"),
    (automatic_padding, r"'conv' \(Conv\): attribute auto_pad is b'SAME_UPPER'"),
    (computed_weights, r"'conv' \(Conv\): expected constant weights, got the tensor 'kernel'"),
    (one_dimension, r"'conv' \(Conv\): expected weights \[out, in, kh, kw\], got \[4, 4, 1\]"),
    (unknown, r"node 'slope' is a Tan, which the TFLite writer does not know; it knows: Abs, Add, "),
    (two_features, r"'square' \(Mul\): expected a feature map and a mask, got image and image"),
    (wide_mask, r"'masked' \(Mul\): expected a mask \[1, 1, H, W\] for features .*got \(1, 1, 1, 6\)"),
    (broadcast_sum, r"'sum' \(Add\): expected two feature maps of one shape"),
    (padded_average, r"'pooled' \(AveragePool\): expected no padding, got \(1, 1, 1, 1\)"),
    (smooth_resize, r"\(Resize\): attribute mode is b'linear', expected b'nearest'"),
    (fractional_resize, r"'resized' \(Resize\): expected rows and columns to grow by whole factors"),
    (other_transpose, r"'turned' \(Transpose\): attribute perm is \[0, 1, 3, 2\], expected \[0, 2, 3, 1\]"),
    (final_transpose, r"'turned' \(Transpose\): expected a feature map that something reads"),
    (hasty_reshape, r"'flat' \(Reshape\): expected a Transpose to channels-last before it"),
    (reshape_to_features, r"'again' \(Reshape\): expected a result of other than 4 dimensions"),
    (concat_of_constant, r"'joined' \(Concat\): expected feature maps or reshaped predictions"),
]


@pytest.mark.parametrize(("build", "message"), REFUSALS, ids=[build.__name__ for build, _ in REFUSALS])
def test_refuses_what_tflite_cannot_express(net: Any, tmp_path: Path, build: Any, message: str) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    with pytest.raises(ExportError, match=message):
        to_tflite(source, tmp_path / "graph.tflite", "fp32")
    assert not (tmp_path / "graph.tflite").exists()
