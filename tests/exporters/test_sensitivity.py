"""The ranking finds the layer that cannot live with 8 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import ExportError, UsageError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, read_graph
from edgekit.exporters.quantisation import plan_activations
from edgekit.exporters.sensitivity import KeepFloat, LayerError, by_graph, quantise_layer, rank_layers

CHANNELS = 8


def chain(*, blow_up: bool = False) -> Graph:
    """image -> first -> ReLU6 -> second -> third: 1x1 convolutions of positive weights.

    With ``blow_up`` the second makes one channel 10 000 times larger, which the third undoes: the same function.
    """
    generator = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    nodes = []
    for name, source, inputs in (("first", "image", 3), ("second", "clipped", CHANNELS), ("third", "second", CHANNELS)):
        weight = generator.uniform(0.05, 0.15, (CHANNELS, inputs, 1, 1)).astype(np.float32)
        bias = generator.uniform(0, 0.1, CHANNELS).astype(np.float32)
        if blow_up and name == "second":
            weight[0] *= 1e4
            bias[0] *= 1e4
        if blow_up and name == "third":
            weight[:, 0] *= 1e-4
        constants |= {f"{name}.weight": weight, f"{name}.bias": bias}
        output = "logits" if name == "third" else name
        attributes = {"kernel_shape": [1, 1], "group": 1}
        nodes.append(
            Node(name=name, op="Conv", inputs=(source, f"{name}.weight", f"{name}.bias"), output=output,
                 attributes=attributes)
        )  # fmt: skip
        if name == "first":
            nodes.append(Node(name="clip", op="Clip", inputs=("first", "low", "high"), output="clipped", attributes={}))
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        shapes={"image": (1, 3, 8, 8), "logits": (1, CHANNELS, 8, 8)},
        inputs=("image",),
        outputs=("logits",),
    )


def pictures(count: int = 2) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(1)
    return [{"image": generator.uniform(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def saved(graph: Graph, path: Path) -> Path:
    save_model(build_model(graph), path)
    return path


def test_healthy_layers_have_little_noise(tmp_path: Path) -> None:
    ranking = rank_layers({"net": saved(chain(), tmp_path / "net.onnx")}, pictures())
    assert {error.layer for error in ranking} == {"net.first", "net.second", "net.third"}
    assert all(error.sqnr_db > 35 for error in ranking)
    assert list(ranking) == sorted(ranking, key=lambda error: -error.noise)


def test_the_blown_up_pair_is_worst(tmp_path: Path) -> None:
    ranking = rank_layers({"net": saved(chain(blow_up=True), tmp_path / "net.onnx")}, pictures())
    assert {error.layer for error in ranking[:2]} == {"net.second", "net.third"}
    assert ranking[1].sqnr_db < 25 < ranking[2].sqnr_db


def test_a_dead_channel_with_huge_weights_costs_nothing(tmp_path: Path) -> None:
    """Scales are per channel. Trained networks have such channels; onnxruntime's optimiser rounds per tensor there."""
    graph = chain()
    constants = dict(graph.constants)
    constants["first.weight"] = constants["first.weight"].copy()
    constants["first.weight"][0] *= 1000
    constants["first.bias"] = np.array([-1e4, *constants["first.bias"][1:]], np.float32)
    ranking = rank_layers({"net": saved(replace(graph, constants=constants), tmp_path / "net.onnx")}, pictures())
    assert all(error.sqnr_db > 35 for error in ranking)


def test_graphs_are_ranked_together_and_progress_is_told(tmp_path: Path) -> None:
    graphs = {"a": saved(chain(), tmp_path / "a.onnx"), "b": saved(chain(blow_up=True), tmp_path / "b.onnx")}
    told: list[tuple[int, int]] = []
    ranking = rank_layers(graphs, pictures(1), progress=lambda done, total: told.append((done, total)))
    assert [error.layer.partition(".")[0] for error in ranking[:2]] == ["b", "b"]
    assert told == [(done, 6) for done in range(1, 7)]


def test_only_the_named_layer_is_quantised(tmp_path: Path) -> None:
    path = saved(chain(), tmp_path / "net.onnx")
    graph = read_graph(path)
    plan = plan_activations(path, graph, Calibration(inputs=pictures(), images=2, sha256=""))
    one = quantise_layer(graph, "first", plan)
    assert [node.op for node in one.nodes].count("QuantizeLinear") == 2  # its input, and its output after the ReLU6
    assert not np.array_equal(one.constants["first.weight"], graph.constants["first.weight"])
    assert np.array_equal(one.constants["second.weight"], graph.constants["second.weight"])
    assert replace(graph) == graph  # the original is untouched


def test_ranking_needs_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least one picture, got none"):
        rank_layers({"net": saved(chain(), tmp_path / "net.onnx")}, [])


def test_sqnr_is_in_decibels() -> None:
    assert LayerError(layer="x", noise=0.001).sqnr_db == pytest.approx(30)
    assert LayerError(layer="x", noise=0.0).sqnr_db == pytest.approx(200)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", KeepFloat()),
        ("worst:3", KeepFloat(worst=3)),
        ("detector.a, omg.b", KeepFloat(names=("detector.a", "omg.b"))),
    ],
)
def test_keep_float_is_read(text: str, expected: KeepFloat) -> None:
    assert KeepFloat.parse(text) == expected
    assert bool(expected) == bool(text)


@pytest.mark.parametrize("text", ["worst:", "worst:0", "worst:-1", "worst:many"])
def test_worst_needs_a_positive_number(text: str) -> None:
    with pytest.raises(UsageError, match=r"worst:N expects a positive number .* try worst:3"):
        KeepFloat.parse(text)


def test_keep_float_refuses_an_empty_name() -> None:
    with pytest.raises(UsageError, match="an empty name"):
        KeepFloat.parse("detector.a,,omg.b")


def test_names_are_split_by_graph() -> None:
    split = by_graph(["detector.stem.conv", "omg.stem.conv", "detector.last.conv"], ["omg", "detector"])
    assert split == {"omg": {"stem.conv"}, "detector": {"stem.conv", "last.conv"}}


@pytest.mark.parametrize("name", ["backbone.stem.conv", "detector", "detector."])
def test_a_name_without_its_graph_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"names no layer; names start with omg\. or detector\."):
        by_graph([name], ["omg", "detector"])
