"""ONNX graphs as sparse programs: they compute what onnxruntime does, whatever the mask, and say what they cannot."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_sparse import to_sparse
from edgekit.sparse.format import read_program
from edgekit.sparse.program import Kind, Program
from edgekit.sparse.reference import run_reference

RANDOM = np.random.default_rng(0)
NORMALISATION = {"mean": 128.0, "std": 128.0}


def weights(*shape: int) -> Any:
    return (RANDOM.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def convert(source: Path, **changes: Any) -> Program:
    """The fp32 program of a graph."""
    out = source.with_suffix(".sparse")
    to_sparse(source, out, "fp32", **(NORMALISATION | changes))
    return read_program(out.read_bytes())


def kinds(program: Program) -> Counter[str]:
    return Counter(operation.kind.name for operation in program.operations)


def rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """An output of the ONNX graph as one of the program: [1, A, K] -> [A, K], [1, C, H, W] -> [H * W, C]."""
    if values.ndim == 3:
        return values[0]
    return values[0].transpose(1, 2, 0).reshape(-1, values.shape[1])


def masks(cells: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    single = np.zeros(cells, np.bool_)
    single[cells[0] // 2, cells[1] // 3] = True
    blobs = np.zeros(cells, np.bool_)
    blobs[: cells[0] // 2, cells[1] // 2 :] = True
    blobs[-1, 0] = True
    some = RANDOM.random(cells) < 0.4
    return {"all": np.ones(cells, np.bool_), "none": ~np.ones(cells, np.bool_), "one": single, "blobs": blobs,
            "some": some}  # fmt: skip


def check_equal(source: Path, program: Program, *, tolerance: float = 1e-4) -> None:
    """The program gives what onnxruntime gives, for a random image and all kinds of masks."""
    first = program.tensors[program.operations[0].output]
    level = program.levels[first.level]
    image = RANDOM.uniform(-1, 1, (level.rows, level.columns, first.channels)).astype(np.float32)
    engine = load_engine("onnxruntime", source, threads=1)
    feed = {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None])}
    cells = (program.mask_rows, program.mask_columns)
    for mask in masks(cells).values() if program.mask_rows else [None]:
        if mask is not None:
            feed["mask"] = mask.astype(np.float32)[None, None]
        found = run_reference(program, image, mask)
        expected = {name: rows(values) for name, values in engine.run(feed).items()}
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert found[name].shape == values.shape
            assert np.abs(found[name] - values).max() <= tolerance * max(1.0, float(np.abs(values).max()))
            assert np.array_equal(found[name] == 0, values == 0)


def masked_detector(net: Any, path: Path) -> Path:
    """Like our detectors: every convolution is masked, two levels of predictions; 40x40 pixels, 5x5 cells."""
    graph = net(image=[1, 3, 40, 40], mask=[1, 1, 5, 5])
    levels = {40: graph.repeat("mask", 8), 20: graph.repeat("mask", 4), 10: graph.repeat("mask", 2), 5: "mask",
              3: graph.halve("mask")}  # fmt: skip

    def block(name: str, source: str, weight: Any, side: int, *, relu: bool = True, **attributes: Any) -> str:
        result = graph.conv(name, source, weight, 0.3 * weights(len(weight), 1)[:, 0], **attributes)
        return str(graph.masked(graph.relu6(result) if relu else result, levels[side]))

    stem = block("stem", graph.masked("image", levels[40]), weights(16, 3, 3, 3), 20, strides=[2, 2])
    deep = block("depthwise", stem, weights(16, 1, 3, 3), 20, group=16)
    deep = block("project", deep, weights(16, 16, 1, 1), 20, relu=False)
    features = graph.node("Add", [stem, deep], "residual")
    features = block("shrink", features, weights(16, 1, 3, 3), 10, group=16, strides=[2, 2])
    near = block("near", features, weights(24, 16, 3, 3), 5, strides=[2, 2])
    far = block("far", near, weights(24, 1, 3, 3), 3, group=24, strides=[2, 2])
    for output, numbers in (("class_logits", 2), ("box_offsets", 4)):
        parts = []
        for level, source, side in (("near", near, 5), ("far", far, 3)):
            head = block(f"{output}.{level}", source, 4 * weights(3 * numbers, 24, 1, 1), side, relu=False)
            parts.append(graph.flat(head, numbers))
        graph.node("Concat", parts, output, axis=1)
    result: Path = graph.save(path, "class_logits", "box_offsets")
    return result


def test_a_detector(net: Any, tmp_path: Path) -> None:
    source = masked_detector(net, tmp_path / "detector.onnx")
    program = convert(source)
    check_equal(source, program)
    assert (program.mask_rows, program.mask_columns) == (5, 5)
    assert kinds(program) == {"INPUT": 1, "CONV": 7, "DEPTHWISE": 3, "OUTPUT": 4}
    assert [(output.name, output.rows, output.columns) for output in program.outputs] == [
        ("class_logits", 3 * (25 + 9), 2),
        ("box_offsets", 3 * (25 + 9), 4),
    ]
    assert sum(operation.second is not None for operation in program.operations) == 1
    assert all(level.masked for level in program.levels)


def test_an_objectness_network(graphs: dict[str, Path]) -> None:
    """AveragePool, a coarse map added to a fine one, no mask; the output is a map."""
    program = convert(graphs["omg"])
    check_equal(graphs["omg"], program)
    assert (program.mask_rows, program.mask_columns) == (0, 0)
    assert program.outputs[0].rows == 100
    assert program.outputs[0].columns == 1


def test_the_tiny_detector(tiny: ModuleType, tmp_path: Path) -> None:
    """Its pools need no mask behind them, as a window under an inactive cell is all zero; those of 16x16 are two."""
    for source in (tiny.onnx_detector(tmp_path / "detector.onnx"), tiny.onnx_omg(tmp_path / "omg.onnx")):
        program = convert(source)
        check_equal(source, program)
        strides = [operation.stride for operation in program.operations if operation.kind is Kind.AVGPOOL]
        assert strides[:2] == [4, 4]


def test_pixels_are_normalised(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 3, 4, 4])
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", weights(2, 3, 1, 1)))
    program = convert(source, mean=100.0, std=50.0)
    pixels = RANDOM.integers(0, 256, (4, 4, 3), np.uint8)
    normalised = (pixels.astype(np.float32) - 100) / 50
    assert np.array_equal(
        run_reference(program, pixels, None)["conv"], run_reference(program, normalised, None)["conv"]
    )


@pytest.mark.slow
def test_the_registered_model(tmp_path: Path) -> None:
    """As exported from PyTorch, with the batch norms of an untrained network, at a small size."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which the export extra brings")
    from edgekit.exporters.torch_onnx import export_onnx
    from edgekit.models.registry import build

    torch.manual_seed(0)
    paths = export_onnx(build("mobilenetv2-ssdlite-omg", ("a", "b"), size=128), tmp_path)
    programs = {name: convert(path) for name, path in paths.items()}
    for name, program in programs.items():
        check_equal(paths[name], program)
    assert (programs["detector"].mask_rows, programs["omg"].mask_rows) == (8, 0)
    assert [output.name for output in programs["detector"].outputs] == ["class_logits", "box_offsets"]
    assert kinds(programs["detector"]) == {"INPUT": 1, "CONV": 55, "DEPTHWISE": 33, "OUTPUT": 12}
    assert not {"ADD", "MAXPOOL"} & set(kinds(programs["omg"]))


def test_a_network_of_other_modules(tmp_path: Path) -> None:
    """7x7 stem, C.ReLU, max-pool, a sum and a hyper feature map of two resolutions, as in arXiv 1611.08588."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which the export extra brings")
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
            self.scale, self.shift = nn.Parameter(torch.rand(16, 1, 1) + 0.5), nn.Parameter(torch.randn(16, 1, 1))
            self.deep, self.norm = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
            self.up = nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1, groups=16, bias=False)
            self.head = nn.Conv2d(32, 6, 1)

        def forward(self, image: Any, mask: Any) -> Any:
            at = {factor: F.interpolate(mask, scale_factor=factor, mode="nearest") for factor in (8.0, 4.0, 2.0)}
            x = self.stem(image * at[8])
            fine = F.relu(torch.cat([x, -x], 1) * self.scale + self.shift) * at[4]
            deep = F.relu6(self.norm(self.deep(fine)) + F.max_pool2d(fine, 3, 2, 1)) * at[2]
            hyper = torch.cat([fine, self.up(deep)], 1) * at[4]
            return (self.head(hyper) * at[4]).permute(0, 2, 3, 1).reshape(1, -1, 3)

    torch.manual_seed(0)
    source = tmp_path / "graph.onnx"
    inputs = torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter's own age
        torch.onnx.export(
            Net().eval(), inputs, str(source), dynamo=False, opset_version=17, input_names=["image", "mask"],
            output_names=["scores"],
        )  # fmt: skip
    program = convert(source)
    check_equal(source, program)
    expected = {"INPUT": 1, "CONV": 3, "MAXPOOL": 1, "DECONV": 1, "UPSAMPLE": 1, "OUTPUT": 1}
    assert kinds(program) == expected  # one copy: the fine map is pooled too, so it is no part of the concat alone
    assert program.outputs[0].columns == 3


# Single operations


def features(net: Any, channels: int = 4, side: int = 8) -> tuple[Any, str]:
    """A graph and a masked feature map of it."""
    graph = net(image=[1, 3, side, side], mask=[1, 1, side, side])
    return graph, graph.masked(
        graph.conv("first", "image", weights(channels, 3, 1, 1), weights(channels, 1)[:, 0]), "mask"
    )


def without_bias(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    return graph, graph.masked(graph.conv("conv", source, weights(8, 4, 3, 3)), "mask")


def rectangular(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    return graph, graph.masked(graph.conv("conv", source, weights(5, 4, 7, 3), pads=[3, 2, 3, 0]), "mask")


def strided_point(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    return graph, graph.masked(graph.conv("conv", source, weights(5, 4, 1, 1), strides=[2, 2]), graph.halve("mask"))


def one_channel(net: Any) -> tuple[Any, str]:
    """Neither dense nor depthwise: a group of one channel is both."""
    graph, source = features(net, channels=1)
    return graph, graph.masked(graph.conv("conv", source, weights(5, 1, 3, 3)), "mask")


def relu(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    return graph, graph.masked(graph.node("Relu", [graph.conv("conv", source, weights(8, 4, 3, 3))], "relu"), "mask")


def activation_behind_the_mask(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    return graph, graph.relu6(graph.masked(graph.conv("conv", source, 9 * weights(8, 4, 3, 3)), "mask"))


def residual_behind_the_mask(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    deep = graph.masked(graph.conv("conv", source, weights(4, 4, 3, 3)), "mask")
    return graph, graph.relu6(graph.node("Add", [deep, source], "sum"))


def two_convolutions_added(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    first = graph.conv("conv_1", source, weights(6, 4, 3, 3))
    second = graph.conv("conv_2", source, weights(6, 4, 1, 1))
    return graph, graph.masked(graph.node("Add", [first, second], "sum"), "mask")


def added_to_itself(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    deep = graph.conv("conv", source, weights(4, 4, 3, 3))
    return graph, graph.masked(graph.node("Add", [deep, deep], "sum"), "mask")


def residual_that_is_read_again(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    deep = graph.masked(graph.conv("conv", source, weights(4, 4, 3, 3)), "mask")
    total = graph.node("Add", [deep, source], "sum")
    return graph, graph.masked(
        graph.conv("last", graph.node("Add", [total, deep], "twice"), weights(3, 4, 3, 3)), "mask"
    )


def channels_joined(net: Any) -> tuple[Any, str]:
    """Three parts: one that only the concat reads, one that is read twice, and the image."""
    graph, source = features(net)
    deep = graph.masked(graph.relu6(graph.conv("conv", source, weights(6, 4, 3, 3))), "mask")
    image = graph.masked("image", "mask")
    joined = graph.node("Concat", [deep, source, image], "joined", axis=1)
    return graph, graph.masked(graph.conv("last", joined, weights(3, 13, 3, 3)), "mask")


def joined_with_itself(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    deep = graph.masked(graph.conv("conv", source, weights(2, 4, 3, 3)), "mask")
    return graph, graph.node("Concat", [deep, deep], "joined", axis=-3)


def pooled_and_joined(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    half = graph.halve("mask")
    pooled = graph.node("MaxPool", [source], "max", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    average = graph.node("AveragePool", [source], "average", kernel_shape=[2, 2], strides=[2, 2])
    return graph, graph.masked(graph.node("Concat", [pooled, average], "joined", axis=1), half)


def max_pool_ceiling(net: Any) -> tuple[Any, str]:
    graph, source = features(net, side=7)
    return graph, graph.node("MaxPool", [source], "max", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


def repeated(net: Any) -> tuple[Any, str]:
    """A pyramid: the coarse map may be read before it is masked, for finer sites lie under active ones."""
    graph, source = features(net)
    half = graph.halve("mask")
    coarse = graph.conv("coarse", source, weights(4, 4, 3, 3), strides=[2, 2])
    coarse = graph.conv("again", graph.masked(coarse, half), weights(4, 4, 3, 3))
    return graph, graph.masked(graph.node("Add", [graph.repeat(coarse, 2), source], "sum"), "mask")


def deconvolution(net: Any) -> tuple[Any, str]:
    graph, source = features(net)
    attributes = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], "group": 4, "dilations": [1, 1]}
    inputs = [source, graph.constant("kernel", weights(4, 1, 4, 4)), graph.constant("bias", weights(4, 1)[:, 0])]
    doubled = graph.node("ConvTranspose", inputs, "doubled", **attributes)
    return graph, graph.masked(graph.relu6(doubled), graph.repeat("mask", 2))


def crelu(net: Any) -> tuple[Any, str]:
    """arXiv 1603.05201, with the scale and shift of PVANet (arXiv 1611.08588)."""
    graph, source = features(net)
    deep = graph.conv("conv", source, weights(4, 4, 3, 3), weights(4, 1)[:, 0])
    both = graph.node("Concat", [deep, graph.node("Neg", [deep], "negative")], "both", axis=1)
    factors = np.abs(weights(1, 8, 1, 1)) + 0.5
    factors[0, 3] *= -1
    scaled = graph.node("Mul", [both, graph.constant("factors", factors)], "scaled")
    shifted = graph.node("Add", [graph.constant("shifts", weights(8, 1, 1)), scaled], "shifted")
    return graph, graph.masked(graph.node("Relu", [shifted], "relu"), "mask")


def crelu_of_the_masked(net: Any) -> tuple[Any, str]:
    """Negative first, ReLU6, and masks wherever they may be."""
    graph, source = features(net)
    deep = graph.masked(graph.conv("conv", source, 4 * weights(4, 4, 3, 3)), "mask")
    both = graph.node("Concat", [graph.node("Neg", [deep], "negative"), deep], "both", axis=1)
    return graph, graph.relu6(graph.masked(both, "mask"))


OPERATIONS = [
    without_bias, rectangular, strided_point, one_channel, relu, activation_behind_the_mask, residual_behind_the_mask,
    two_convolutions_added, added_to_itself, residual_that_is_read_again, channels_joined, joined_with_itself,
    pooled_and_joined, max_pool_ceiling, repeated, deconvolution, crelu, crelu_of_the_masked,
]  # fmt: skip


@pytest.mark.parametrize("build", OPERATIONS, ids=lambda build: build.__name__)
def test_equals_onnxruntime(net: Any, tmp_path: Path, build: Callable[[Any], tuple[Any, str]]) -> None:
    graph, output = build(net)
    source = graph.save(tmp_path / "graph.onnx", output)
    check_equal(source, convert(source))


FORMS = [
    (activation_behind_the_mask, {"CONV": 2}),
    (residual_behind_the_mask, {"CONV": 2}),
    (two_convolutions_added, {"CONV": 3}),
    (added_to_itself, {"CONV": 2, "ADD": 1}),
    (residual_that_is_read_again, {"CONV": 3, "ADD": 2}),
    (channels_joined, {"CONV": 3, "UPSAMPLE": 2}),  # two copies: of what is read elsewhere too
    (joined_with_itself, {"CONV": 2, "UPSAMPLE": 2}),
    (pooled_and_joined, {"CONV": 1, "MAXPOOL": 1, "AVGPOOL": 1}),
    (repeated, {"CONV": 3, "UPSAMPLE": 1, "ADD": 1}),
    (deconvolution, {"CONV": 1, "DECONV": 1}),
    (crelu, {"CONV": 2}),
    (crelu_of_the_masked, {"CONV": 2}),
]


@pytest.mark.parametrize(("build", "expected"), FORMS, ids=[build.__name__ for build, _ in FORMS])
def test_what_can_be_computed_at_once_is(net: Any, tmp_path: Path, build: Any, expected: dict[str, int]) -> None:
    graph, output = build(net)
    program = convert(graph.save(tmp_path / "graph.onnx", output))
    assert kinds(program) == {"INPUT": 1, "OUTPUT": 1, **expected}
    assert {tensor.level for tensor in program.tensors} == set(range(len(program.levels)))


def test_the_same_graph_gives_the_same_file(net: Any, tmp_path: Path) -> None:
    source = masked_detector(net, tmp_path / "detector.onnx")
    for name in ("a", "b"):
        to_sparse(source, tmp_path / "folder" / name, "fp32", **NORMALISATION)
    assert (tmp_path / "folder" / "a").read_bytes() == (tmp_path / "folder" / "b").read_bytes()


def test_requests_that_cannot_be_served(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    out = tmp_path / "out.sparse"
    with pytest.raises(ExportError, match="no half-precision weights; expected fp32 or int8, got fp16"):
        to_sparse(graphs["omg"], out, "fp16", **NORMALISATION)
    with pytest.raises(ExportError, match="int8 needs calibration pictures"):
        to_sparse(graphs["omg"], out, "int8", **NORMALISATION)
    with pytest.raises(ExportError, match=r"cannot keep 'sten' in float32.*did you mean 'stem'"):
        to_sparse(graphs["omg"], out, "int8", calibration, frozenset({"sten"}), **NORMALISATION)
    with pytest.raises(ExportError, match=r"beyond what a sparse program can hold\. operation 0 .*a std above 0"):
        to_sparse(graphs["omg"], out, "fp32", mean=0.0, std=0.0)
    assert not out.exists()
