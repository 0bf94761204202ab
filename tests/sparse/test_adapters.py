"""Sparse programs inside other engines: each adapter equals the native engine, bit for bit, or says what is wrong."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.backends import engine_problem, load_engine
from edgekit.backends.adapters import ADAPTERS, adapter, holds_region
from edgekit.errors import EngineError
from edgekit.exporters.sparse_region import onnx_region, to_region
from edgekit.sparse import library
from edgekit.sparse.format import MAGIC, write_program
from edgekit.sparse.program import Program

for tool in ("onnx", "flatbuffers", "ai_edge_litert"):
    pytest.importorskip(tool, reason=f"the graphs are written with {tool}")
if engine_problem("native") or not all(map(library.library_path, ADAPTERS.values())):
    pytest.skip("the adapters are not built", allow_module_level=True)

SUFFIXES = {"onnxruntime": ".onnx", "tflite": ".tflite", "openvino": ".xml"}
CHOICES = [*SUFFIXES, "openvino-python"]
"""Engines, and OpenVINO where there is no compiler."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home folder of these tests' own: OpenVINO's extension is compiled into it, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(params=CHOICES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine that is installed."""
    name = str(request.param).partition("-")[0]
    if problem := engine_problem(name):
        pytest.skip(str(problem).splitlines()[0])
    if request.param != name:
        without_compiler(monkeypatch)
    return name


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.backends.openvino_build.COMPILERS", ())
    monkeypatch.delenv("CXX", raising=False)


def written(folder: Path, engine: str, program: Program, *, pixels: bool) -> Path:
    """The graph for ``engine``; ``detector.sparse`` beside it is the program itself."""
    (folder / "detector.sparse").write_bytes(write_program(program))
    graph = folder / f"detector.sparse{SUFFIXES[engine]}"
    to_region(folder / "detector.sparse", graph, pixels=pixels)
    return graph


def tensors(image: Any, mask: Any) -> dict[str, Any]:
    """What ``random_inputs`` gives as the protocol's inputs."""
    inputs = {"image": image.transpose(2, 0, 1)[None]}
    return inputs if mask is None else inputs | {"mask": mask[None, None].astype(np.float32)}


def instead(engine: str) -> str:
    """What a refusal ends with."""
    return f"The dense graph of the same bundle, detector{SUFFIXES[engine]}, runs without it: --engine {engine}"


def content_of(graph: Path) -> Path:
    return graph.with_suffix(".bin") if graph.suffix == ".xml" else graph


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_random_programs_equal_the_native_engine(
    programs: ModuleType, tmp_path_factory: pytest.TempPathFactory, engine: str, dtype: str
) -> None:
    @given(seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=12, deadline=None)
    def check(seed: int) -> None:
        random = np.random.default_rng(seed)
        program = programs.random_program(random, dtype=dtype, steps=5)
        image, mask = programs.random_inputs(program, random)
        folder = tmp_path_factory.mktemp("graph")
        graph = written(folder, engine, program, pixels=image.dtype == np.uint8)
        threads = int(random.integers(1, 4))
        expected = load_engine("native", folder / "detector.sparse", threads=threads).run(tensors(image, mask))
        loaded = load_engine(engine, graph, threads=threads)
        assert loaded.takes_pixels == (image.dtype == np.uint8)
        for _ in range(2):
            got = loaded.run(tensors(image, mask))
            assert got.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(got[name], values)
        shutil.rmtree(folder)

    check()


@pytest.mark.parametrize("pixels", [False, True])
def test_masks_come_and_go(programs: ModuleType, tmp_path: Path, engine: str, pixels: bool) -> None:
    """Nothing shows of what an earlier mask let in; images are read where cells are active."""
    random = np.random.default_rng(3)
    program = programs.random_program(random, dtype="float32", masked=True)
    loaded = load_engine(engine, written(tmp_path, engine, program, pixels=pixels), threads=2)
    native = load_engine("native", tmp_path / "detector.sparse", threads=1)
    for _ in range(6):
        image, mask = programs.random_inputs(program, random)
        image = random.integers(0, 256, image.shape, np.uint8)
        inputs = tensors(image if pixels else image.astype(np.float32) / 100, mask)
        expected = native.run(inputs)
        for name, values in loaded.run(inputs).items():
            np.testing.assert_array_equal(values, expected[name])


def test_the_dense_graph_s_inputs_and_outputs(tiny: ModuleType, tmp_path: Path, engine: str) -> None:
    tiny.graphs(tmp_path, "sparse")
    image = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    mask = np.eye(4, dtype=np.float32)[None, None]
    for name, inputs in (("omg", {"image": image}), ("detector", {"image": image, "mask": mask})):
        to_region(tmp_path / f"{name}.sparse", tmp_path / f"{name}.sparse{SUFFIXES[engine]}")
        expected = load_engine("native", tmp_path / f"{name}.sparse", threads=1).run(inputs)
        got = load_engine(engine, tmp_path / f"{name}.sparse{SUFFIXES[engine]}", threads=1).run(inputs)
        assert {key: value.shape for key, value in got.items()} == {k: v.shape for k, v in expected.items()}
        for key, values in expected.items():
            np.testing.assert_array_equal(got[key], values)


def test_many_at_once_take_turns(programs: ModuleType, tmp_path: Path) -> None:
    """One onnxruntime session may be run by several threads; a region may not."""
    random = np.random.default_rng(1)
    program = programs.random_program(random, dtype="uint8", masked=True)
    loaded = load_engine("onnxruntime", written(tmp_path, "onnxruntime", program, pixels=False), threads=2)
    native = load_engine("native", tmp_path / "detector.sparse", threads=1)
    image, _ = programs.random_inputs(program, random)
    image = random.normal(size=image.shape).astype(np.float32)
    cells = (program.mask_rows, program.mask_columns)
    cases = [tensors(image, random.random(cells) < share) for share in (0.2, 0.5, 0.8, 1)] * 5
    expected = [native.run(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(loaded.run, cases), expected, strict=True):
            for name, values in wanted.items():
                np.testing.assert_array_equal(got[name], values)


def test_two_regions_in_one_graph(programs: ModuleType, tmp_path: Path, engine: str) -> None:
    random = np.random.default_rng(5)
    first = programs.random_program(random, dtype="float32", masked=True, steps=4)
    second = first
    while second == first or not same_inputs(first, second):
        second = programs.random_program(random, dtype="uint8", masked=True, steps=4)
    image, mask = programs.random_inputs(first, random)
    inputs = tensors(image.astype(np.float32) / 50, mask)
    expected = []
    for program in (first, second):
        (tmp_path / "one.sparse").write_bytes(write_program(program))
        expected.append(load_engine("native", tmp_path / "one.sparse", threads=1).run(inputs))
    graph = tmp_path / f"two.sparse{SUFFIXES[engine]}"
    WRITERS[engine](graph, [first, second])
    got = load_engine(engine, graph, threads=2).run(inputs)
    assert len(got) == sum(map(len, expected))
    for index, outputs in enumerate(expected):
        for name, values in outputs.items():
            np.testing.assert_array_equal(got[f"{name}_of_{index}"], values)


def same_inputs(first: Program, second: Program) -> bool:
    def shape(program: Program) -> tuple[int, ...]:
        level = program.levels[program.tensors[0].level]
        return level.rows, level.columns, program.tensors[0].channels, program.mask_rows, program.mask_columns

    return shape(first) == shape(second)


def onnx_of(graph: Path, programs: list[Program], *, inputs: tuple[str, ...] = ("image", "mask")) -> None:
    """ONNX with a region for each program, all on the same inputs; output X of program i is X_of_i."""
    from onnx import TensorProto, helper, save

    level = programs[0].levels[0]
    shapes = {
        "image": [1, programs[0].tensors[0].channels, level.rows, level.columns],
        "mask": [1, 1, programs[0].mask_rows, programs[0].mask_columns],
    }
    nodes, outputs = [], []
    for index, program in enumerate(programs):
        names = [f"{output.name}_of_{index}" for output in program.outputs]
        nodes.append(onnx_region(write_program(program), list(inputs), names))
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, output.rows, output.columns])
            for name, output in zip(names, program.outputs, strict=True)
        ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in inputs]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("edgekit", 1)]
    save(helper.make_model(helper.make_graph(nodes, "g", infos, outputs), ir_version=8, opset_imports=opsets), graph)


def tflite_of(graph: Path, programs: list[Program], *, inputs: tuple[str, ...] = ("image", "mask")) -> None:
    """The same for TFLite."""
    from edgekit.exporters.tflite_writer import TfliteWriter

    writer, level = TfliteWriter(), programs[0].levels[0]
    shapes = {
        "image": [1, level.rows, level.columns, programs[0].tensors[0].channels],
        "mask": [1, programs[0].mask_rows, programs[0].mask_columns, 1],
    }
    given = {name: writer.tensor(name, shapes[name], "FLOAT32") for name in inputs}
    outputs = {}
    for index, program in enumerate(programs):
        made = {
            f"{output.name}_of_{index}": writer.tensor(
                f"{output.name}_of_{index}", [1, output.rows, output.columns], "FLOAT32"
            )
            for output in program.outputs
        }
        writer.custom_operator("SparseRegion", list(given.values()), list(made.values()), write_program(program))
        outputs |= made
    graph.write_bytes(writer.finish(given, outputs))


def openvino_of(graph: Path, programs: list[Program], *, inputs: tuple[str, ...] = ("image", "mask")) -> None:
    """The same for OpenVINO."""
    import openvino

    from edgekit.backends.openvino_region import region_class

    level = programs[0].levels[0]
    shapes = {
        "image": [1, programs[0].tensors[0].channels, level.rows, level.columns],
        "mask": [1, 1, programs[0].mask_rows, programs[0].mask_columns],
    }
    parameters = [openvino.opset8.parameter(shapes[name], openvino.Type.f32, name=name) for name in inputs]
    for parameter in parameters:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    results = []
    for index, program in enumerate(programs):
        constant = openvino.opset8.constant(np.frombuffer(write_program(program), np.uint8))
        region = region_class(threads=1)([*parameters, constant])
        for port, output in zip(region.outputs(), program.outputs, strict=True):
            port.set_names({f"{output.name}_of_{index}"})
            results.append(openvino.opset8.result(port))
    openvino.save_model(openvino.Model(results, parameters, "two"), str(graph))


WRITERS = {"onnxruntime": onnx_of, "tflite": tflite_of, "openvino": openvino_of}


@pytest.mark.parametrize("made", [onnx_of, tflite_of])
def test_a_node_that_does_not_fit_its_program(plain: Program, tmp_path: Path, made: Any) -> None:
    name = {onnx_of: "onnxruntime", tflite_of: "tflite"}[made]
    graph = tmp_path / f"x.sparse{SUFFIXES[name]}"
    made(graph, [plain], inputs=("image",))
    with pytest.raises(EngineError, match=r"the program has 2 inputs and 1 outputs, the (node|operator) 1 and 1"):
        load_engine(name, graph, threads=1)


def test_openvino_says_what_does_not_fit(plain: Program, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(EngineError, match="the program has 2 inputs, the operator 1"):
        openvino_of(tmp_path / "x.sparse.xml", [plain], inputs=("image",))


def test_floats_where_pixels_belong(plain: Program, tmp_path: Path, engine: str) -> None:
    loaded = load_engine(engine, written(tmp_path, engine, plain, pixels=True), threads=1)
    inputs = {"image": np.zeros((1, 3, 8, 8), np.float32), "mask": np.ones((1, 1, 2, 2), np.float32)}
    with pytest.raises(EngineError, match="takes the picture itself, pixels as uint8, got float32"):
        loaded.run(inputs)


def test_a_damaged_program(plain: Program, tmp_path: Path, engine: str) -> None:
    graph = written(tmp_path, engine, plain, pixels=False)
    changed = bytearray(content_of(graph).read_bytes())
    changed[changed.find(MAGIC) + 300] ^= 1
    content_of(graph).write_bytes(changed)
    with pytest.raises(EngineError, match=r"(?s)could not load detector\.sparse.*does not match its checksum"):
        load_engine(engine, graph, threads=1)


def test_a_program_from_the_future(plain: Program, tmp_path: Path, engine: str) -> None:
    graph = written(tmp_path, engine, plain, pixels=False)
    changed = bytearray(content_of(graph).read_bytes())
    changed[changed.find(MAGIC) + len(MAGIC)] = 9
    content_of(graph).write_bytes(changed)
    with pytest.raises(EngineError) as caught:
        load_engine(engine, graph, threads=1)
    assert f"version 9 of the format, and {ADAPTERS[engine]} reads up to version 1." in str(caught.value)
    assert "pip install --upgrade edgekit-vision" in str(caught.value)
    assert instead(engine) in str(caught.value)


def absent(folder: Path, name: str) -> str:
    return f"there is no {name} in {folder}"


def not_a_library(folder: Path, name: str) -> str:
    (folder / name).write_text("text")
    return f"{folder / name} cannot be loaded"


def of_another_time(folder: Path, name: str) -> str:
    """Any library that has none of our functions."""
    import _ctypes

    shutil.copy(_ctypes.__file__, folder / name)
    return f"{folder / name} is too old for this edgekit: expected version 1 of its interface, got 0"


@pytest.mark.parametrize("break_it", [absent, not_a_library, of_another_time])
def test_an_adapter_that_cannot_be_used(
    plain: Program, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, break_it: Any
) -> None:
    graph = written(tmp_path, engine, plain, pixels=False)
    folder = tmp_path / "adapters"
    folder.mkdir()
    message = break_it(folder, ADAPTERS[engine])
    monkeypatch.setenv(library.FOLDER_VARIABLE, str(folder))
    with pytest.raises(EngineError) as caught:
        load_engine(engine, graph, threads=1)
    assert message in str(caught.value)
    assert "pip install --force-reinstall edgekit-vision" in str(caught.value)
    assert instead(engine) in str(caught.value)
    formats = {"onnxruntime": "onnx", "tflite": "tflite", "openvino": "openvino"}
    dense = load_engine(engine, tmp_path / tiny.graphs(tmp_path, formats[engine])["omg"], threads=1)
    assert dense.run({"image": np.zeros((1, 3, 64, 64), np.float32)})["objectness"].shape == (1, 1, 4, 4)


def test_an_adapter_older_than_the_program(
    plain: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    graph = written(tmp_path, engine, plain, pixels=False)
    monkeypatch.setattr("edgekit.backends.adapters.newest_program", lambda library: 0)
    with pytest.raises(EngineError, match=r"(?s)reads up to version 0\.\n.*pip install --force-reinstall"):
        load_engine(engine, graph, threads=1)


def test_dense_graphs_hold_no_region(tiny: ModuleType, tmp_path: Path) -> None:
    graph = tiny.onnx_omg(tmp_path / "omg.onnx")
    assert not holds_region(graph)
    (tmp_path / "empty.onnx").touch()
    assert not holds_region(tmp_path / "empty.onnx")
    assert not holds_region(tmp_path / "absent.onnx")


def test_the_number_of_threads_reaches_the_region(plain: Program, tmp_path: Path, engine: str) -> None:
    graph = written(tmp_path, engine, plain, pixels=False)
    with pytest.raises(EngineError, match="expected 1 to 256"):
        load_engine(engine, graph, threads=257)


def test_threads_that_cannot_be(plain: Program, tmp_path: Path) -> None:
    import onnxruntime
    from ai_edge_litert.interpreter import load_delegate

    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("edgekit.threads", "many")
    path = str(adapter("onnxruntime", written(tmp_path, "onnxruntime", plain, pixels=False)))
    with pytest.raises(Exception, match=r"expected 1 to 256 for edgekit\.threads, got many"):
        settings.register_custom_ops_library(path)
    path = str(adapter("tflite", written(tmp_path, "tflite", plain, pixels=False)))
    assert load_delegate(path, {"threads": 2})
    with pytest.raises(ValueError, match="the only option is threads, 1 to 256"):
        load_delegate(path, {"threads": 0})


def test_an_extension_that_does_not_load_is_done_without(
    plain: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho text > "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with caplog.at_level(logging.INFO, logger="edgekit"):
        loaded = load_engine("openvino", written(tmp_path, "openvino", plain, pixels=True), threads=1)
    assert "the OpenVINO extension cannot be loaded" in caplog.text
    inputs = {"image": np.ones((1, 3, 8, 8), np.uint8), "mask": np.eye(2, dtype=np.float32)[None, None]}
    expected = load_engine("native", tmp_path / "detector.sparse", threads=1).run(inputs)
    np.testing.assert_array_equal(loaded.run(inputs)["class_logits"], expected["class_logits"])
