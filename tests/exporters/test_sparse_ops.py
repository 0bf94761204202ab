"""What a sparse program cannot express: each node is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import ExportError
from edgekit.exporters.onnx_sparse import to_sparse

RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def convert(source: Path) -> Path:
    out = source.with_suffix(".sparse")
    to_sparse(source, out, "fp32", mean=128.0, std=128.0)
    return out


def plain(net: Any, channels: int = 4, side: int = 8) -> Any:
    return net(image=[1, channels, side, side])


def masked(net: Any, side: int = 8, cells: int = 8) -> Any:
    return net(image=[1, 4, side, side], mask=[1, 1, cells, cells])


def unknown(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Sigmoid", ["image"], "score")


def unknown_in_a_masked_graph(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    return graph, graph.masked(graph.node("Sigmoid", ["image"], "score"), "mask")


def grouped(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(4, 2, 3, 3), group=2)


def multiplied_channels(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(8, 1, 3, 3), group=4)


def dilated(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(4, 4, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2])


def automatic_padding(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    kernel = graph.constant("w", weights(4, 4, 3, 3))
    return graph, graph.node("Conv", ["image", kernel], "conv", auto_pad="SAME_UPPER", kernel_shape=[3, 3])


def computed_weights(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 1, 1])
    return graph, graph.node("Conv", ["image", "image"], "conv", kernel_shape=[1, 1])


def short_bias(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(4, 4, 1, 1), weights(3))


def large_kernel(net: Any) -> tuple[Any, str]:
    graph = plain(net, side=32)
    return graph, graph.conv("conv", "image", weights(1, 4, 17, 17))


def large_stride(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(1, 4, 3, 3), strides=[5, 5])


def two_strides(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(1, 4, 3, 3), strides=[1, 2])


def wide_pads(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.conv("conv", "image", weights(1, 4, 1, 1), pads=[1, 1, 1, 1])


def other_clip(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.relu6(graph.conv("conv", "image", weights(4, 4, 1, 1)), high=1.0)


def lone_clip(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.relu6("image")


def clip_of_what_is_read_twice(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    result = graph.conv("conv", "image", weights(4, 4, 1, 1))
    return graph, graph.node("Add", [graph.relu6(result), result], "sum")


def lone_negative(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Neg", [graph.conv("conv", "image", weights(4, 4, 1, 1))], "negative")


def crelu(net: Any, *, factor: float = 1.0, groups: int = 1, activation: bool = True) -> tuple[Any, str]:
    graph = plain(net)
    result = graph.conv("conv", "image", weights(4, 4 // groups, 1, 1), group=groups)
    both = graph.node("Concat", [result, graph.node("Neg", [result], "negative")], "both", axis=1)
    factors = np.ones((1, 8, 1, 1), np.float32)
    factors[0, 2] = factor
    scaled = graph.node("Mul", [both, graph.constant("factors", factors)], "scaled")
    return graph, graph.node("Relu", [scaled], "relu") if activation else scaled


def crelu_without_activation(net: Any) -> tuple[Any, str]:
    return crelu(net, activation=False)


def crelu_of_nothing(net: Any) -> tuple[Any, str]:
    return crelu(net, factor=0.0)


def crelu_by_channel(net: Any) -> tuple[Any, str]:
    return crelu(net, groups=4)


def two_features(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Mul", ["image", "image"], "square")


def constant_sum(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Add", ["image", graph.constant("shift", weights(1, 4, 1, 1))], "sum")


def padded_average(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("AveragePool", ["image"], "pooled", kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def average_of_seven(net: Any) -> tuple[Any, str]:
    graph = plain(net, side=14)
    return graph, graph.node("AveragePool", ["image"], "pooled", kernel_shape=[7, 7], strides=[7, 7])


def smooth_resize(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.repeat("image", 2, mode="linear")


def uneven_resize(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    attributes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    scales = graph.constant("scales", np.array([1, 1, 2, 1], np.float32))
    return graph, graph.node("Resize", ["image", "", scales], "resized", **attributes)


def large_resize(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.repeat("image", 9)


def smaller_deconvolution(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    kernel = graph.constant("w", weights(4, 1, 2, 2))
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0], "group": 4}
    return graph, graph.node("ConvTranspose", ["image", kernel], "doubled", **attributes)


def joined_rows(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Concat", ["image", "image"], "joined", axis=2)


def other_transpose(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Transpose", ["image"], "turned", perm=[0, 1, 3, 2])


def final_transpose(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Transpose", ["image"], "turned", perm=[0, 2, 3, 1])


def hasty_reshape(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.node("Reshape", ["image", graph.constant("shape", [1, -1, 2])], "flat")


def split_channels(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    return graph, graph.flat("image", 8)


def convolved_transpose(net: Any) -> tuple[Any, str]:
    graph = plain(net)
    turned = graph.node("Transpose", ["image"], "turned", perm=[0, 2, 3, 1])
    return graph, graph.conv("conv", turned, weights(2, 8, 1, 1))


def two_images(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 8, 8], other=[1, 4, 8, 8])
    return graph, graph.node("Add", ["image", "other"], "sum")


OPERATIONS = [
    (unknown, r"node 'score' is a Sigmoid, which a sparse program does not know; it knows: Add, AveragePool, Clip"),
    (unknown_in_a_masked_graph, r"node 'score' is a Sigmoid, which a sparse program does not know"),
    (grouped, r"'conv' \(Conv\): expected group 1 or depthwise \(4 groups and as many outputs\), got 2 groups and 4"),
    (multiplied_channels, r"'conv' \(Conv\): expected group 1 or depthwise .* got 4 groups and 8 outputs"),
    (dilated, r"'conv' \(Conv\): expected dilations \[1, 1\], got \[2, 2\]"),
    (automatic_padding, r"'conv' \(Conv\): expected auto_pad b'NOTSET', got b'SAME_UPPER'"),
    (computed_weights, r"'conv' \(Conv\): expected constant weights of 4 dimensions, got the tensor 'image'"),
    (short_bias, r"'conv' \(Conv\): expected a constant bias \[4\], got \[3\]"),
    (large_kernel, r"'conv' \(Conv\): expected a kernel of 1\.\.15 a side, got 17x17"),
    (large_stride, r"'conv' \(Conv\): expected one stride of 1\.\.4, got 5 and 5"),
    (two_strides, r"'conv' \(Conv\): expected one stride of 1\.\.4, got 1 and 2"),
    (wide_pads, r"'conv' \(Conv\): expected pads smaller than the kernel of 1x1, got \[1, 1, 1, 1\]"),
    (other_clip, r"'conv.relu6' \(Clip\): expected a ReLU6, ReLU or C.ReLU of a convolution or sum that only it reads"),
    (lone_clip, r"'image.relu6' \(Clip\): expected a ReLU6, ReLU or C.ReLU of a convolution or sum .* got image"),
    (clip_of_what_is_read_twice, r"'conv.relu6' \(Clip\): expected a ReLU6, .* got conv"),
    (lone_negative, r"'negative' \(Neg\): expected a ReLU6, ReLU or C.ReLU of a convolution"),
    (crelu_without_activation, r"'negative' \(Neg\): expected a ReLU6, ReLU or C.ReLU of a convolution"),
    (crelu_of_nothing, r"'conv' \(Conv\): expected a C.ReLU whose factors are not 0, got 0 for a channel"),
    (crelu_by_channel, r"'conv' \(Conv\): expected a dense convolution before a C.ReLU, got a depthwise one"),
    (two_features, r"'square' \(Mul\): expected a feature map and a mask, got image and image"),
    (constant_sum, r"'sum' \(Add\): expected two feature maps of one shape, got \(1, 4, 8, 8\) and None"),
    (padded_average, r"'pooled' \(AveragePool\): expected no padding, got \[1, 1, 1, 1\]"),
    (average_of_seven, r"'pooled' \(AveragePool\): expected a stride that is a product of numbers up to 4, got 7"),
    (smooth_resize, r"'image.x2' \(Resize\): expected mode b'nearest', got b'linear'"),
    (uneven_resize, r"'resized' \(Resize\): expected rows and columns to grow by one whole factor, got 8x8 to 16x8"),
    (large_resize, r"'image.x9' \(Resize\): expected a factor of at most 8, got 9"),
    (
        smaller_deconvolution,
        r"'doubled' \(ConvTranspose\): expected weights \[4, 1, 4, 4\], 4 groups, strides of 2 and",
    ),
    (
        joined_rows,
        r"'joined' \(Concat\): expected channels of feature maps or rows of predictions, got axis 2 of image",
    ),
    (other_transpose, r"'turned' \(Transpose\): expected perm \[0, 2, 3, 1\], got \[0, 1, 3, 2\]"),
    (final_transpose, r"the output 'turned': expected predictions \[1, A, K\] or a feature map \[1, C, H, W\]"),
    (hasty_reshape, r"'flat' \(Reshape\): expected a Transpose to \[1, H, W, C\] before it, got 'image'"),
    (
        split_channels,
        r"'image.flat' \(Reshape\): expected a result \[1, anchors of all sites, numbers an anchor\], got",
    ),
    (convolved_transpose, r"'conv' \(Conv\): expected feature maps \[1, C, H, W\], got 'turned'"),
    (two_images, r"expected an image \[1, C, H, W\] and perhaps a mask as inputs, got image, other"),
]


@pytest.mark.parametrize(("build", "message"), OPERATIONS, ids=[build.__name__ for build, _ in OPERATIONS])
def test_refuses_what_a_program_cannot_express(net: Any, tmp_path: Path, build: Any, message: str) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    with pytest.raises(ExportError, match=message):
        convert(source)
    assert not source.with_suffix(".sparse").exists()
