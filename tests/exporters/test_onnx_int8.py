"""int8 ONNX files: exactness of the mask, closeness to float and to TFLite, no saturation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.onnx_int8 import PAIR_LIMIT, quantise_onnx
from edgekit.exporters.onnx_tflite import to_tflite


def run(path: Path, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
    names = {value.name for value in onnx.load(str(path)).graph.input}
    return load_engine("onnxruntime", path, threads=1).run({k: v for k, v in inputs.items() if k in names})


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_close_to_float_and_to_tflite(
    graphs: dict[str, Path],
    tmp_path: Path,
    calibration: Calibration,
    unseen: list[Inputs],
    cosine: Callable[..., float],
    name: str,
) -> None:
    quantise_onnx(graphs[name], tmp_path / "graph.onnx", calibration)
    to_tflite(graphs[name], tmp_path / "graph.tflite", "int8", calibration)
    other = load_engine("tflite", tmp_path / "graph.tflite", threads=1)
    for inputs in unseen:
        used = inputs if name == "detector" else {"image": inputs["image"]}
        found, neighbour = run(tmp_path / "graph.onnx", inputs), other.run(used)
        for output, expected in run(graphs[name], inputs).items():
            assert found[output].dtype == np.float32
            assert cosine(found[output], expected) > 0.99
            assert cosine(found[output], neighbour[output]) > 0.99
            assert not found[output][expected == 0].any()


def test_a_mask_multiplies_by_exactly_one_or_zero(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    graph = net(image=[1, 3, 40, 40], mask=[1, 1, 5, 5])
    weight = np.random.default_rng(0).normal(size=(6, 3, 3, 3))
    graph.conv("features", "image", weight, np.linspace(-1, 3, 6), strides=[2, 2])
    masked = graph.masked("features", graph.repeat("mask", 4))
    quantise_onnx(graph.save(tmp_path / "a.onnx", "features", masked), tmp_path / "b.onnx", calibration)
    for inputs in unseen:
        found = run(tmp_path / "b.onnx", inputs)
        mask = np.repeat(np.repeat(inputs["mask"], 4, 2), 4, 3)
        assert np.array_equal(found[masked], found["features"] * mask)
        assert len(np.unique(found["features"])) > 50


def test_integer_kernels_are_used(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    """Every convolution, mask multiplication and sum is one integer kernel, so nothing was left between the pairs."""
    import onnxruntime

    quantise_onnx(graphs["detector"], tmp_path / "graph.onnx", calibration)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node}
    assert {"QLinearConv", "QLinearAdd", "QLinearMul"} <= kinds
    assert not {"Conv", "FusedConv", "Add", "Mul", "Clip"} & kinds


def test_predictions_can_stay_float(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    quantise_onnx(graphs["detector"], tmp_path / "graph.onnx", calibration, float_predictions=True)
    nodes = onnx.load(str(tmp_path / "graph.onnx")).graph.node
    quantised = {node.input[0].removesuffix(".exact") for node in nodes if node.op_type == "QuantizeLinear"}
    predicted = read_graph(graphs["detector"]).predictions()
    assert not quantised & predicted
    makers = {node.output[0].removesuffix(".exact"): node.op_type for node in nodes}
    assert {makers[tensor] for tensor in predicted} == {"Conv", "Mul", "Transpose", "Reshape", "Concat"}
    assert {"image", "image.masked"} <= quantised


@pytest.mark.parametrize("group", [1, 16])
def test_no_sum_saturates(net: Any, tmp_path: Path, calibration: Calibration, group: int) -> None:
    """The brightest input through weights of one sign and size: the largest 16-bit pair sums that there can be."""
    graph = net(image=[1, 3, 40, 40])
    spread = graph.relu6(graph.conv("spread", "image", np.ones((16, 3, 1, 1)), np.full(16, 3.0)))
    weight = np.ones((16, 16 // group, 3, 3))
    source = graph.save(tmp_path / "a.onnx", graph.conv("sum", spread, weight, group=group))
    quantise_onnx(source, tmp_path / "b.onnx", calibration)
    bright = {"image": np.full((1, 3, 40, 40), 127 / 128, np.float32)}
    expected = run(source, bright)["sum"]
    inner = (..., slice(1, -1), slice(1, -1))
    scales = {i.name: numpy_helper.to_array(i) for i in onnx.load(str(tmp_path / "b.onnx")).graph.initializer}
    top = (255 - int(scales["sum.zero_point"])) * float(scales["sum.scale"])  # calibration saw darker pictures
    assert run(tmp_path / "b.onnx", bright)["sum"][inner] == pytest.approx(np.minimum(expected[inner], top), rel=0.02)
    if group == 1:
        assert 2 * np.abs(scales["sum.weight.integer"].astype(int)).max() <= PAIR_LIMIT


def test_a_kept_layer_is_computed_in_float(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    kept = frozenset({"depthwise", "class_logits.near", "class_logits.far"})
    quantise_onnx(graphs["detector"], tmp_path / "kept.onnx", calibration, kept)
    quantise_onnx(graphs["detector"], tmp_path / "plain.onnx", calibration)
    constants = {value.name: value for value in onnx.load(str(tmp_path / "kept.onnx")).graph.initializer}
    assert constants["depthwise.weight"].data_type == onnx.TensorProto.FLOAT
    assert constants["project.weight.integer"].data_type == onnx.TensorProto.INT8
    errors = {"kept": 0.0, "plain": 0.0}
    for inputs in unseen:
        expected = run(graphs["detector"], inputs)["class_logits"]
        for name in errors:
            errors[name] += float(np.abs(run(tmp_path / f"{name}.onnx", inputs)["class_logits"] - expected).sum())
    assert errors["kept"] < errors["plain"]


def test_a_relu6_that_the_range_does_not_imply_stays(net: Any, tmp_path: Path, calibration: Calibration) -> None:
    """The clipped tensor shares its scale with a negative one, so storing it does not cut at zero."""
    graph = net(image=[1, 3, 40, 40])
    clipped = graph.relu6(graph.conv("conv", "image", np.ones((2, 3, 1, 1))))
    source = graph.save(tmp_path / "a.onnx", graph.node("Concat", [clipped, "image"], "both", axis=1))
    quantise_onnx(source, tmp_path / "b.onnx", calibration)
    dark = {"image": np.full((1, 3, 40, 40), -0.5, np.float32)}
    assert run(tmp_path / "b.onnx", dark)["both"][:, :2].max() == 0
    assert run(tmp_path / "b.onnx", dark)["both"][:, :2].min() == 0


def test_unknown_layers_are_not_kept(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    with pytest.raises(ExportError, match="cannot keep 'nothing' in float32: the graph has no such convolution"):
        quantise_onnx(graphs["omg"], tmp_path / "graph.onnx", calibration, frozenset({"nothing"}))


def test_convolutions_read_norms_and_tokens_read_places(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs], cosine: Callable[..., float]
) -> None:
    """What has no integer form stays float32 up to the next convolution, whose input is quantised."""
    draw = np.random.default_rng(0)

    def numbers(*shape: int) -> NDArray[np.float32]:
        return draw.normal(size=shape).astype(np.float32)

    graph = net(image=[1, 3, 40, 40])
    graph.conv("patches", "image", numbers(6, 3, 3, 3), strides=[2, 2])
    graph.node("Transpose", ["patches"], "cells", perm=[0, 2, 3, 1])
    graph.node("Reshape", ["cells", graph.constant("rows", [400, 6])], "tokens")
    graph.node("Add", ["tokens", graph.constant("places", numbers(400, 6))], "placed")
    graph.node("Reshape", ["placed", graph.constant("map", [1, 20, 20, 6])], "again")
    affine = [graph.constant("gamma", numbers(6)), graph.constant("beta", numbers(6))]
    graph.node("LayerNormalization", ["again", *affine], "normed", axis=-1, epsilon=1e-5)
    graph.node("Transpose", ["normed"], "back", perm=[0, 3, 1, 2])
    source = graph.save(tmp_path / "a.onnx", graph.conv("found", graph.repeat("back", 2), numbers(4, 6, 3, 3)))
    quantise_onnx(source, tmp_path / "b.onnx", calibration)
    to_tflite(source, tmp_path / "b.tflite", "int8", calibration)
    other = load_engine("tflite", tmp_path / "b.tflite", threads=1)
    for inputs in unseen:
        expected = run(source, inputs)["found"]
        assert cosine(run(tmp_path / "b.onnx", inputs)["found"], expected) > 0.998
        assert cosine(other.run({"image": inputs["image"]})["found"], expected) > 0.998
        assert not np.array_equal(run(tmp_path / "b.onnx", inputs)["found"], expected)
