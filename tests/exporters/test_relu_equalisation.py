"""Channels behind plain ReLUs are evened out, the function stays, and int8 gains by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import load_engine
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.onnx_tflite import to_tflite
from edgekit.exporters.ranges import measure
from edgekit.exporters.relu_equalisation import equalise_relus, number_channels


def weights(*shape: int) -> Any:
    random = np.random.default_rng(np.frombuffer(bytes(shape), np.uint8))
    return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture
def network(net: Any, tmp_path: Path) -> Path:
    """C.ReLU, a residual block without ReLU behind its sum, branches, interpolation: channels of uneven sizes."""
    graph = net(image=[1, 3, 40, 40], mask=[1, 1, 5, 5])
    masks = {20: graph.repeat("mask", 4), 10: graph.repeat("mask", 2)}
    uneven = np.exp(np.random.default_rng(3).normal(0, 1.2, 16))
    columns = uneven.reshape(1, -1, 1, 1)

    def conv(name: str, source: str, weight: Any, side: int, *, relu: bool = True, **attributes: Any) -> str:
        result = graph.conv(name, source, weight, 0.1 * weights(len(weight), 1)[:, 0], **attributes)
        return str(graph.masked(graph.node("Relu", [result], f"{name}.relu") if relu else result, masks[side]))

    stem = graph.conv("stem", "image", 3 * weights(8, 3, 3, 3), strides=[2, 2])
    both = graph.node("Concat", [stem, graph.node("Neg", [stem], "negative")], "both", axis=1)
    product = graph.node("Mul", [both, graph.constant("factors", uneven.reshape(-1, 1, 1).astype(np.float32))], "mul")
    shifted = graph.node("Add", [product, graph.constant("shifts", 0.2 * weights(16, 1, 1))], "add")
    features = graph.masked(graph.node("Relu", [shifted], "crelu"), masks[20])
    deep = conv("inner", features, 2 * uneven.reshape(-1, 1, 1, 1) * weights(16, 16, 1, 1) / columns, 20)
    deep = conv("outer", deep, weights(16, 16, 1, 1) / columns, 20, relu=False)
    total = graph.node("Add", [deep, conv("proj", features, weights(16, 16, 1, 1) / columns, 20, relu=False)], "sum")
    pooled = graph.node("MaxPool", [total], "pool", kernel_shape=[2, 2], strides=[2, 2])
    pooled = graph.masked(pooled, masks[10])
    left = conv("left", pooled, uneven[:8].reshape(-1, 1, 1, 1) * weights(8, 16, 1, 1), 10)
    right = conv("right", pooled, 3 * weights(8, 16, 3, 3), 10)
    together = graph.node("Concat", [left, right], "together", axis=1)
    last = conv("last", together, 2 * weights(4, 16, 1, 1), 10, relu=False)
    path: Path = graph.save(tmp_path / "network.onnx", graph.flat(last, 2))
    return path


def run(engine: str, path: Path, feed: Inputs) -> NDArray[np.float32]:
    (values,) = load_engine(engine, path, threads=1).run(feed).values()
    return values


@pytest.fixture
def equalised(network: Path, calibration: Calibration) -> Path:
    path = Path(shutil.copy(network, network.with_name("equalised.onnx")))
    equalise_relus(path, calibration)
    return path


def test_the_function_stays(network: Path, equalised: Path, unseen: list[Inputs]) -> None:
    assert network.read_bytes() != equalised.read_bytes()
    for feed in unseen:
        wanted = run("onnxruntime", network, feed)
        np.testing.assert_allclose(run("onnxruntime", equalised, feed), wanted, atol=1e-5 * np.abs(wanted).max())


def test_channels_come_closer(network: Path, equalised: Path, calibration: Calibration) -> None:
    names = ["crelu", "inner.relu", "sum", "together"]

    def spread(path: Path) -> list[float]:
        sizes = [found.channel_sizes for found in measure(path, names, calibration).values()]
        return [float(size[size > 0].max() / size[size > 0].min()) for size in sizes]

    before, after = spread(network), spread(equalised)
    assert max(after) < max(before)
    assert np.mean(np.log(after)) < 0.75 * np.mean(np.log(before))


def test_int8_gains(network: Path, equalised: Path, calibration: Calibration, unseen: list[Inputs]) -> None:
    noise = []
    for path in (network, equalised):
        to_tflite(path, path.with_suffix(".tflite"), "int8", calibration)
        errors = [run("tflite", path.with_suffix(".tflite"), f) - run("onnxruntime", network, f) for f in unseen]
        noise.append(float(np.square(errors).sum()))
    assert noise[1] < 0.7 * noise[0]


def test_sums_share_factors_and_borders_have_none(network: Path) -> None:
    channels = number_channels(read_graph(network))
    assert np.array_equal(channels.of["sum"], channels.of["outer.masked"])
    assert np.array_equal(channels.of["sum"], channels.of["proj.masked"])
    assert np.array_equal(channels.of["together"][:8], channels.of["left.relu.masked"])
    assert np.array_equal(channels.of["both"], np.tile(channels.of["stem"], 2))
    assert len(np.unique(channels.of["crelu"])) == 16, "each sign has a factor of its own"
    assert set(channels.of["image"]) | set(channels.of["last.masked"]) <= set(channels.fixed)
    assert not set(channels.of["sum"]) & set(channels.fixed)


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_networks_with_relu6_are_left_alone(
    graphs: dict[str, Path], calibration: Calibration, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copy(graphs[name], tmp_path / "copy.onnx"))
    equalise_relus(copy, calibration)
    assert copy.read_bytes() == graphs[name].read_bytes()


def test_what_something_else_reads_keeps_its_size(
    net: Any, tmp_path: Path, calibration: Calibration, cosine: Callable[..., float]
) -> None:
    """A ReLU6 in the midst, and weights that two convolutions share: neither passes a factor through."""
    graph = net(image=[1, 3, 40, 40])
    first = graph.conv("first", "image", 5 * weights(4, 3, 1, 1))
    clipped = graph.conv("second", graph.relu6(first), weights(4, 4, 1, 1))
    shared = graph.node("Conv", [graph.node("Relu", [clipped], "relu"), "second.weight"], "third", kernel_shape=[1, 1])
    source = graph.save(tmp_path / "source.onnx", shared)
    channels = number_channels(read_graph(source))
    free = {int(number) for numbers in channels.of.values() for number in numbers} - set(channels.fixed.tolist())
    assert not free
    copy = Path(shutil.copy(source, tmp_path / "copy.onnx"))
    equalise_relus(copy, calibration)
    feed = next(iter(calibration.inputs))["image"]
    assert cosine(run("onnxruntime", copy, {"image": feed}), run("onnxruntime", source, {"image": feed})) > 1 - 1e-6
