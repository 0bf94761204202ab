"""Reading ONNX files into the form that converters work on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.errors import ExportError
from edgekit.exporters.onnx_build import IR_VERSION, OPSET, build_model
from edgekit.exporters.onnx_graph import fused_relu, read_graph


def test_constants_and_identities_are_resolved(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 2, 4, 4])
    weight = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32))
    graph.node("Constant", [], "weight", value=weight)
    graph.node("Identity", ["weight"], "same")
    graph.node("Conv", ["image", "same"], "conv", kernel_shape=[1, 1])
    read = read_graph(graph.save(tmp_path / "graph.onnx", "conv"))
    assert [node.op for node in read.nodes] == ["Conv"]
    assert read.nodes[0].inputs == ("image", "weight")
    assert read.constants["weight"].shape == (2, 2, 1, 1)
    assert read.shapes["conv"] == (1, 2, 4, 4)
    assert (read.inputs, read.outputs) == (("image",), ("conv",))


def test_masks_are_followed(graphs: dict[str, Path]) -> None:
    graph = read_graph(graphs["detector"])
    assert graph.mask_tensors() == {"mask", "mask.x4", "mask.x8", "mask.half"}
    assert len(graph.mask_multiplications()) == 10
    assert graph.mask_multiplications()["image.masked"] == "image"
    assert read_graph(graphs["omg"]).mask_tensors() == set()


def test_predictions_are_the_last_convolutions_and_what_follows(graphs: dict[str, Path]) -> None:
    graph = read_graph(graphs["detector"])
    predictions = graph.predictions()
    assert {"class_logits", "box_offsets", "class_logits.far", "box_offsets.near"} < predictions
    assert {node.op for node in graph.nodes if node.output in predictions} == {
        "Conv", "Mul", "Transpose", "Reshape", "Concat",
    }  # fmt: skip
    assert not predictions & (graph.mask_tensors() | {"image", "features"})
    assert read_graph(graphs["omg"]).predictions() == {"objectness"}


def test_only_a_lone_relu6_can_be_fused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 2, 4, 4])
    for name in ("alone", "read_twice", "other_bounds"):
        graph.conv(name, "image", np.ones((2, 2, 1, 1)))
    clips = [graph.relu6("alone"), graph.relu6("read_twice"), graph.relu6("other_bounds", high=1.0)]
    clips.append(graph.node("Add", ["read_twice", "image"], "sum"))
    read = read_graph(graph.save(tmp_path / "graph.onnx", *clips))
    fused = {node.name: fused_relu(read, node) for node in read.nodes if node.op == "Conv"}
    assert {name: clip.name if clip else None for name, clip in fused.items()} == {
        "alone": "alone.relu6", "read_twice": None, "other_bounds": None,
    }  # fmt: skip


def test_a_graph_survives_the_way_back(graphs: dict[str, Path]) -> None:
    graph = read_graph(graphs["detector"])
    model = build_model(graph)
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET)
    assert [node.name for node in model.graph.node] == [node.name for node in graph.nodes]


def test_several_outputs_are_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 2, 4, 4])
    graph.nodes.append(onnx.helper.make_node("Split", ["image"], ["left", "right"], name="split", axis=1))
    with pytest.raises(ExportError, match=r"node 'split' \(Split\): expected only the last of its 2 outputs"):
        read_graph(graph.save(tmp_path / "graph.onnx", "left"))


def test_dynamic_shapes_are_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=["batch", 2, 4, 4])
    graph.conv("conv", "image", np.ones((2, 2, 1, 1)))
    with pytest.raises(ExportError, match=r"tensor '.*' has no fixed shape; export with a static batch of 1"):
        read_graph(graph.save(tmp_path / "graph.onnx", "conv"))


def test_invalid_graphs_are_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 2, 4, 4])
    graph.node("Conv", ["image", "absent"], "conv")
    with pytest.raises(ExportError, match=r"graph.onnx is not a valid ONNX graph: "):
        read_graph(graph.save(tmp_path / "graph.onnx", "conv", check=False))
    graph = net(image=[1, 2, 4, 4])
    graph.node("Conv", ["image", graph.constant("w", np.ones((2, 3, 1, 1), np.float32))], "conv")
    with pytest.raises(ExportError, match=r"graph.onnx is not a valid ONNX graph"):
        read_graph(graph.save(tmp_path / "graph.onnx", "conv", check=False))
