"""A DETR in int8: convolutions are integers, tokens are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.backends import load_engine
from edgekit.decoding import detr
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.equalisation import equalise_file
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.onnx_onnx import to_onnx
from edgekit.exporters.onnx_tflite import to_tflite
from edgekit.exporters.quantisation import real_tensors
from edgekit.exporters.relu_equalisation import equalise_relus

LIMIT = 5.0


class Pictures:
    """The same pictures each time, every other one under a mask."""

    def __init__(self, side: int, grid: tuple[int, int]) -> None:
        self._side, self._grid = side, grid

    def __iter__(self) -> Iterator[Inputs]:
        generator = np.random.default_rng(0)
        for index in range(8):
            image = generator.normal(size=(1, 3, self._side, self._side)).clip(-LIMIT, LIMIT).astype(np.float32)
            mask = np.ones((1, 1, *self._grid)) if index % 2 else generator.random((1, 1, *self._grid)) < 0.5
            yield {"image": image, "mask": mask.astype(np.float32)}


@pytest.fixture(scope="module")
def exported(tiny_detr: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("detr") / "detector.onnx"
    tiny_detr.export_whole(tiny_detr.network(), path, masked=True)
    pictures: Any = Pictures(tiny_detr.SIDE, tiny_detr.GRID)
    return path, Calibration(inputs=pictures, input_ranges={"image": (-LIMIT, LIMIT)}, images=8, sha256="")


@pytest.mark.parametrize(
    ("convert", "engine", "suffix"), [(to_onnx, "onnxruntime", ".onnx"), (to_tflite, "tflite", ".tflite")]
)
def test_what_is_found_stays_near(exported: Any, convert: Any, engine: str, suffix: str, tmp_path: Path) -> None:
    path, calibration = exported
    given = list(calibration.inputs)[1]
    wanted = load_engine("onnxruntime", path, threads=1).run(given)
    convert(path, tmp_path / f"int8{suffix}", "int8", calibration)
    found = detr.aligned(wanted, load_engine(engine, tmp_path / f"int8{suffix}", threads=1).run(given))
    # A random network doubles errors from layer to layer; one whose tokens were integers would be far off.
    assert np.corrcoef(found["boxes"].ravel(), wanted["boxes"].ravel())[0, 1] > 0.9


def test_integers_end_where_tokens_begin(exported: Any, tmp_path: Path) -> None:
    path, calibration = exported
    to_onnx(path, tmp_path / "int8.onnx", "int8", calibration)
    graph = read_graph(tmp_path / "int8.onnx")
    real = real_tensors(graph)
    integers = {node.inputs[0] for node in graph.nodes if node.op == "QuantizeLinear"}
    assert not integers & real
    convolutions = [node for node in graph.nodes if node.op == "Conv"]
    assert all(node.inputs[1].endswith(".restored") for node in convolutions)
    assert Counter(node.op for node in graph.nodes)["Gemm"] > 20


def test_evening_out_channels_changes_nothing(exported: Any, tmp_path: Path) -> None:
    path, calibration = exported
    copy = tmp_path / "even.onnx"
    copy.write_bytes(path.read_bytes())
    equalise_file(copy, calibration)
    equalise_relus(copy, calibration)
    assert copy.read_bytes() != path.read_bytes()
    given = next(iter(calibration.inputs))
    wanted, found = (load_engine("onnxruntime", file, threads=1).run(given) for file in (path, copy))
    np.testing.assert_allclose(detr.aligned(wanted, found)["boxes"], wanted["boxes"], atol=1e-3)
