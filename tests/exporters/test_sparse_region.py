"""Files of other engines around a sparse program."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgekit.backends.adapters import holds_region
from edgekit.errors import ExportError, SparseProgramError
from edgekit.exporters.sparse_region import WRITERS, to_region
from edgekit.sparse import library

onnx = pytest.importorskip("onnx", reason="the tiny programs are made with onnx")


@pytest.fixture(scope="module")
def programs(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``omg.sparse`` and ``detector.sparse``."""
    folder: Path = tmp_path_factory.mktemp("programs")
    tiny.graphs(folder, "sparse")
    return folder


def shapes(values: object) -> dict[str, tuple[int, list[int]]]:
    """Name -> type and shape of ONNX inputs or outputs."""
    return {
        value.name: (value.type.tensor_type.elem_type, [d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in values  # type: ignore[attr-defined]
    }


def test_onnx_has_the_dense_graph_s_inputs_and_outputs(programs: Path, tmp_path: Path) -> None:
    to_region(programs / "detector.sparse", tmp_path / "new" / "detector.sparse.onnx")
    model = onnx.load(str(tmp_path / "new" / "detector.sparse.onnx"))
    number = onnx.TensorProto.FLOAT
    assert shapes(model.graph.input) == {"image": (number, [1, 3, 64, 64]), "mask": (number, [1, 1, 4, 4])}
    outputs = shapes(model.graph.output)
    assert outputs == {"class_logits": (number, [1, 20, 2]), "box_offsets": (number, [1, 20, 4])}
    (node,) = model.graph.node
    assert (node.domain, node.op_type) == ("edgekit", "SparseRegion")
    assert node.attribute[0].s == (programs / "detector.sparse").read_bytes()
    to_region(programs / "omg.sparse", tmp_path / "omg.sparse.onnx", pixels=True)
    model = onnx.load(str(tmp_path / "omg.sparse.onnx"))
    assert shapes(model.graph.input) == {"image": (onnx.TensorProto.UINT8, [1, 64, 64, 3])}
    assert shapes(model.graph.output) == {"objectness": (number, [1, 1, 4, 4])}


def test_tflite_has_the_dense_graph_s_inputs_and_outputs(programs: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    to_region(programs / "omg.sparse", tmp_path / "omg.sparse.tflite")
    content = (tmp_path / "omg.sparse.tflite").read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    named = {tensor.name.decode(): (tensor.type, list(tensor.shape)) for tensor in graph.tensors}
    number = schema.TensorType.FLOAT32
    assert named == {"image": (number, [1, 64, 64, 3]), "objectness": (number, [1, 4, 4, 1])}
    assert [code.customCode for code in model.operatorCodes] == [b"SparseRegion"]
    assert graph.operators[0].customOptions.tobytes() == (programs / "omg.sparse").read_bytes()


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_same_program_gives_the_same_file(programs: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
        if library.library_path(library.ENGINE) is None:
            pytest.skip("libedgekit.so is not built")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        to_region(programs / "omg.sparse", tmp_path / name / f"omg.sparse{suffix}")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert holds_region(tmp_path / "a" / f"omg.sparse{suffix}")


def test_what_it_cannot_write(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ends in \.onnx, \.tflite, \.xml, got 'omg\.engine'"):
        to_region(programs / "omg.sparse", tmp_path / "omg.engine")
    with pytest.raises(ExportError, match=r"there is no sparse program at .*absent"):
        to_region(tmp_path / "absent.sparse", tmp_path / "omg.onnx")
    (tmp_path / "bad.sparse").write_bytes(np.zeros(100, np.uint8).tobytes())
    with pytest.raises(SparseProgramError, match="expected a file that begins with EKSPARSE"):
        to_region(tmp_path / "bad.sparse", tmp_path / "bad.onnx")
