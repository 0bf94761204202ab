"""PVANet's graphs in int8: close to float in every engine, close to each other, and nothing outside the mask.

The networks are random, with norms that differ from channel to channel as trained ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgekit.backends import load_engine
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.onnx_onnx import to_onnx
from edgekit.exporters.onnx_openvino import to_openvino
from edgekit.exporters.onnx_sparse import to_sparse
from edgekit.exporters.onnx_tflite import to_tflite
from edgekit.exporters.pvanet_onnx import export_pvanet
from edgekit.exporters.relu_equalisation import equalise_relus
from edgekit.models.pvanet import PVANet
from edgekit.sparse.format import read_program
from edgekit.sparse.program import DType, Kind

HEIGHT, WIDTH, ROIS = 96, 64, 6
CASES = [
    ("9.0", "shared"),
    pytest.param(("9.1", "shared"), marks=pytest.mark.slow),
    pytest.param(("lite", "shared"), marks=pytest.mark.slow),
    ("9.1", "head"),
]
LEAST_DB = {"9.0": 20.0, "9.1": 26.0, "lite": 32.0}
"""Signal over noise of each raw output."""


def network(variant: str) -> PVANet:
    torch.manual_seed(0)
    made = PVANet(variant, classes=3, compressed=True, width=0.125).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in made.named_parameters():
        if "scale" in name.split(".")[-2]:
            parameter.data.uniform_(0.6, 1.4) if name.endswith("weight") else parameter.data.normal_(0, 0.1)
    for layer in (made.rpn.rpn_cls_score, made.rpn.rpn_bbox_pred, made.head.cls_score, made.head.bbox_pred):
        layer.weight.data.normal_(0, 0.05)
    return made


@dataclass(frozen=True)
class Pictures:
    """Smooth pictures under random masks, or what could be pooled from RoIs: the same at each iteration."""

    shape: tuple[int, ...]
    mask: tuple[int, ...]
    count: int
    seed: int

    def __iter__(self):  # type: ignore[no-untyped-def]
        random = np.random.default_rng(self.seed)
        for number in range(self.count):
            if self.shape[2] == HEIGHT:
                coarse = random.normal(0, 60, (*self.shape[:2], HEIGHT // 8, WIDTH // 8))
                image = np.clip(np.repeat(np.repeat(coarse, 8, 2), 8, 3), -128, 127)
            else:
                image = np.maximum(random.normal(0, 1, self.shape), 0)
            mask = random.random(self.mask) < (0.6 if number % 2 else 2)
            yield {"image": image.astype(np.float32), "mask": mask.astype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One graph with what it is calibrated and judged by."""

    variant: str
    graph: str
    path: Path
    exact: Path
    """Before its channels were evened out."""

    calibration: Calibration
    unseen: list[Inputs]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    variant, graph = request.param
    folder = tmp_path_factory.mktemp(graph)
    made = network(variant)
    exact = export_pvanet(made, folder, height=HEIGHT, width=WIDTH, rois=ROIS)[graph]
    if graph == "shared":
        shape, mask = (1, 3, HEIGHT, WIDTH), (1, 1, HEIGHT // 16, WIDTH // 16)
    else:
        shape, mask = (1, made.head.channels * 36, ROIS, 1), (1, 1, ROIS, 1)
    calibration = Calibration(inputs=Pictures(shape, mask, 8, 1), images=8, sha256="")
    path = folder / f"even_{graph}.onnx"
    path.write_bytes(exact.read_bytes())
    equalise_relus(path, calibration)
    unseen = list(Pictures(shape, mask, 4, 2))
    return Case(variant=variant, graph=graph, path=path, exact=exact, calibration=calibration, unseen=unseen)


def sparse(
    path: Path, out: Path, precision: object, calibration: Calibration, keep_float: frozenset[str] = frozenset()
) -> None:
    assert precision == "int8"
    to_sparse(path, out, "int8", calibration, keep_float, mean=0.0, std=1.0, float_predictions=True)


ENGINES: dict[str, tuple[str, Callable[..., None]]] = {
    "onnxruntime": (".int8.onnx", to_onnx),
    "openvino": (".xml", to_openvino),
    "tflite": (".tflite", to_tflite),
    "native": (".sparse", sparse),
}


def decibels(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / max(noise, 1e-30)))


def test_every_engine_is_close_to_float_and_to_the_others(case: Case) -> None:
    reference = load_engine("onnxruntime", case.exact, threads=1)
    wanted = [reference.run(feed) for feed in case.unseen]
    found = {}
    for name, (suffix, convert) in ENGINES.items():
        pytest.importorskip("ai_edge_litert" if name == "tflite" else "openvino" if name == "openvino" else "numpy")
        out = case.path.with_suffix(suffix)
        convert(case.path, out, "int8", case.calibration)
        engine = load_engine(name, out, threads=1, options={"precision": "int8"})
        found[name] = [engine.run(feed) for feed in case.unseen]
    for output in wanted[0]:
        exact = np.concatenate([one[output] for one in wanted])
        outside = (exact == 0).all(axis=2)
        assert outside.any()
        for name, results in found.items():
            values = np.concatenate([one[output] for one in results]).reshape(exact.shape)
            assert not values[outside].any(), (name, output)
            assert decibels(values, exact) > LEAST_DB[case.variant], (name, output)


def test_nothing_falls_back_to_float_in_a_program(case: Case) -> None:
    """Parts of the hyper feature that other layers read, too, are brought to its scale in integers."""
    out = case.path.with_suffix(".program")
    to_sparse(case.path, out, "int8", case.calibration, mean=0.0, std=1.0)
    program = read_program(out.read_bytes())
    assert {tensor.dtype for tensor in program.tensors} == {DType.UINT8}
    kinds = {operation.kind for operation in program.operations}
    assert not kinds & {Kind.QUANTISE, Kind.DEQUANTISE}
    assert (Kind.AVGPOOL in kinds) == (case.graph == "shared")


KEPT = frozenset({"network.trunk.conv1_1.conv", "network.trunk.conv2_1.proj", "network.hyper.upsample.ConvTranspose"})
"""A C.ReLU, a shortcut and the interpolation."""


@pytest.mark.parametrize("name", ENGINES)
def test_layers_of_every_kind_can_be_kept_in_float(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip({"tflite": "ai_edge_litert", "openvino": "openvino"}.get(name, "numpy"))
    folder = tmp_path_factory.mktemp(name)
    path = export_pvanet(network("9.0"), folder, height=HEIGHT, width=WIDTH, rois=ROIS)["shared"]
    pictures = Pictures((1, 3, HEIGHT, WIDTH), (1, 1, HEIGHT // 16, WIDTH // 16), 4, 1)
    calibration = Calibration(inputs=pictures, images=4, sha256="")
    suffix, convert = ENGINES[name]
    reference = load_engine("onnxruntime", path, threads=1)
    out = folder / f"kept{suffix}"
    convert(path, out, "int8", calibration, KEPT)
    engine = load_engine(name, out, threads=1, options={"precision": "int8"})
    for feed in pictures:
        wanted, found = reference.run(feed), engine.run(feed)
        for output in wanted:
            assert decibels(found[output], wanted[output]) > LEAST_DB["9.0"], output
