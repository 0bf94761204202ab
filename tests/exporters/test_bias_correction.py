"""Biases that make up for rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.exporters.bias_correction import correct_biases
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.onnx_tflite import to_tflite
from edgekit.exporters.quantisation import quantise_convolution


@pytest.mark.parametrize(("group", "with_bias"), [(1, True), (4, True), (4, False)])
def test_the_mean_of_every_output_is_kept(net: Any, tmp_path: Path, group: int, with_bias: bool) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(4, 4 // group, 3, 3)).astype(np.float32)
    bias = generator.normal(size=4).astype(np.float32)
    graph = net(image=[1, 4, 6, 6])
    graph.conv("conv", "image", weight, bias if with_bias else None, group=group)
    before = read_graph(graph.save(tmp_path / "graph.onnx", "conv"))
    means = np.array([0.5, -1.0, 2.0, 0.0])
    after = correct_biases(before, {"image": means})
    rounded = quantise_convolution(weight, bias, 1.0)
    restored = rounded.weight * rounded.weight_scales.reshape(-1, 1, 1, 1)

    def mean_output(values: Any) -> Any:
        flat = values.sum(axis=(2, 3))
        return flat @ means if group == 1 else flat[:, 0] * means

    expected = mean_output(weight) + (bias if with_bias else 0)
    assert mean_output(restored) + after.constants["conv.corrected_bias"] == pytest.approx(expected, abs=1e-6)
    assert after.constants["conv.weight"] is before.constants["conv.weight"]
    assert "conv.bias" not in after.constants


def test_kept_and_unmeasured_layers_are_left_alone(graphs: dict[str, Path]) -> None:
    graph = read_graph(graphs["detector"])
    means = {node.inputs[0]: np.ones(16) for node in graph.nodes if node.name in ("depthwise", "project")}
    after = correct_biases(graph, means, keep_float=frozenset({"depthwise"}))
    corrected = {name for name in after.constants if name.endswith(".corrected_bias")}
    assert corrected == {"project.corrected_bias"}


def test_it_brings_int8_closer_to_float(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A depthwise layer with one large weight a channel, so that the small ones round badly and all the same way."""
    from edgekit.backends import load_engine
    from edgekit.exporters import source_graph

    graph = net(image=[1, 4, 16, 16])
    weight = np.full((4, 1, 3, 3), 0.0045, np.float32)
    weight[:, :, 1, 1] = 1.0
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", weight, np.zeros(4), group=4))
    feeds = [{"image": np.full((1, 4, 16, 16), value, np.float32)} for value in (0.4, 0.5, 0.6)]
    calibration = Calibration(inputs=feeds, images=3, sha256="")
    errors = []
    for correct in (correct_biases, lambda graph, *_, **__: graph):
        monkeypatch.setattr(source_graph, "correct_biases", correct)
        to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)
        found = load_engine("tflite", tmp_path / "graph.tflite", threads=1).run(feeds[1])["conv"]
        expected = load_engine("onnxruntime", source, threads=1).run(feeds[1])["conv"]
        errors.append(float(np.abs(found - expected)[..., 1:-1, 1:-1].max()))
    assert errors[0] < 0.5 * errors[1]
