"""What is particular to TFLite: layout, quantised tensors, names, and which interpreter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.backends import load_engine
from edgekit.backends.tflite import require
from edgekit.errors import EngineError, MissingDependencyError
from edgekit.exporters.tflite_writer import Quantisation, TfliteWriter

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

IMAGE = np.arange(1 * 3 * 2 * 4, dtype=np.float32).reshape(1, 3, 2, 4) / 10 - 1.2


def identity(path: Path, dtype: Any, quantisation: Quantisation | None, *, signature: bool = True) -> Path:
    """image [1,2,4,3] -> the same as ``same`` [1,2,4,3] and, flattened, as ``flat`` [1,24]."""
    writer = TfliteWriter()
    image = writer.tensor("image", [1, 2, 4, 3], dtype, quantisation=quantisation)
    outputs = {}
    for name, shape in (("flat", [1, 24]), ("same", [1, 2, 4, 3])):
        outputs[name] = writer.tensor(name, shape, dtype, quantisation=quantisation)
        target = writer.tensor(f"{name}_shape", [len(shape)], "INT32", data=np.array(shape, np.int32))
        writer.operator("RESHAPE", [image, target], [outputs[name]], options="ReshapeOptions", newShape=shape)
    content = writer.finish({"image": image}, outputs)
    path.write_bytes(content if signature else without_signature(content))
    return path


def without_signature(content: bytes) -> bytes:
    """The same file as older converters write it: tensors are known by their own names only."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.signatureDefs = []
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode()
        tensor.name = f"serving_default_{name}:0"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("signature", [True, False])
def test_four_dimensions_are_transposed_and_others_are_not(tmp_path: Path, signature: bool) -> None:
    engine = load_engine("tflite", identity(tmp_path / "f.tflite", "FLOAT32", None, signature=signature), threads=1)
    outputs = engine.run({"image": IMAGE})
    np.testing.assert_array_equal(outputs["same"], IMAGE)
    np.testing.assert_array_equal(outputs["flat"][0], IMAGE.transpose(0, 2, 3, 1).ravel())


def test_int8_tensors_are_quantised_by_their_own_parameters(tmp_path: Path) -> None:
    graph = identity(tmp_path / "q.tflite", "INT8", Quantisation([0.1], [3]))
    outputs = load_engine("tflite", graph, threads=1).run({"image": IMAGE})
    np.testing.assert_allclose(outputs["same"], IMAGE, atol=1e-6)  # multiples of the scale


def test_values_beyond_the_range_of_int8_saturate(tmp_path: Path) -> None:
    graph = identity(tmp_path / "q.tflite", "INT8", Quantisation([0.1], [3]))
    outputs = load_engine("tflite", graph, threads=1).run({"image": IMAGE * 1000})
    assert outputs["same"].min() == pytest.approx((-128 - 3) * 0.1)
    assert outputs["same"].max() == pytest.approx((127 - 3) * 0.1)


def test_pixels_are_exact_in_an_int8_input(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4) * 11
    graph = identity(tmp_path / "q.tflite", "INT8", Quantisation([1 / 128], [0]))
    outputs = load_engine("tflite", graph, threads=1).run({"image": (pixels - 128) / 128})
    np.testing.assert_array_equal(outputs["same"] * 128 + 128, pixels)


def test_an_integer_tensor_without_a_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="tensor image is int8 but has no scale"):
        load_engine("tflite", identity(tmp_path / "q.tflite", "INT8", None), threads=1)


def test_nan_is_named(tmp_path: Path) -> None:
    engine = load_engine("tflite", identity(tmp_path / "f.tflite", "FLOAT32", None), threads=1)
    with pytest.raises(EngineError, match=r"output '(flat|same)' of f\.tflite holds NaN or infinity \(24 of 24"):
        engine.run({"image": IMAGE * np.float32(np.nan)})


def test_the_first_interpreter_that_is_there_is_taken() -> None:
    interpreter, version = require(
        (("edgekit_absent.lite", "absent"), ("ai_edge_litert.interpreter", "ai-edge-litert"))
    )
    assert interpreter.__name__ == "Interpreter"
    assert re.fullmatch(r"ai-edge-litert \d.*", version)


def test_no_interpreter_at_all_names_the_extra() -> None:
    with pytest.raises(MissingDependencyError, match=r'pip install "edgekit-vision\[tflite\]"'):
        require((("edgekit_absent.lite", "absent"), ("edgekit_gone", "gone")))


def test_broken_interpreters_are_named_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgekit_broken.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')")
    (tmp_path / "edgekit_needy.py").write_text("import edgekit_needs_this")
    (tmp_path / "edgekit_empty.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError) as info:
        require((("edgekit_broken", "broken"), ("edgekit_needy", "needy"), ("edgekit_empty", "empty")))
    message = str(info.value)
    assert "broken: libfoo.so.1: cannot open" in message
    assert "needy: No module named 'edgekit_needs_this'" in message
    assert "empty: module 'edgekit_empty' has no attribute 'Interpreter'" in message
