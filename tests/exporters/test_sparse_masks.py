"""Graphs in which leaving inactive sites out would change a result are no sparse programs."""

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


def masked(net: Any, side: int = 8, cells: int = 8) -> Any:
    return net(image=[1, 4, side, side], mask=[1, 1, cells, cells])


def unmasked_image(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    return graph, graph.masked(graph.conv("conv", "image", weights(2, 4, 3, 3)), "mask")


def unmasked_features(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    first = graph.relu6(graph.conv("first", graph.masked("image", "mask"), weights(4, 4, 3, 3)))
    return graph, graph.masked(graph.conv("conv", first, weights(2, 4, 3, 3)), "mask")


def unmasked_depthwise(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    first = graph.conv("first", graph.masked("image", "mask"), weights(4, 4, 1, 1))
    return graph, graph.masked(graph.conv("conv", first, weights(4, 1, 3, 3), group=4), "mask")


def half_masked_sum(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    total = graph.node("Add", [graph.masked("image", "mask"), "image"], "sum")
    return graph, graph.masked(graph.conv("conv", total, weights(2, 4, 3, 3)), "mask")


def half_masked_concat(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    joined = graph.node("Concat", [graph.masked("image", "mask"), "image"], "joined", axis=1)
    return graph, graph.masked(graph.conv("conv", joined, weights(2, 8, 3, 3)), "mask")


def unmasked_stride(net: Any) -> tuple[Any, str]:
    """1x1, but of another site than its own: one that may be inactive where its own is active."""
    graph = masked(net)
    return graph, graph.masked(graph.conv("conv", "image", weights(2, 4, 1, 1), strides=[2, 2]), graph.halve("mask"))


def unmasked_max_pool(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    return graph, graph.masked(graph.halve("image"), graph.halve("mask"))


def unmasked_average_pool(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    pooled = graph.node("AveragePool", ["image"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    return graph, graph.masked(pooled, graph.halve("mask"))


def unmasked_deconvolution(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    kernel = graph.constant("w", weights(4, 1, 4, 4))
    attributes = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], "group": 4}
    doubled = graph.node("ConvTranspose", ["image", kernel], "doubled", **attributes)
    return graph, graph.masked(doubled, graph.repeat("mask", 2))


def unmasked_repetition(net: Any) -> tuple[Any, str]:
    """2 sites repeated three times under a mask of 3 cells: an active site of 6 may lie under an inactive one."""
    graph = net(image=[1, 4, 2, 2], mask=[1, 1, 3, 3])
    return graph, graph.masked(graph.repeat("image", 3), graph.repeat("mask", 2))


def overlapping_pool(net: Any) -> tuple[Any, str]:
    """The input is masked, but its result is not: a window reaches into active neighbours."""
    graph = masked(net)
    pooled = graph.node("MaxPool", [graph.masked("image", "mask")], "pooled", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return graph, graph.masked(graph.conv("conv", pooled, weights(2, 4, 3, 3)), "mask")


def repeated_past_the_mask(net: Any) -> tuple[Any, str]:
    """A coarse map repeated over finer cells is not zero at all inactive ones."""
    graph = masked(net)
    pooled = graph.halve(graph.masked("image", "mask"))
    repeated = graph.repeat(graph.masked(pooled, graph.halve("mask")), 2)
    return graph, graph.masked(graph.conv("conv", repeated, weights(2, 4, 3, 3)), "mask")


def shifted(net: Any) -> tuple[Any, str]:
    """A bias after the mask."""
    graph = masked(net)
    source = graph.conv("first", "image", weights(4, 4, 1, 1))
    both = graph.node("Concat", [source, graph.node("Neg", [source], "negative")], "both", axis=1)
    both = graph.node("Add", [graph.masked(both, "mask"), graph.constant("shift", weights(1, 8, 1, 1))], "moved")
    return graph, graph.masked(graph.conv("conv", graph.relu6(both), weights(2, 8, 3, 3)), "mask")


READS = r"node '{}' \({}\) reads '{}' at other sites than its own, but that is not multiplied by the mask"

UNMASKED = [
    (unmasked_image, ("conv", "Conv", "image")),
    (unmasked_features, ("conv", "Conv", "first.relu6")),
    (unmasked_depthwise, ("conv", "Conv", "first")),
    (half_masked_sum, ("conv", "Conv", "sum")),
    (half_masked_concat, ("conv", "Conv", "joined")),
    (unmasked_stride, ("conv", "Conv", "image")),
    (unmasked_max_pool, ("image.half", "MaxPool", "image")),
    (unmasked_average_pool, ("pooled", "AveragePool", "image")),
    (unmasked_deconvolution, ("doubled", "ConvTranspose", "image")),
    (unmasked_repetition, ("image.x3", "Resize", "image")),
    (overlapping_pool, ("conv", "Conv", "pooled")),
    (repeated_past_the_mask, ("conv", "Conv", "image.masked.half.masked.x2")),
    (shifted, ("conv", "Conv", "moved.relu6")),
]


@pytest.mark.parametrize(("build", "names"), UNMASKED, ids=[build.__name__ for build, _ in UNMASKED])
def test_refuses_to_read_what_is_not_masked(net: Any, tmp_path: Path, build: Any, names: tuple[str, str, str]) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    with pytest.raises(ExportError, match=READS.format(*names)):
        convert(source)


def test_the_shared_test_detector_is_refused(graphs: dict[str, Path], tmp_path: Path) -> None:
    """It leaves out masks that other engines do not miss."""
    with pytest.raises(ExportError, match=READS.format("shrink_b", "Conv", "shrink_a.relu6")):
        to_sparse(graphs["detector"], tmp_path / "out.sparse", "fp32", mean=0.0, std=1.0)


def unmasked_output(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    return graph, graph.conv("conv", graph.masked("image", "mask"), weights(2, 4, 3, 3))


def unmasked_predictions(net: Any) -> tuple[Any, str]:
    graph = masked(net)
    head = graph.conv("conv", graph.masked("image", "mask"), weights(2, 4, 3, 3))
    parts = [graph.flat(head, 2), graph.flat("image.masked", 2)]
    return graph, graph.node("Concat", parts, "joined", axis=1)


def mask_of_another_size(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 8, 8], mask=[1, 1, 1, 8])
    return graph, graph.masked("image", "mask")


def masked_predictions(net: Any) -> tuple[Any, str]:
    graph = masked(net, side=4)
    return graph, graph.masked(graph.flat("image", 8), "mask")


def repeated_before_it_is_halved(net: Any) -> tuple[Any, str]:
    graph = masked(net, cells=8)
    return graph, graph.masked("image", graph.halve(graph.repeat("mask", 2)))


def halved_before_it_is_repeated(net: Any) -> tuple[Any, str]:
    graph = masked(net, cells=8)
    return graph, graph.masked("image", graph.repeat(graph.halve("mask"), 2))


def mask_pooled_by_three(net: Any) -> tuple[Any, str]:
    graph = masked(net, cells=8)
    wide = graph.node("MaxPool", ["mask"], "wide", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return graph, graph.masked("image", wide)


def mask_rounded_down(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 2, 2], mask=[1, 1, 5, 5])
    half = graph.node("MaxPool", ["mask"], "half", kernel_shape=[2, 2], strides=[2, 2])
    return graph, graph.masked("image", half)


def no_such_level(net: Any) -> tuple[Any, str]:
    graph = masked(net, side=7, cells=7)
    pooled = graph.node("MaxPool", [graph.masked("image", "mask")], "pooled", kernel_shape=[2, 2])
    return graph, graph.flat(pooled, 4)


def mask_of_two_channels(net: Any) -> tuple[Any, str]:
    graph = net(image=[1, 2, 8, 8], mask=[1, 2, 8, 8])
    return graph, graph.masked("image", "mask")


PYRAMIDS = [
    (
        unmasked_output,
        r"the output 'conv' is not multiplied by the mask, but a sparse program gives 0 at inactive sites",
    ),
    (unmasked_predictions, r"the output 'joined' is not multiplied by the mask"),
    (mask_of_another_size, r"'image.masked' \(Mul\): expected a mask \[1, 1, 8, 8\], got \[1, 1, 1, 8\]"),
    (
        repeated_before_it_is_halved,
        r"'mask.x2.half' \(MaxPool\): expected a mask that was not repeated before it is ha",
    ),
    (
        halved_before_it_is_repeated,
        r"'mask.half.x2' \(Resize\): expected the mask of its resolution, Path\(halvings=0, ",
    ),
    (mask_pooled_by_three, r"'wide' \(MaxPool\): expected a mask that is halved, rounding up, got 8x8 to 8x8"),
    (mask_rounded_down, r"'half' \(MaxPool\): expected a mask that is halved, rounding up, got 5x5 to 2x2"),
    (no_such_level, r"'pooled' \(MaxPool\): expected a resolution that a mask of 7x7 cells has, got 6x6"),
    (mask_of_two_channels, r"the input 'mask': expected a mask \[1, 1, rows, columns\], got \[1, 2, 8, 8\]"),
]


@pytest.mark.parametrize(("build", "message"), PYRAMIDS, ids=[build.__name__ for build, _ in PYRAMIDS])
def test_refuses_other_masks(net: Any, tmp_path: Path, build: Any, message: str) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    with pytest.raises(ExportError, match=message):
        convert(source)
