"""The native engine's own ways: pixels, instruction sets, damaged programs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgekit.backends import engine_problem, load_engine
from edgekit.backends.native import ISA_VARIABLE, NativeEngine, instruction_sets
from edgekit.errors import EngineError, MissingDependencyError, SparseProgramError

if engine_problem("native"):
    pytest.skip("the native engine is not built", allow_module_level=True)
pytest.importorskip("onnx", reason="the tiny programs are made with onnx")

USABLE = instruction_sets().usable
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (1, 3, 64, 64)).astype(np.uint8)
MASK = (RNG.random((1, 1, 4, 4)) < 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def programs(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``omg.sparse`` and ``detector.sparse``."""
    folder: Path = tmp_path_factory.mktemp("programs")
    tiny.graphs(folder, "sparse")
    return folder


@pytest.fixture
def detector(programs: Path) -> NativeEngine:
    engine = load_engine("native", programs / "detector.sparse", threads=1)
    assert isinstance(engine, NativeEngine)
    return engine


def test_pixels_give_what_normalised_floats_give(programs: Path, detector: NativeEngine, tiny: ModuleType) -> None:
    omg = load_engine("native", programs / "omg.sparse", threads=1)
    normalised = (PIXELS.astype(np.float32) - np.float32(tiny.SPEC.mean)) / np.float32(tiny.SPEC.std)
    assert omg.takes_pixels
    assert detector.takes_pixels
    np.testing.assert_array_equal(
        omg.run({"image": PIXELS})["objectness"], omg.run({"image": normalised})["objectness"]
    )
    expected = detector.run({"image": normalised, "mask": MASK})
    for name, values in detector.run({"image": PIXELS, "mask": MASK}).items():
        np.testing.assert_array_equal(values, expected[name])


def test_any_kind_of_number_will_do(detector: NativeEngine) -> None:
    image = RNG.normal(size=(1, 3, 64, 64))
    expected = detector.run({"image": image.astype(np.float32), "mask": MASK})
    for name, values in detector.run({"image": image, "mask": MASK.astype(np.bool_)}).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("isa", USABLE)
def test_every_instruction_set_computes_the_same(
    programs: Path, monkeypatch: pytest.MonkeyPatch, isa: str, threads: int
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "reference")
    expected = load_engine("native", programs / "detector.sparse", threads=1).run({"image": PIXELS, "mask": MASK})
    monkeypatch.setenv(ISA_VARIABLE, isa)
    engine = load_engine("native", programs / "detector.sparse", threads=threads)
    assert f"({isa})" in engine.name
    for name, values in engine.run({"image": PIXELS, "mask": MASK}).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)


def test_the_best_instruction_set_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ISA_VARIABLE, raising=False)
    assert instruction_sets().chosen == USABLE[-1]
    assert USABLE[0] == "reference"
    monkeypatch.setenv(ISA_VARIABLE, "")
    assert instruction_sets().chosen == USABLE[-1]
    monkeypatch.setenv(ISA_VARIABLE, "reference")
    assert instruction_sets().to_json() == {"usable": USABLE, "chosen": "reference"}


def test_an_instruction_set_that_is_not_here(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "mmx")
    message = rf"EDGEKIT_ISA: expected an instruction set .*{', '.join(USABLE)}, got 'mmx'\.\n.*unset EDGEKIT_ISA"
    with pytest.raises(EngineError, match=message):
        load_engine("native", programs / "omg.sparse", threads=1)


def test_a_program_that_was_cut_off_or_changed(programs: Path, tmp_path: Path) -> None:
    content = (programs / "detector.sparse").read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    for damaged, reason in ((content[:-1], "it is truncated"), (bytes(changed), "does not match its checksum")):
        (tmp_path / "damaged.sparse").write_bytes(damaged)
        with pytest.raises(SparseProgramError, match=rf"native could not load damaged\.sparse: .*{reason}"):
            load_engine("native", tmp_path / "damaged.sparse", threads=1)


def test_more_threads_than_it_takes(programs: Path) -> None:
    with pytest.raises(EngineError, match=r"native could not load omg\.sparse: expected 1 to 256 threads\n"):
        load_engine("native", programs / "omg.sparse", threads=1000)


def test_the_types_are_those_of_the_module() -> None:
    from edgekit import sparse
    from edgekit.sparse import _native

    stub = ast.parse((Path(sparse.__file__).parent / "_native.pyi").read_text())
    definitions = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert definitions.keys() == {name for name in vars(_native) if not name.startswith("_")}
    engine = definitions["Engine"]
    methods = {node.name for node in engine.body if isinstance(node, ast.FunctionDef)}
    assert methods - {"__init__"} == {name for name in vars(_native.Engine) if not name.startswith("_")}


def test_kernels_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("edgekit.sparse._native", raising=False)
    monkeypatch.setitem(sys.modules, "edgekit.sparse._native", None)
    problem = engine_problem("native")
    assert isinstance(problem, EngineError)
    assert not isinstance(problem, MissingDependencyError)
    assert "pip install --force-reinstall edgekit-vision" in str(problem)
