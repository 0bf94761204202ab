"""The stages of a DETR in every engine: whichever encoder a mask leaves room for, PyTorch finds the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.backends import Tensors, load_engine  # noqa: E402
from edgekit.backends.detr import DetrEngine  # noqa: E402
from edgekit.decoding import detr  # noqa: E402
from edgekit.errors import EngineError  # noqa: E402
from edgekit.exporters.detr_onnx import export_detr, write_static  # noqa: E402
from edgekit.exporters.onnx_graph import read_graph  # noqa: E402
from edgekit.exporters.onnx_onnx import to_onnx  # noqa: E402
from edgekit.exporters.onnx_openvino import to_openvino  # noqa: E402
from edgekit.exporters.onnx_sparse import to_sparse  # noqa: E402
from edgekit.exporters.onnx_tflite import to_tflite  # noqa: E402
from edgekit.masks.statistics import refined_tokens  # noqa: E402
from edgekit.models.masked_detr import DetrGraph  # noqa: E402
from edgekit.models.registry import build  # noqa: E402
from edgekit.models.static_detr import BackboneStage, StaticDetr  # noqa: E402
from edgekit.spec import TOKEN_STRIDES, DetectorSpec  # noqa: E402

ENGINES = {"onnxruntime": (to_onnx, ".onnx"), "openvino": (to_openvino, ".xml"), "tflite": (to_tflite, ".tflite")}
MASKS = {
    "nothing": [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
    "a cell": [[0, 0, 0], [0, 0, 1], [0, 0, 0]],
    "a row": [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
    "most": [[1, 1, 1], [1, 1, 1], [0, 1, 1]],
    "everything": [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
}


class Watched:
    """An engine that counts its runs."""

    takes_pixels = False

    def __init__(self, engine: Any) -> None:
        self._engine, self.name, self.runs = engine, engine.name, 0

    def run(self, inputs: Tensors) -> Tensors:
        self.runs += 1
        found: Tensors = self._engine.run(inputs)
        return found


@pytest.fixture(scope="module", params=[0.5, None], ids=["sparse", "dense"])
def exported(request: pytest.FixtureRequest, tiny_detr: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of graphs, the spec, and the model."""
    model, spec = tiny_detr.network(share=request.param), tiny_detr.spec(request.param)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folder = tmp_path_factory.mktemp("stages")
    export_detr(model, folder, spec)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items()), "it is left as it was"
    return folder, spec, model


def given(tiny_detr: ModuleType, mask: str) -> Tensors:
    return {**tiny_detr.inputs(masked=False), "mask": np.array(MASKS[mask], np.float32)[None, None]}


def expected(model: Any, spec: DetectorSpec, inputs: Tensors) -> Tensors:
    with torch.no_grad():
        logits, boxes = DetrGraph(model, spec)(*(torch.from_numpy(inputs[name]) for name in ("image", "mask")))
    return {"class_logits": logits.numpy(), "boxes": boxes.numpy()}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_smallest_encoder_that_suffices_finds_what_pytorch_finds(
    exported: Any, tiny_detr: ModuleType, engine: str, tmp_path: Path
) -> None:
    folder, spec, model = exported
    convert, suffix = ENGINES[engine]
    graphs = {}
    for name in spec.graphs[1:]:
        convert(folder / f"{name}.onnx", tmp_path / f"{name}{suffix}", "fp32")
        graphs[name] = Watched(load_engine(engine, tmp_path / f"{name}{suffix}", threads=1))
    joined = DetrEngine(graphs, spec)
    used = []
    for mask in MASKS:
        inputs = given(tiny_detr, mask)
        wanted, found = expected(model, spec, inputs), joined.run(inputs)
        found = detr.aligned(wanted, found)
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=0, err_msg=f"{name}, {mask}")
        used.append(next(count for name, count in spec.encoders.items() if graphs[name].runs))
        assert used[-1] >= refined_tokens(spec, inputs["mask"][0, 0] > 0)
        assert sum(graphs[name].runs for name in spec.encoders) == 1
        for name in spec.encoders:
            graphs[name].runs = 0
    assert used == sorted(used)
    assert (used[0], used[-1]) == (min(spec.encoders.values()), max(spec.encoders.values()))
    assert len(set(used)) >= 3


def test_an_encoder_computes_with_its_own_tokens_alone(exported: Any) -> None:
    folder, spec, _ = exported
    for name, count in spec.encoders.items():
        graph = read_graph(folder / f"{name}.onnx")
        products = [node for node in graph.nodes if node.op == "Gemm" and node.name.rpartition("encoder.")[1]]
        rows = {graph.shapes[node.output][0] for node in products if "value_proj" not in node.name}
        assert rows == {count}
        assert all(isinstance(side, int) for shape in graph.shapes.values() for side in shape)


def test_the_backbone_is_a_sparse_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    built = build("sparse-detr-mobilenetv2-omg", ("a", "b"), size=64, token_share=0.5).eval()
    stage = BackboneStage(StaticDetr(built.detr, height=64, width=64, spec=built.spec))
    blank = {"image": torch.zeros(1, 3, 64, 64), "mask": torch.ones(1, 1, *built.spec.mask_grid)}
    write_static(stage, blank, [f"features_{stride}" for stride in TOKEN_STRIDES], tmp_path / "backbone.onnx")
    to_sparse(tmp_path / "backbone.onnx", tmp_path / "backbone.sparse", "fp32", mean=128.0, std=128.0)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (1, 3, 64, 64)).astype(np.uint8)
    mask = np.zeros((1, 1, *built.spec.mask_grid), np.float32)
    mask[0, 0, 1:3, :2] = 1
    native = load_engine("native", tmp_path / "backbone.sparse", threads=1).run({"image": pixels, "mask": mask})
    image = (pixels.astype(np.float32) - 128) / 128
    wanted = load_engine("onnxruntime", tmp_path / "backbone.onnx", threads=1).run({"image": image, "mask": mask})
    assert list(native) == list(wanted) == [f"features_{stride}" for stride in TOKEN_STRIDES]
    for name, values in wanted.items():
        np.testing.assert_allclose(native[name], values, atol=1e-4 * max(1, np.abs(values).max()), err_msg=name)
        assert (values[0] == 0).all(axis=1).any() or values.shape[1] <= 4, "background is zero"


def test_stages_that_do_not_belong_together_are_refused(exported: Any, tiny_detr: ModuleType) -> None:
    folder, spec, _ = exported
    graphs = {name: load_engine("onnxruntime", folder / f"{name}.onnx", threads=1) for name in spec.graphs[1:]}
    inputs = given(tiny_detr, "a cell")
    with pytest.raises(EngineError, match=r"output 'class_logits' of the decoder should have the shape \[1, 7, 2\]"):
        DetrEngine(graphs, replace(spec, classes=("a", "b"))).run(inputs)
