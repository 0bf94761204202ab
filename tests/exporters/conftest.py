"""ONNX graphs of the kind that our models export, written by hand, and inputs to calibrate them with.

Weights are structured, not random: orthonormal channel mixing and blurs neither amplify nor drown the rounding noise
of int8, as trained networks do not either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.exporters.calibration import Calibration, Inputs

SIZE, GRID = 40, 5
"""Input pixels and mask cells a side; 5 cells halve to 3, 2 and 1, so that odd sizes are seen."""


class Net:
    """An ONNX graph in the making; every method adds one node and returns the name of its result."""

    def __init__(self, **inputs: list[int]) -> None:
        self.inputs = inputs
        self.outputs: list[str] = []
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def conv(
        self, name: str, source: str, weight: NDArray[Any], bias: NDArray[Any] | None = None, **changes: Any
    ) -> str:
        kernel = list(weight.shape[2:])
        pad = [size // 2 for size in kernel] * 2
        attributes = {"kernel_shape": kernel, "pads": pad, "strides": [1, 1], "group": 1, "dilations": [1, 1]}
        inputs = [source, self.constant(f"{name}.weight", weight.astype(np.float32))]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias.astype(np.float32)))
        return self.node("Conv", inputs, name, **(attributes | changes))

    def relu6(self, source: str, low: float = 0.0, high: float = 6.0) -> str:
        bounds = [self.constant(f"{source}.low", np.float32(low)), self.constant(f"{source}.high", np.float32(high))]
        return self.node("Clip", [source, *bounds], f"{source}.relu6")

    def repeat(self, source: str, factor: int, **changes: Any) -> str:
        name = f"{source}.x{factor}"
        scales = self.constant(f"{name}.scales", np.array([1, 1, factor, factor], np.float32))
        attributes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.node("Resize", [source, "", scales], name, **(attributes | changes))

    def halve(self, source: str) -> str:
        return self.node("MaxPool", [source], f"{source}.half", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def masked(self, source: str, mask: str) -> str:
        return self.node("Mul", [source, mask], f"{source}.masked")

    def flat(self, source: str, numbers: int) -> str:
        last = self.node("Transpose", [source], f"{source}.last", perm=[0, 2, 3, 1])
        return self.node("Reshape", [last, self.constant(f"{source}.shape", [1, -1, numbers])], f"{source}.flat")

    def save(self, path: Path, *outputs: str, check: bool = True) -> Path:
        values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in self.inputs.items()]
        results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "test", values, results, constants)
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        if check:
            model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.save(model, str(path))
        return path


def orthonormal(outputs: int, inputs: int, seed: int) -> NDArray[np.float32]:
    """[outputs, inputs, 1, 1] with orthonormal rows or columns."""
    square = np.random.default_rng(seed).normal(size=(max(outputs, inputs), max(outputs, inputs)))
    return np.linalg.qr(square)[0][:outputs, :inputs, None, None].astype(np.float32)


def blur(channels: int) -> NDArray[np.float32]:
    """[channels, 1, 3, 3] binomial kernels of differing strength."""
    row = np.array([1.0, 2.0, 1.0]) / 4
    strength = np.linspace(0.5, 1.5, channels).reshape(-1, 1, 1, 1)
    return (strength * np.outer(row, row)[None, None]).astype(np.float32)


def detector(path: Path) -> Path:
    """Like our detectors: image and mask in, two levels of masked predictions out; all operations but AveragePool."""
    net = Net(image=[1, 3, SIZE, SIZE], mask=[1, 1, GRID, GRID])
    masks = {1: "mask", 4: net.repeat("mask", 4), 8: net.repeat("mask", 8), 2: net.halve("mask")}
    features = net.masked("image", masks[8])
    features = net.conv(
        "stem", features, np.repeat(orthonormal(16, 3, 0), 9, 1).reshape(16, 3, 3, 3) / 3, strides=[2, 2]
    )
    features = net.masked(net.relu6(features), masks[4])
    deep = net.masked(net.relu6(net.conv("depthwise", features, blur(16), np.full(16, 0.1), group=16)), masks[4])
    deep = net.masked(net.conv("project", deep, orthonormal(16, 16, 1), np.linspace(-0.5, 0.5, 16)), masks[4])
    features = net.node("Add", [features, deep], "residual")
    for name in ("shrink_a", "shrink_b"):
        features = net.relu6(net.conv(name, features, blur(16), np.full(16, 0.2), group=16, strides=[2, 2]))
    near = net.masked(features, masks[1])
    far = net.conv("far", near, blur(16), group=16, strides=[2, 2])
    far = net.masked(net.relu6(far), masks[2])
    for output, numbers, scale in (("class_logits", 2, 6.0), ("box_offsets", 4, 2.0)):
        parts = []
        for level, source, mask in (("near", near, masks[1]), ("far", far, masks[2])):
            weight = scale * orthonormal(2 * numbers, 16, numbers)
            head = net.conv(f"{output}.{level}", source, weight, np.linspace(-1, 1, 2 * numbers))
            parts.append(net.flat(net.masked(head, mask), numbers))
        net.node("Concat", parts, output, axis=1)
    return net.save(path, "class_logits", "box_offsets")


def objectness(path: Path) -> Path:
    """Like OMG: a shrunken image, and a coarse map added to a fine one."""
    net = Net(image=[1, 3, SIZE, SIZE])
    small = net.node("AveragePool", ["image"], "small", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1)
    fine = net.relu6(net.conv("stem", small, orthonormal(8, 3, 0), np.full(8, 0.2), strides=[2, 2]))
    coarse = net.conv("down", fine, blur(8), group=8, strides=[2, 2])
    merged = net.node("Add", [net.repeat(coarse, 2), fine], "merged")
    return net.save(path, net.conv("objectness", merged, orthonormal(1, 8, 3), np.array([0.5])))


def feeds(count: int, seed: int) -> Iterator[Inputs]:
    """Smooth pictures under random masks; every other mask is all ones."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        coarse = generator.uniform(-1, 127 / 128, (1, 3, 5, 5)).astype(np.float32)
        image = np.repeat(np.repeat(coarse, SIZE // 5, 2), SIZE // 5, 3)
        mask = generator.random((1, 1, GRID, GRID)) < (0.5 if index % 2 == 0 else 2)
        yield {"image": np.round(image * 128) / 128, "mask": mask.astype(np.float32)}


class Feeds:
    """The same inputs at each iteration."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __iter__(self) -> Iterator[Inputs]:
        return feeds(self.count, self.seed)


@pytest.fixture(scope="session")
def net() -> type[Net]:
    """The graph builder."""
    return Net


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``detector`` and ``omg`` as ONNX files."""
    folder = tmp_path_factory.mktemp("graphs")
    return {"detector": detector(folder / "detector.onnx"), "omg": objectness(folder / "omg.onnx")}


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """Inputs for the graphs of this folder."""
    return Calibration(inputs=Feeds(24, 1), input_ranges={"image": (-1, 127 / 128)}, images=24, sha256="")


@pytest.fixture(scope="session")
def unseen() -> list[Inputs]:
    """Inputs that no calibration has seen."""
    return list(feeds(6, 2))


@pytest.fixture(scope="session")
def cosine() -> Callable[[NDArray[Any], NDArray[Any]], float]:
    """Cosine of the angle between two tensors."""

    def measure(left: NDArray[Any], right: NDArray[Any]) -> float:
        return float((left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum()))

    return measure
