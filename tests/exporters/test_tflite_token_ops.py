"""What transformers compute with, in TFLite: a GELU in one operator, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.onnx_gelu import GELU, join_gelus
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.onnx_tflite import to_tflite


def gelu(net: Any, half: float = 0.5) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    scaled = graph.node("Div", ["tokens", graph.constant("root", np.float32(np.sqrt(2)))], "scaled")
    shifted = graph.node("Add", [graph.node("Erf", [scaled], "erf"), graph.constant("one", np.float32(1))], "shifted")
    product = graph.node("Mul", ["tokens", shifted], "product")
    return graph, graph.node("Mul", [product, graph.constant("half", np.float32(half))], "gelu")


def test_a_gelu_is_one_operator(net: Any, tmp_path: Path) -> None:
    graph, output = gelu(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    assert [node.op for node in join_gelus(read_graph(source)).nodes] == [GELU]
    to_tflite(source, tmp_path / "graph.tflite", "fp32")
    tokens = np.linspace(-6, 6, 20, dtype=np.float32).reshape(5, 4)
    wanted = load_engine("onnxruntime", source, threads=1).run({"tokens": tokens})[output]
    found = load_engine("tflite", tmp_path / "graph.tflite", threads=1).run({"tokens": tokens})[output]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_is_no_gelu_stays(net: Any, tmp_path: Path) -> None:
    graph, output = gelu(net, half=0.25)
    source = graph.save(tmp_path / "graph.onnx", output)
    with pytest.raises(ExportError, match=r"node 'erf' is a Erf, which the TFLite writer does not know"):
        to_tflite(source, tmp_path / "graph.tflite", "fp32")


def gather_of_columns(net: Any) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    return graph, graph.node("Gather", ["tokens", graph.constant("which", np.array([1, 3]))], "taken", axis=1)


def slice_in_steps(net: Any) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    places = [graph.constant(name, np.array([value])) for name, value in zip("abcd", (0, 5, 0, 2), strict=True)]
    return graph, graph.node("Slice", ["tokens", *places], "cut")


def softmax_of_columns(net: Any) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    return graph, graph.node("Softmax", ["tokens"], "shares", axis=0)


def norm_of_all(net: Any) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    scale = graph.constant("scale", np.ones((5, 4), np.float32))
    return graph, graph.node("LayerNormalization", ["tokens", scale, scale], "norm", axis=0, epsilon=1e-5)


def scaled_product(net: Any) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    return graph, graph.node("Gemm", ["tokens", graph.constant("w", np.ones((4, 3), np.float32))], "made", alpha=2.0)


def half_a_clip(net: Any) -> tuple[Any, str]:
    graph = net(tokens=[5, 4])
    return graph, graph.node("Clip", ["tokens", graph.constant("low", np.float32(1))], "cut")


REFUSALS: list[tuple[Callable[[Any], tuple[Any, str]], str]] = [
    (gather_of_columns, r"'taken' \(Gather\): expected one of rows, got axis 1"),
    (slice_in_steps, r"'cut' \(Slice\): expected tokens, in steps of one"),
    (softmax_of_columns, r"'shares' \(Softmax\): expected one over the last dimension"),
    (norm_of_all, r"'norm' \(LayerNormalization\): expected one over the last dimension"),
    (scaled_product, r"'made' \(Gemm\): expected constant weights \[out, in\] and no factors"),
    (half_a_clip, r"'cut' \(Clip\): expected two constant bounds"),
]


@pytest.mark.parametrize(("build", "message"), REFUSALS, ids=[build.__name__ for build, _ in REFUSALS])
def test_refuses_what_it_does_not_write(net: Any, tmp_path: Path, build: Any, message: str) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    with pytest.raises(ExportError, match=message):
        to_tflite(source, tmp_path / "graph.tflite", "fp32")
