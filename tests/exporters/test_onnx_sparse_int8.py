"""int8 sparse programs beside int8 TFLite files: the same parameters, and results that differ by rounding alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import load_engine
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.onnx_sparse import to_sparse
from edgekit.exporters.onnx_tflite import to_tflite
from edgekit.sparse.format import read_program
from edgekit.sparse.program import DType, Kind, Program
from edgekit.sparse.reference import run_reference

Results = dict[str, NDArray[np.float32]]


def weights(*shape: int) -> Any:
    """The same for every test, whichever others run."""
    random = np.random.default_rng(np.frombuffer(bytes(shape), np.uint8))
    return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def convert(source: Path, calibration: Calibration, keep: frozenset[str] = frozenset(), **changes: Any) -> Program:
    out = source.with_suffix(".sparse")
    to_sparse(source, out, "int8", calibration, keep, mean=128.0, std=128.0, **changes)
    return read_program(out.read_bytes())


def run(program: Program, inputs: Inputs) -> Results:
    mask = inputs["mask"][0, 0] > 0 if program.mask_rows else None
    return run_reference(program, np.ascontiguousarray(inputs["image"][0].transpose(1, 2, 0)), mask)


def engine(name: str, path: Path) -> Callable[[Inputs], Results]:
    """An engine whose outputs are those of a program: [A, K], or [H * W, C] for a map."""
    loaded = load_engine(name, path, threads=1)

    def call(inputs: Inputs) -> Results:
        found = loaded.run(inputs)
        return {
            name: value[0] if value.ndim == 3 else value[0].transpose(1, 2, 0).reshape(-1, value.shape[1])
            for name, value in found.items()
        }

    return call


def kinds(program: Program) -> Counter[str]:
    return Counter(operation.kind.name for operation in program.operations)


def quantum(program: Program, output: str = "") -> float:
    """The step of an output: the scale of what becomes the output ``output``, or the only one."""
    names = [one.name for one in program.outputs]
    number = names.index(output) if output else 0
    last = next(one for one in program.operations if one.kind is Kind.OUTPUT and one.output == number)
    assert last.input is not None
    return program.tensors[last.input].scale


@pytest.fixture
def detector(net: Any, tmp_path: Path) -> Path:
    """Stem, an inverted residual, two levels of heads; all masked."""
    graph = net(image=[1, 3, 40, 40], mask=[1, 1, 5, 5])
    levels = {40: graph.repeat("mask", 8), 20: graph.repeat("mask", 4), 10: graph.repeat("mask", 2), 5: "mask"}

    def block(name: str, source: str, weight: Any, side: int, *, relu: bool = True, **attributes: Any) -> str:
        result = graph.conv(name, source, weight, 0.3 * weights(len(weight), 1)[:, 0], **attributes)
        return str(graph.masked(graph.relu6(result) if relu else result, levels[side]))

    stem = block("stem", graph.masked("image", levels[40]), 2 * weights(16, 3, 3, 3), 20, strides=[2, 2])
    deep = block("expand", stem, 2 * weights(32, 16, 1, 1), 20)
    deep = block("depthwise", deep, 2 * weights(32, 1, 3, 3), 20, group=32)
    deep = block("project", deep, 2 * weights(16, 32, 1, 1), 20, relu=False)
    features = graph.node("Add", [stem, deep], "residual")
    near = block("near", features, 2 * weights(24, 16, 3, 3), 10, strides=[2, 2])
    far = block("far", near, 2 * weights(24, 1, 3, 3), 5, group=24, strides=[2, 2])
    for output, numbers in (("class_logits", 2), ("box_offsets", 4)):
        parts = []
        for level, source, side in (("near", near, 10), ("far", far, 5)):
            head = block(f"{output}.{level}", source, 1.5 * weights(3 * numbers, 24, 1, 1), side, relu=False)
            parts.append(graph.flat(head, numbers))
        graph.node("Concat", parts, output, axis=1)
    path: Path = graph.save(tmp_path / "detector.onnx", "class_logits", "box_offsets")
    return path


# One operation after the image: at most one quantum apart, where a value lies between two


def dense(graph: Any) -> str:
    return str(graph.conv("conv", "image", weights(8, 3, 3, 3), weights(8, 1)[:, 0]))


def strided(graph: Any) -> str:
    return str(graph.relu6(graph.conv("conv", "image", 4 * weights(8, 3, 3, 3), strides=[2, 2])))


def depthwise(graph: Any) -> str:
    return str(graph.conv("conv", "image", weights(3, 1, 3, 3), weights(3, 1)[:, 0], group=3))


def max_pool(graph: Any) -> str:
    return str(graph.halve("image"))


def average_pool(graph: Any) -> str:
    return str(graph.node("AveragePool", ["image"], "pooled", kernel_shape=[2, 2], strides=[2, 2]))


def added(graph: Any) -> str:
    return str(graph.relu6(graph.node("Add", ["image", "image"], "sum")))


def repeated(graph: Any) -> str:
    return str(graph.repeat("image", 2))


def residual(graph: Any) -> str:
    """TFLite rounds the convolution before it adds, so its sum is half a quantum of either off."""
    deep = graph.conv("conv", "image", 0.3 * weights(3, 3, 3, 3), weights(3, 1)[:, 0])
    return str(graph.node("Add", ["image", deep], "sum"))


SINGLE = [dense, strided, depthwise, max_pool, average_pool, added, repeated, residual]


@pytest.mark.parametrize("build", SINGLE, ids=lambda build: build.__name__)
def test_one_operation_is_within_a_quantum_of_tflite(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs], build: Callable[[Any], str]
) -> None:
    graph = net(image=[1, 3, 40, 40])
    source = graph.save(tmp_path / "graph.onnx", build(graph))
    program = convert(source, calibration)
    to_tflite(source, tmp_path / "graph.tflite", "int8", calibration)
    reference = engine("tflite", tmp_path / "graph.tflite")
    differ = []
    for inputs in unseen:
        used = {"image": inputs["image"]}
        (found,), (expected,) = run(program, used).values(), reference(used).values()
        steps = np.abs(found - expected) / quantum(program)
        assert steps.max() < 1.001
        differ.append((steps > 0.5).mean())
    assert np.mean(differ) < (0.2 if build is residual else 0.005)


def test_the_parameters_are_those_of_the_tflite_file(
    detector: Path, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    """The scales of all tensors; zero points are 128 higher."""
    from ai_edge_litert.interpreter import Interpreter

    program = convert(detector, calibration)
    to_tflite(detector, tmp_path / "graph.tflite", "int8", calibration)
    interpreter = Interpreter(str(tmp_path / "graph.tflite"))
    details = [one for one in interpreter.get_tensor_details() if one["dtype"] == np.int8]
    theirs = {(np.float32(one["quantization"][0]), one["quantization"][1] + 128) for one in details}
    ours = {(np.float32(one.scale), one.zero_point) for one in program.tensors}
    assert {one.dtype for one in program.tensors} == {DType.UINT8}
    assert ours < theirs  # theirs has the mask, and what lies between a convolution and its residual
    image = program.tensors[0]
    assert (image.scale, image.zero_point) == (1 / 128, 128)  # a pixel is its own number
    assert kinds(program) == {"INPUT": 1, "CONV": 8, "DEPTHWISE": 2, "OUTPUT": 4}


def test_a_detector_is_as_near_to_float_as_in_tflite(
    detector: Path, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    """A quantum here and there becomes several on the way through ten layers; none of them may have a direction.

    Measured: half a quantum of the output on average, four at most, and a smaller error than TFLite's everywhere.
    """
    program = convert(detector, calibration)
    to_tflite(detector, tmp_path / "graph.tflite", "int8", calibration)
    tflite, exact = engine("tflite", tmp_path / "graph.tflite"), engine("onnxruntime", detector)
    errors = {"sparse": 0.0, "tflite": 0.0}
    for inputs in unseen:
        ours, theirs, expected = run(program, inputs), tflite(inputs), exact(inputs)
        for name in ours:
            steps = np.abs(ours[name] - theirs[name]) / quantum(program, name)
            assert steps.mean() < 1
            assert steps.max() < 5.001
            errors["sparse"] += float(((ours[name] - expected[name]) ** 2).sum())
            errors["tflite"] += float(((theirs[name] - expected[name]) ** 2).sum())
            assert np.array_equal(ours[name].any(axis=1) | (expected[name] == 0).all(axis=1), np.ones(len(ours[name])))
            assert not ours[name][(expected[name] == 0).all(axis=1)].any()
    assert errors["sparse"] < 1.1 * errors["tflite"]


def test_an_objectness_network(
    graphs: dict[str, Path], tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    program = convert(graphs["omg"], calibration)
    to_tflite(graphs["omg"], tmp_path / "graph.tflite", "int8", calibration)
    reference = engine("tflite", tmp_path / "graph.tflite")
    for inputs in unseen:
        used = {"image": inputs["image"]}
        steps = np.abs(run(program, used)["objectness"] - reference(used)["objectness"]) / quantum(program)
        assert steps.max() < 2.001
        assert steps.mean() < 0.3


def test_nothing_is_predicted_where_nothing_is_active(
    detector: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    program = convert(detector, calibration)
    inputs = {"image": unseen[0]["image"], "mask": np.zeros((1, 1, 5, 5), np.float32)}
    assert not any(values.any() for values in run(program, inputs).values())


def test_predictions_may_stay_float(detector: Path, calibration: Calibration, unseen: list[Inputs]) -> None:
    """Integer convolutions then give float32, without the steps of a uint8 output."""
    rounded = convert(detector, calibration)
    program = convert(detector, calibration, float_predictions=True)
    assert kinds(program) == kinds(rounded)
    heads = [one for one in program.operations if one.kind is Kind.OUTPUT]
    assert all(program.tensors[one.input or 0].dtype is DType.FLOAT32 for one in heads)
    exact = engine("onnxruntime", detector)
    errors = dict.fromkeys((True, False), 0.0)
    for inputs in unseen:
        expected = exact(inputs)
        for is_float, one in ((True, program), (False, rounded)):
            for name, values in run(one, inputs).items():
                errors[is_float] += float(((values - expected[name]) ** 2).sum())
    assert errors[True] < errors[False]


def test_kept_layers_are_computed_in_float(detector: Path, calibration: Calibration, unseen: list[Inputs]) -> None:
    """A kept project's sum is integer again, so it is no residual of a convolution; a kept head's output is float."""
    program = convert(detector, calibration, frozenset({"project", "class_logits.near"}))
    assert kinds(program) - kinds(convert(detector, calibration)) == Counter({"DEQUANTISE": 2, "QUANTISE": 1, "ADD": 1})
    kept = [one for one in program.operations if one.weights is not None and one.weights.dtype == np.float32]
    assert [one.kind for one in kept] == [Kind.INPUT, Kind.CONV, Kind.CONV]
    plain = convert(detector, calibration)
    exact, errors = engine("onnxruntime", detector), dict.fromkeys((True, False), 0.0)
    for inputs in unseen:
        expected = exact(inputs)["class_logits"]
        for is_kept, one in ((True, program), (False, plain)):
            errors[is_kept] += float(((run(one, inputs)["class_logits"] - expected) ** 2).sum())
    assert errors[True] < errors[False]


def test_everything_can_be_kept(detector: Path, calibration: Calibration, unseen: list[Inputs]) -> None:
    from edgekit.exporters.onnx_graph import read_graph

    program = convert(detector, calibration, frozenset(read_graph(detector).convolutions()))
    for name, expected in engine("onnxruntime", detector)(unseen[0]).items():
        assert np.abs(run(program, unseen[0])[name] - expected).max() < 0.05 * np.abs(expected).max()


def crelu(graph: Any) -> str:
    """As in PVANet, with a channel whose factor is small beside its shift."""
    deep = graph.conv("conv", "image", 3 * weights(4, 3, 3, 3), weights(4, 1)[:, 0])
    both = graph.node("Concat", [deep, graph.node("Neg", [deep], "negative")], "both", axis=1)
    factors, shifts = np.abs(weights(1, 8, 1, 1)) + 0.5, weights(1, 8, 1, 1)
    factors[0, 5], shifts[0, 5] = 1e-4, 1.0
    scaled = graph.node("Mul", [both, graph.constant("factors", factors)], "scaled")
    shifted = graph.node("Add", [scaled, graph.constant("shifts", shifts)], "shifted")
    return str(graph.node("Relu", [shifted], "relu"))


def deconvolution(graph: Any) -> str:
    attributes = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], "group": 3}
    kernel = graph.constant("kernel", weights(3, 1, 4, 4))
    return str(graph.node("ConvTranspose", ["image", kernel], "doubled", **attributes))


def joined(graph: Any) -> str:
    first = graph.conv("first", "image", weights(4, 3, 3, 3))
    second = graph.relu6(graph.conv("second", "image", 3 * weights(5, 3, 1, 1)))
    return str(
        graph.conv("last", graph.node("Concat", [first, second, "image"], "joined", axis=1), weights(6, 12, 1, 1))
    )


@pytest.mark.parametrize(
    "keep", [frozenset(), frozenset({"conv"}), frozenset({"first"})], ids=["none", "conv", "first"]
)
@pytest.mark.parametrize("build", [crelu, deconvolution, joined], ids=lambda build: build.__name__)
def test_what_tflite_files_do_not_have_is_close_to_float(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs], build: Any, keep: frozenset[str]
) -> None:
    graph = net(image=[1, 3, 40, 40])
    source = graph.save(tmp_path / "graph.onnx", build(graph))
    kept = keep & {name.removesuffix(".weight") for name in graph.constants}
    program = convert(source, calibration, kept)
    exact = engine("onnxruntime", source)
    for inputs in unseen:
        used = {"image": inputs["image"]}
        (found,), (expected,) = run(program, used).values(), exact(used).values()
        assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_the_same_input_gives_the_same_file(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    for name in ("a", "b"):
        to_sparse(graphs["omg"], tmp_path / name, "int8", calibration, mean=128.0, std=128.0)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dead_channel_keeps_its_bias(
    net: Any, tmp_path: Path, calibration: Calibration, unseen: list[Inputs]
) -> None:
    """Weights of nothing and a bias of 3: a scale that fits the weights alone would overflow the bias."""
    graph = net(image=[1, 3, 40, 40])
    weight = np.full((2, 3, 1, 1), 1e-20)
    weight[1] = 0.5
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", weight, np.array([3.0, 0.0])))
    found = run(convert(source, replace(calibration, images=24)), {"image": unseen[0]["image"]})["conv"]
    assert np.abs(found[:, 0] - 3).max() < 0.05
