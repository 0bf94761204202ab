"""Channels are evened out, the function stays, and int8 gains by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.equalisation import BOUND, HEADROOM, equalise, equalise_file
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, read_graph
from edgekit.exporters.ranges import measure
from edgekit.exporters.sensitivity import rank_layers

FAINT = 1 / 20
"""What is left of every other channel behind the stem of :func:`uneven`."""


def uneven(path: Path, out: Path) -> Path:
    """The detector of this folder with every other channel of its stem made faint, and strong again behind it."""
    graph = read_graph(path)
    factors = np.where(np.arange(16) % 2, FAINT, 1.0).astype(np.float32)
    constants = dict(graph.constants)
    constants["stem.weight"] = constants["stem.weight"] * factors.reshape(-1, 1, 1, 1)
    constants["depthwise.weight"] = constants["depthwise.weight"] / factors.reshape(-1, 1, 1, 1)
    # The residual reads the stem too; without it only the depthwise convolution does.
    nodes = tuple(node for node in graph.nodes if node.name != "residual")
    nodes = tuple(
        replace(node, inputs=tuple("project.masked" if name == "residual" else name for name in node.inputs))
        for node in nodes
    )
    save_model(build_model(replace(graph, nodes=nodes, constants=constants)), out)
    return out


def run(path: Path, feed: Inputs) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: value for name, value in feed.items() if name in wanted})  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_the_function_stays(
    graphs: dict[str, Path], calibration: Calibration, unseen: list[Inputs], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(graphs[name].read_bytes())
    equalise_file(path, calibration)
    for feed in unseen:
        for ours, theirs in zip(run(path, feed), run(graphs[name], feed), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_faint_channels_reach_towards_the_bound(
    graphs: dict[str, Path], calibration: Calibration, tmp_path: Path
) -> None:
    path = uneven(graphs["detector"], tmp_path / "uneven.onnx")
    before = measure(path, ["stem.relu6.masked"], calibration)["stem.relu6.masked"].channel_highs
    equalise_file(path, calibration)
    after = measure(path, ["stem.relu6.masked"], calibration)["stem.relu6.masked"].channel_highs
    assert before[1::2].max() < 0.1 * before[::2].max()
    assert after == pytest.approx(np.full(16, BOUND / HEADROOM), rel=1e-3)


def test_int8_gains(graphs: dict[str, Path], calibration: Calibration, unseen: list[Inputs], tmp_path: Path) -> None:
    path = uneven(graphs["detector"], tmp_path / "uneven.onnx")

    def noise() -> float:
        ranking = rank_layers({"detector": path}, unseen)
        return next(error.noise for error in ranking if error.layer == "detector.stem")

    before = noise()
    equalise_file(path, calibration)
    assert noise() < before / 20


def test_what_something_else_reads_stays(graphs: dict[str, Path]) -> None:
    """In the detector as it is, a residual adds the stem's channels to others at their own scale."""
    graph = read_graph(graphs["detector"])
    highs = {tensor: np.full(16, 0.1) for tensor in ("stem.relu6.masked", "depthwise.relu6.masked")}
    changed = equalise(graph, highs).constants
    assert np.array_equal(changed["stem.weight"], graph.constants["stem.weight"])
    assert not np.array_equal(changed["depthwise.weight"], graph.constants["depthwise.weight"])


def test_channels_that_are_never_there_or_that_clip_stay(graphs: dict[str, Path]) -> None:
    graph = read_graph(graphs["detector"])
    highs = np.array([0.0, BOUND, *[1.0] * 14])
    changed = equalise(graph, {"depthwise.relu6.masked": highs}).constants
    factors = _factors(graph, changed)
    assert factors[:2].tolist() == [1, 1]
    assert factors[2:] == pytest.approx(np.full(14, BOUND / HEADROOM))
    assert changed["depthwise.bias"] == pytest.approx(graph.constants["depthwise.bias"] * factors)
    assert changed["project.weight"][:, 5] == pytest.approx(graph.constants["project.weight"][:, 5] / factors[5])


def _factors(graph: Graph, changed: Any) -> NDArray[np.float64]:
    before = graph.constants["depthwise.weight"].reshape(16, -1)
    return np.asarray(changed["depthwise.weight"].reshape(16, -1)[:, 4] / before[:, 4])
