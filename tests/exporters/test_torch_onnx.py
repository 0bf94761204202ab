"""PyTorch to ONNX, with the real model at a small size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch, which the export extra brings")

from edgekit.backends import load_engine  # noqa: E402
from edgekit.errors import ExportError  # noqa: E402
from edgekit.exporters.onnx_graph import Node, read_graph  # noqa: E402
from edgekit.exporters.onnx_tflite import to_tflite  # noqa: E402
from edgekit.exporters.torch_onnx import export_onnx, readable_name, tidy  # noqa: E402
from edgekit.models.registry import build  # noqa: E402

SIZE = 128


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    """The detector with weights that are not symmetric and batch norms that have seen something."""
    torch.manual_seed(0)
    model = build("mobilenetv2-ssdlite-omg", ("a", "b"), size=SIZE)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
            model.detector(images, model.binary_mask(model.omg(images)))
    return model.eval()


@pytest.fixture(scope="module")
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return export_onnx(model, tmp_path_factory.mktemp("exported") / "new")


def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, SIZE, SIZE, generator=generator) * 2 - 1
    mask = (torch.rand(1, 1, SIZE // 16, SIZE // 16, generator=generator) < 0.5).float()
    return {"image": image, "mask": mask}


def outputs(model: Any) -> dict[str, Any]:
    feed = inputs()
    with torch.no_grad():
        logits, offsets = model.detector(feed["image"], feed["mask"])
        return {"objectness": model.omg(feed["image"]), "class_logits": logits, "box_offsets": offsets}


@pytest.mark.parametrize("name", ["omg", "detector"])
@pytest.mark.parametrize("engine", ["onnxruntime", "tflite"])
def test_equals_pytorch(model: Any, exported: dict[str, Path], tmp_path: Path, name: str, engine: str) -> None:
    path = exported[name]
    if engine == "tflite":
        path = tmp_path / "graph.tflite"
        to_tflite(exported[name], path, "fp32")
    feed = {key: value.numpy() for key, value in inputs().items() if key == "image" or name == "detector"}
    expected = outputs(model)
    for output, found in load_engine(engine, path, threads=1).run(feed).items():
        reference = expected[output].numpy()
        assert found.shape == reference.shape
        assert np.abs(found - reference).max() < 1e-4 * max(1.0, float(np.abs(reference).max()))
        if name == "detector":
            assert np.array_equal(found == 0, reference == 0)


def test_the_form_of_the_files(exported: dict[str, Path]) -> None:
    assert {name: path.name for name, path in exported.items()} == {"omg": "omg.onnx", "detector": "detector.onnx"}
    for path in exported.values():
        model = onnx.load(str(path))
        assert (model.ir_version, model.opset_import[0].version) == (8, 17)
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
        assert not {"Constant", "Identity"} & {node.op_type for node in model.graph.node}


def test_names_are_module_paths(model: Any, exported: dict[str, Path]) -> None:
    for name, module in (("omg", model.omg), ("detector", model.detector)):
        graph = read_graph(exported[name])
        convolutions = {path for path, child in module.named_modules() if isinstance(child, torch.nn.Conv2d)}
        assert set(graph.convolutions()) == convolutions
        assert {f"{path}.weight" for path in convolutions} <= graph.constants.keys()
        assert len(set(graph.constants)) == len({id(value) for value in graph.constants.values()})


@pytest.mark.slow
def test_the_model_is_left_as_it_was(model: Any, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    export_onnx(model, tmp_path)
    assert model.training
    model.eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Unexportable(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, image: Any) -> Any:
        return torch.special.i0e(image)


def test_an_operation_without_onnx_form_is_named(model: Any, tmp_path: Path) -> None:
    import copy

    broken = copy.deepcopy(model)
    broken.omg = Unexportable()
    with pytest.raises(ExportError, match=r"Unexportable cannot be exported to ONNX: [\s\S]*i0e"):
        export_onnx(broken, tmp_path)


def test_readable_names() -> None:
    def node(op: str, name: str) -> Node:
        return Node(name=name, op=op, inputs=(), output="", attributes={})

    assert readable_name(node("Conv", "/stem/conv/Conv")) == "stem.conv"
    assert readable_name(node("Mul", "/stem/Mul_1")) == "stem.Mul_1"
    assert readable_name(node("Concat", "/Concat")) == "Concat"


def test_names_that_collide_are_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 2, 4, 4])
    graph.conv("/a/Conv", "image", np.ones((2, 2, 1, 1)))
    graph.conv("a", "/a/Conv", np.ones((2, 2, 1, 1)))
    with pytest.raises(ExportError, match=r"two nodes of the exported graph share a name: \['a', 'a'\]"):
        tidy(read_graph(graph.save(tmp_path / "graph.onnx", "a")))
