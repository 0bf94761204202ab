"""int8 TFLite files: exactness of the mask, closeness of the rest, layers kept in float, and their form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.onnx_tflite import to_tflite


class Raw:
    """A TFLite file with its tensors as they are stored."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path))
        self.interpreter.allocate_tensors()
        runner = self.interpreter.get_signature_runner()
        self.details = {**runner.get_input_details(), **runner.get_output_details()}
        self.runner = runner

    def run(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """Stored results of float inputs."""
        stored = {}
        for name in self.runner.get_input_details():
            scale, zero = self.details[name]["quantization"]
            values = inputs[name].transpose(0, 2, 3, 1)
            stored[name] = np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)
        results: dict[str, NDArray[Any]] = self.runner(**stored)
        return results

    def operators(self) -> list[str]:
        return [entry["op_name"] for entry in self.interpreter._get_ops_details()]


def test_a_mask_multiplies_by_exactly_one_or_zero(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    """x * 1 == x and x * 0 == zero point, bit for bit, at the feature's own scale, at every size of the mask."""
    for factor, size in ((8, 40), (4, 20), (1, 5)):
        graph = net(image=[1, 3, 40, 40], mask=[1, 1, 5, 5])
        weight = np.random.default_rng(0).normal(size=(6, 3, 3, 3))
        stride = 40 // size
        bias = np.linspace(-1, 3, 6)
        features = graph.conv("features", "image", weight, bias, strides=[stride, stride])
        mask = graph.repeat("mask", factor) if factor > 1 else "mask"
        source = graph.save(tmp_path / "graph.onnx", features, graph.masked(features, mask))
        to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)
        model = Raw(tmp_path / "graph.tflite")
        assert model.details["mask"]["quantization"] == (1.0, 0)
        assert model.details["features"]["quantization"] == model.details["features.masked"]["quantization"]
        zero = model.details["features"]["quantization"][1]
        for inputs in unseen:
            results = model.run(inputs)
            repeated = np.repeat(np.repeat(inputs["mask"], factor, 2), factor, 3).transpose(0, 2, 3, 1)
            expected = np.where(repeated > 0, results["features"], zero)
            assert np.array_equal(results["features.masked"], expected)
            assert len(np.unique(results["features"])) > 50


def test_a_halved_mask_is_exact(net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]) -> None:
    graph = net(image=[1, 3, 40, 40], mask=[1, 1, 5, 5])
    graph.conv("small", "image", np.ones((1, 3, 1, 1)), strides=[20, 20])
    source = graph.save(tmp_path / "graph.onnx", graph.masked("small", graph.halve(graph.halve("mask"))), "mask.half")
    to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)
    for inputs in unseen:
        padded = np.zeros((6, 6))
        padded[:5, :5] = inputs["mask"][0, 0]
        expected = padded.reshape(3, 2, 3, 2).max(axis=(1, 3))
        assert np.array_equal(Raw(tmp_path / "graph.tflite").run(inputs)["mask.half"][0, :, :, 0], expected)


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_close_to_float(
    graphs: dict[str, Path],
    tmp_path: Path,
    calibration: Calibration,
    unseen: list[Inputs],
    cosine: Callable[..., float],
    name: str,
) -> None:
    to_tflite(graphs[name], tmp_path / "graph.tflite", "int8", calibration)
    reference = load_engine("onnxruntime", graphs[name], threads=1)
    engine = load_engine("tflite", tmp_path / "graph.tflite", threads=1)
    for inputs in unseen:
        used = inputs if name == "detector" else {"image": inputs["image"]}
        found = engine.run(used)
        for output, expected in reference.run(used).items():
            assert cosine(found[output], expected) > 0.99
            assert not found[output][expected == 0].any()


def test_inactive_predictions_are_exactly_zero(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    to_tflite(graphs["detector"], tmp_path / "graph.tflite", "int8", calibration)
    engine = load_engine("tflite", tmp_path / "graph.tflite", threads=1)
    inputs = {"image": unseen[0]["image"], "mask": np.zeros((1, 1, 5, 5), np.float32)}
    assert all(not output.any() for output in engine.run(inputs).values())


def test_public_tensors_are_int8_with_their_own_scales(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration
) -> None:
    to_tflite(graphs["detector"], tmp_path / "graph.tflite", "int8", calibration)
    details = Raw(tmp_path / "graph.tflite").details
    assert {entry["dtype"] for entry in details.values()} == {np.int8}
    assert details["image"]["quantization"] == (1 / 128, 0)  # the input is the pixel minus 128
    assert details["class_logits"]["quantization"] != details["box_offsets"]["quantization"]
    assert list(details["image"]["shape"]) == [1, 40, 40, 3]


def test_a_kept_layer_is_computed_in_float(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    kept = frozenset({"depthwise", "class_logits.near"})
    to_tflite(graphs["detector"], tmp_path / "graph.tflite", "int8", calibration, kept)
    model = Raw(tmp_path / "graph.tflite")
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(model.operators())
    assert model.details["class_logits"]["dtype"] == np.float32  # straight from a kept layer
    assert model.details["box_offsets"]["dtype"] == np.int8
    reference = load_engine("onnxruntime", graphs["detector"], threads=1)
    plain = tmp_path / "plain.tflite"
    to_tflite(graphs["detector"], plain, "int8", calibration)
    errors = dict.fromkeys((plain, tmp_path / "graph.tflite"), 0.0)
    for path in errors:
        for inputs in unseen:
            expected = reference.run(inputs)["class_logits"]
            errors[path] += float(
                np.abs(load_engine("tflite", path, threads=1).run(inputs)["class_logits"] - expected).sum()
            )
    assert errors[tmp_path / "graph.tflite"] < errors[plain]


def test_everything_can_be_kept(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    from edgekit.exporters.onnx_graph import read_graph

    kept = frozenset(read_graph(graphs["detector"]).convolutions())
    to_tflite(graphs["detector"], tmp_path / "graph.tflite", "int8", calibration, kept)
    found = load_engine("tflite", tmp_path / "graph.tflite", threads=1).run(unseen[0])
    for name, expected in load_engine("onnxruntime", graphs["detector"], threads=1).run(unseen[0]).items():
        assert np.abs(found[name] - expected).max() < 0.05 * np.abs(expected).max()


def test_a_dead_channel_keeps_its_bias(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    """Weights of nothing and a bias of 3: a scale that fits the weights alone would overflow the bias."""
    graph = net(image=[1, 3, 40, 40])
    weight = np.full((2, 3, 1, 1), 1e-20)
    weight[1] = 0.5
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", weight, np.array([3.0, 0.0])))
    to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)
    found = load_engine("tflite", tmp_path / "graph.tflite", threads=1).run({"image": unseen[0]["image"]})["conv"]
    assert np.abs(found[0, 0] - 3).max() < 0.05


def test_the_same_input_gives_the_same_file(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    for name in ("a", "b"):
        to_tflite(graphs["omg"], tmp_path / name, "int8", calibration)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unknown_layers_are_not_kept(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    with pytest.raises(ExportError, match=r"cannot keep 'depthwize' in float32.*did you mean 'depthwise'\?"):
        to_tflite(graphs["detector"], tmp_path / "graph.tflite", "int8", calibration, frozenset({"depthwize"}))


def test_a_graph_that_mixes_mask_and_features_is_refused(net: Any, tmp_path: Path, calibration: Calibration) -> None:
    graph = net(image=[1, 3, 5, 5], mask=[1, 1, 5, 5])
    source = graph.save(tmp_path / "graph.onnx", graph.node("Concat", ["image", "mask"], "both", axis=1))
    with pytest.raises(ExportError, match=r"'both' \(Concat\) mixes the mask with features"):
        to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)


def test_weights_with_nan_are_refused(net: Any, tmp_path: Path, calibration: Calibration) -> None:
    graph = net(image=[1, 3, 40, 40])
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", np.full((2, 3, 1, 1), np.nan)))
    with pytest.raises(ExportError, match="'conv' is not finite on calibration picture 1: the weights are damaged"):
        to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)


def test_calibration_without_pictures_is_refused(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration
) -> None:
    with pytest.raises(ExportError, match="calibration expects pictures, got none"):
        to_tflite(graphs["omg"], tmp_path / "graph.tflite", "int8", replace(calibration, inputs=[]))


def test_weights_too_large_for_half_precision_are_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 3, 4, 4])
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", np.full((2, 3, 1, 1), 1e6)))
    with pytest.raises(ExportError, match=r"'conv.weight' holds values that float16 cannot"):
        to_tflite(source, tmp_path / "graph.tflite", "fp16")
