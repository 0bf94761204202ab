"""Choosing an engine by name, and every installed engine against a plain numpy model of the tiny graphs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import ENGINES, Engine, engine_problem, load_engine
from edgekit.errors import EngineError, SparseProgramError, UsageError

FORMATS = {"native": "sparse", "tflite": "tflite", "openvino": "openvino", "onnxruntime": "onnx"}
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
MASK = (RNG.random((1, 1, 4, 4)) < 0.5).astype(np.float32)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that is installed."""
    if problem := engine_problem(request.param):
        pytest.skip(str(problem).splitlines()[0])
    return str(request.param)


def load_pair(engine: str, tiny: ModuleType, folder: Path) -> tuple[Engine, Engine]:
    files = tiny.graphs(folder, FORMATS[engine])
    omg, detector = (load_engine(engine, folder / files[name], threads=1) for name in ("omg", "detector"))
    return omg, detector


def expected_heads(
    tiny: ModuleType, image: NDArray[np.float32], mask: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The tiny detector in numpy."""
    masked = image * np.kron(mask, np.ones((1, 1, 16, 16), np.float32))
    cells = {size: masked.reshape(3, size, 64 // size, size, 64 // size).mean(axis=(2, 4)) for size in (4, 2)}
    masks = {size: mask[0, 0].reshape(size, 4 // size, size, 4 // size).max(axis=(1, 3)) for size in (4, 2)}
    heads = {}
    for name, (weights, bias) in tiny.HEADS.items():
        levels = [(np.einsum("oc,cyx->yxo", weights, cells[s]) + bias) * masks[s][..., None] for s in (4, 2)]
        heads[name] = np.concatenate([level.reshape(1, -1, len(weights)) for level in levels], axis=1)
    return heads


def test_both_graphs_equal_numpy(engine: str, tiny: ModuleType, tmp_path: Path) -> None:
    omg, detector = load_pair(engine, tiny, tmp_path)
    cells = IMAGE.reshape(3, 4, 16, 4, 16).mean(axis=(2, 4))
    objectness = omg.run({"image": IMAGE})["objectness"]
    assert objectness.shape == (1, 1, 4, 4)
    expected = np.einsum("c,cyx->yx", tiny.OMG_WEIGHTS[0], cells) + tiny.OMG_BIAS
    np.testing.assert_allclose(objectness[0, 0], expected, atol=1e-5)
    outputs = detector.run({"image": IMAGE, "mask": MASK})
    for name, values in expected_heads(tiny, IMAGE, MASK).items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)


def test_a_strided_view_is_as_good_as_a_copy(engine: str, tiny: ModuleType, tmp_path: Path) -> None:
    omg, _ = load_pair(engine, tiny, tmp_path)
    view = np.ascontiguousarray(IMAGE[0].transpose(1, 2, 0)).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(omg.run({"image": view})["objectness"], omg.run({"image": IMAGE})["objectness"])


def test_a_result_survives_the_next_run(engine: str, tiny: ModuleType, tmp_path: Path) -> None:
    omg, _ = load_pair(engine, tiny, tmp_path)
    first = omg.run({"image": IMAGE})["objectness"]
    kept = first.copy()
    omg.run({"image": -IMAGE})
    np.testing.assert_array_equal(first, kept)


def test_the_name_says_engine_version_and_device(engine: str, tiny: ModuleType, tmp_path: Path) -> None:
    omg, _ = load_pair(engine, tiny, tmp_path)
    assert omg.name.startswith(engine)
    assert omg.name.endswith("CPU")
    assert any(character.isdigit() for character in omg.name)


def test_wrong_inputs(engine: str, tiny: ModuleType, tmp_path: Path) -> None:
    omg, _ = load_pair(engine, tiny, tmp_path)
    with pytest.raises(EngineError, match="has the inputs image, got mask"):
        omg.run({"mask": MASK})
    with pytest.raises(EngineError, match=r"has the shape \[1, 3, 64, 64\], got \[1, 3, 32, 32\]"):
        omg.run({"image": IMAGE[:, :, :32, :32]})


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)) * 8])
def test_a_damaged_file(engine: str, tmp_path: Path, content: bytes) -> None:
    graph = tmp_path / f"broken{ENGINES[engine][1]}"
    graph.write_bytes(content)
    error = SparseProgramError if engine == "native" else EngineError
    command = "Export the bundle again" if engine == "native" else "Check the bundle with: edgekit verify"
    with pytest.raises(error, match=f"(?s)could not load broken.*{command}"):
        load_engine(engine, graph, threads=1)


def test_an_absent_file(engine: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="could not load absent"):
        load_engine(engine, tmp_path / f"absent{ENGINES[engine][1]}", threads=1)


@pytest.mark.parametrize("name", ["openvin", "tensorrt"])
def test_an_unknown_engine(name: str) -> None:
    with pytest.raises(UsageError, match=f"no engine is called '{name}'"):
        load_engine(name, Path("x.onnx"), threads=1)
    with pytest.raises(UsageError, match="There are: native, tflite, openvino, onnxruntime"):
        engine_problem(name)
