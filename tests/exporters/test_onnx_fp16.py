"""Half-precision ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.calibration import Inputs
from edgekit.exporters.onnx_fp16 import onnx_fp16
from edgekit.exporters.onnx_onnx import to_onnx


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_close_to_float(graphs: dict[str, Path], tmp_path: Path, unseen: list[Inputs], name: str) -> None:
    onnx_fp16(graphs[name], tmp_path / "half.onnx")
    for inputs in unseen:
        used = inputs if name == "detector" else {"image": inputs["image"]}
        found = load_engine("onnxruntime", tmp_path / "half.onnx", threads=1).run(used)
        for output, expected in load_engine("onnxruntime", graphs[name], threads=1).run(used).items():
            assert found[output].dtype == np.float32
            assert np.abs(found[output] - expected).max() < 1e-2
            assert not found[output][expected == 0].any()


def test_weights_and_arithmetic_are_half_and_borders_are_not(graphs: dict[str, Path], tmp_path: Path) -> None:
    onnx_fp16(graphs["detector"], tmp_path / "half.onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "half.onnx")), strict_mode=True)
    constants = {value.name: value.data_type for value in model.graph.initializer}
    assert {kind for name, kind in constants.items() if name.endswith((".weight", ".bias"))} == {10}
    assert {kind for name, kind in constants.items() if name.endswith(".scales")} == {1}
    borders = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert borders == {1}
    inner = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert set(inner.values()) == {10}
    assert (tmp_path / "half.onnx").stat().st_size < graphs["detector"].stat().st_size


def test_a_weight_too_large_is_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 3, 4, 4])
    source = graph.save(tmp_path / "graph.onnx", graph.conv("conv", "image", np.full((2, 3, 1, 1), 1e5)))
    with pytest.raises(ExportError, match=r"'conv.weight' holds 1e\+05, more than float16 can \(65504\)"):
        onnx_fp16(source, tmp_path / "half.onnx")


def test_float_onnx_is_the_same_graph(graphs: dict[str, Path], tmp_path: Path, unseen: list[Inputs]) -> None:
    to_onnx(graphs["detector"], tmp_path / "new" / "same.onnx", "fp32")
    found = load_engine("onnxruntime", tmp_path / "new" / "same.onnx", threads=1).run(unseen[0])
    for output, expected in load_engine("onnxruntime", graphs["detector"], threads=1).run(unseen[0]).items():
        assert np.array_equal(found[output], expected)
