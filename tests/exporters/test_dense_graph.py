"""C.ReLU and interpolation in other operations: the same function, whatever the mask."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.backends import load_engine
from edgekit.exporters.dense_graph import LINE, dense, dense_copy
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, read_graph


def weights(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def crelu(net: Any, *, negative_first: bool = False, masked: bool = False) -> tuple[Any, str]:
    """x and -x, a factor and a shift for each, ReLU, maxima of Caffe's size, and a convolution."""
    graph = net(image=[1, 3, 12, 12], mask=[1, 1, 12, 12])
    features = graph.conv("conv", "image", weights(4, 3, 3, 3), weights(4))
    if masked:
        features = graph.masked(features, "mask")
    negative = graph.node("Neg", [features], "negative")
    both = graph.node("Concat", [negative, features] if negative_first else [features, negative], "both", axis=1)
    product = graph.node("Mul", [both, graph.constant("factors", weights(8, 1, 1))], "product")
    shifted = graph.node("Add", [graph.constant("shifts", weights(8, 1, 1)), product], "shifted")
    result = graph.masked(graph.node("Relu", [shifted], "relu"), "mask")
    pooled = graph.node("MaxPool", [result], "pooled", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    return graph, graph.conv("last", pooled, weights(2, 8, 1, 1))


def interpolation(net: Any, kernel: Any = None, **changes: Any) -> tuple[Any, str]:
    graph = net(image=[1, 4, 5, 3])
    if kernel is None:
        kernel = np.broadcast_to(np.outer(LINE, LINE), (4, 1, 4, 4))
    name = graph.constant("kernel", kernel.astype(np.float32))
    attributes = {"group": 4, "kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], **changes}
    return graph, graph.node("ConvTranspose", ["image", name], "upsample", **attributes)


def operations(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


def assert_same(source: Path, rewritten: Path) -> None:
    random = np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0):
        inputs = {
            name: (random.random(shape) < share if name == "mask" else random.normal(size=shape)).astype(np.float32)
            for name, shape in ((name, read_graph(source).shapes[name]) for name in read_graph(source).inputs)
        }
        found, expected = (load_engine("onnxruntime", path, threads=1).run(inputs) for path in (rewritten, source))
        for name, values in expected.items():
            assert np.abs(found[name] - values).max() <= 1e-5 * max(1.0, np.abs(values).max())


@pytest.mark.parametrize("negative_first", [False, True])
def test_a_crelu_becomes_one_convolution(net: Any, tmp_path: Path, negative_first: bool) -> None:
    graph, output = crelu(net, negative_first=negative_first)
    source = graph.save(tmp_path / "graph.onnx", output)
    with dense_copy(source) as copy:
        assert operations(read_graph(copy)) == {"Conv": 2, "Relu": 1, "Mul": 1, "MaxPool": 1}
        assert read_graph(copy).convolutions() == ("conv", "last")
        assert_same(source, copy)


def test_a_crelu_that_is_masked_in_between_stays(net: Any, tmp_path: Path) -> None:
    """Its shifts would be behind the mask then, and not before it."""
    graph, output = crelu(net, masked=True)
    source = graph.save(tmp_path / "graph.onnx", output)
    read = read_graph(source)
    assert dense(read) is read


def test_interpolation_becomes_repetition_and_smoothing(net: Any, tmp_path: Path) -> None:
    graph, output = interpolation(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    with dense_copy(source) as copy:
        assert operations(read_graph(copy)) == {"Resize": 1, "Conv": 1}
        assert read_graph(copy).convolutions() == read_graph(source).convolutions() == ("upsample",)
        assert_same(source, copy)


@pytest.mark.parametrize(
    ("kernel", "changes"),
    [
        (weights(4, 1, 4, 4), {}),
        (weights(4, 1, 3, 3), {"kernel_shape": [3, 3]}),
        (None, {"pads": [0, 0, 0, 0]}),
        (None, {"pads": [1, 1, 0, 0], "output_padding": [1, 1]}),
    ],
    ids=["learnt", "smaller", "unpadded", "shifted"],
)
def test_other_transposed_convolutions_stay(net: Any, tmp_path: Path, kernel: Any, changes: Any) -> None:
    graph, output = interpolation(net, kernel, **changes)
    read = read_graph(graph.save(tmp_path / "graph.onnx", output))
    assert dense(read) is read


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_one_stage_detectors_are_left_alone(graphs: dict[str, Path], name: str) -> None:
    with dense_copy(graphs[name]) as copy:
        assert copy == graphs[name]


def test_what_is_rewritten_survives_the_file(net: Any, tmp_path: Path) -> None:
    """Shapes and constants of the rewritten graph are those that ONNX finds in it."""
    graph, output = interpolation(net)
    rewritten = dense(read_graph(graph.save(tmp_path / "graph.onnx", output)))
    save_model(build_model(rewritten), tmp_path / "again.onnx")
    again = read_graph(tmp_path / "again.onnx")
    assert again.shapes.items() <= rewritten.shapes.items()
    assert again.constants.keys() == rewritten.constants.keys()
