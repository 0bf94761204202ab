"""A DETR's graph: every engine computes what PyTorch does, over all tokens and over those of a mask."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.backends import load_engine  # noqa: E402
from edgekit.errors import ExportError  # noqa: E402
from edgekit.exporters.detr_onnx import export_detr  # noqa: E402
from edgekit.exporters.onnx_graph import Graph, read_graph  # noqa: E402
from edgekit.exporters.onnx_onnx import to_onnx  # noqa: E402
from edgekit.exporters.onnx_openvino import to_openvino  # noqa: E402
from edgekit.exporters.onnx_tflite import to_tflite  # noqa: E402
from edgekit.models.resnet import ResNet  # noqa: E402
from edgekit.models.sparse_detr import DetrSize, SparseDetr  # noqa: E402

FORMS = {
    "deformable": ({"two_stage": False, "share": None}, False),
    "dense": ({"share": None}, False),
    "sparse": ({"share": 0.3}, False),
    "masked": ({"share": 0.3}, True),
    "masked-dense": ({"share": None}, True),
}
ENGINES = {"onnxruntime": (to_onnx, ".onnx"), "openvino": (to_openvino, ".xml"), "tflite": (to_tflite, ".tflite")}


@pytest.fixture(scope="module", params=FORMS)
def exported(request: pytest.FixtureRequest, tiny_detr: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The graph, its inputs, and what PyTorch makes of them."""
    settings, masked = FORMS[request.param]
    model = tiny_detr.network(**settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path_factory.mktemp(request.param) / "detector.onnx"
    tiny_detr.export_whole(model, path, masked=masked)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items()), "it is left as it was"
    given = tiny_detr.inputs(masked=masked)
    return path, given, tiny_detr.expected(model, given), model


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 2e-2)])
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_compute_what_pytorch_does(
    exported: Any, engine: str, precision: Any, tolerance: float, tmp_path: Path
) -> None:
    path, given, wanted, _ = exported
    convert, suffix = ENGINES[engine]
    convert(path, tmp_path / f"graph{suffix}", precision)
    found = load_engine(engine, tmp_path / f"graph{suffix}", threads=1).run(given)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=tolerance, rtol=0, err_msg=name)


def test_an_empty_mask_leaves_all_tokens_alone(exported: Any, tiny_detr: ModuleType) -> None:
    path, given, wanted, model = exported
    if "mask" not in given:
        pytest.skip("a graph without a mask")
    empty = {**given, "mask": np.zeros_like(given["mask"])}
    found = load_engine("onnxruntime", path, threads=1).run(empty)
    expected = tiny_detr.expected(model, empty)
    assert (expected["class_logits"] < -15).all()
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-4)
    assert not np.allclose(found["boxes"], wanted["boxes"], atol=1e-4)


def graph_of(tiny_detr: ModuleType, path: Path, share: float | None) -> Graph:
    tiny_detr.export_whole(tiny_detr.network(share=share), path, masked=False)
    return read_graph(path)


def test_a_sparse_encoder_computes_with_its_budget_alone(tiny_detr: ModuleType, tmp_path: Path) -> None:
    tokens = sum(rows * columns for rows, columns in tiny_detr.SHAPES)
    rows = {}
    for share in (None, 0.3):
        graph = graph_of(tiny_detr, tmp_path / "graph.onnx", share)
        products = [node for node in graph.nodes if node.op == "Gemm" and node.name.startswith("encoder.")]
        rows[share] = [graph.shapes[node.output][0] for node in products if "value_proj" not in node.name]
    assert set(rows[None]) == {tokens}
    assert set(rows[0.3]) == {int(tokens * 0.3) + 1}


def test_what_no_picture_changes_is_a_constant(tiny_detr: ModuleType, tmp_path: Path) -> None:
    graph = graph_of(tiny_detr, tmp_path / "graph.onnx", 0.3)
    assert not {node.op for node in graph.nodes} & {"Shape", "Constant", "Range", "GridSample", "BatchNormalization"}
    known = set(graph.constants)
    assert [node.name for node in graph.nodes if known.issuperset(node.inputs)] == []


def test_levels_that_read_levels_are_refused(tiny_detr: ModuleType, tmp_path: Path) -> None:
    size = DetrSize(width=32, heads=4, levels=5, encoder_layers=1, decoder_layers=1, queries=3)
    model = SparseDetr(ResNet(layers=(1, 1, 1, 1), width=8), classes=2, size=size)
    with pytest.raises(ExportError, match=r"expected at most 4 levels in a static DETR, got 5"):
        export_detr(model, tmp_path, tiny_detr.spec(None))


def test_places_outgrow_float16(tiny_detr: ModuleType, tmp_path: Path) -> None:
    from edgekit.exporters.onnx_fp16 import halve_precision
    from edgekit.exporters.onnx_places import place_tensors

    graph = graph_of(tiny_detr, tmp_path / "graph.onnx", 0.3)
    places = place_tensors(graph)
    half = halve_precision(graph)
    makers = {node.output: node for node in half.nodes}
    floors = [node for node in half.nodes if node.op == "Floor"]
    assert floors
    assert all(node.output in places and makers[node.inputs[0]].op == "Add" for node in floors)
    assert not {node.output for node in graph.nodes if node.op in ("Gemm", "MatMul", "LayerNormalization")} & places
    constants = {name for node in half.nodes if node.output in places for name in node.inputs if name in half.constants}
    assert all(half.constants[name].dtype != np.float16 for name in constants)
