"""Engines of a bundle that has sparse programs beside its dense graphs: each by name, and what auto makes of them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekit.backends import engine_problem, load_engine
from edgekit.backends.adapters import ADAPTERS
from edgekit.backends.by_share import ByShare
from edgekit.bundle import open_bundle
from edgekit.bundle.golden import verify_bundle
from edgekit.errors import EngineError, MissingDependencyError, UsageError
from edgekit.pipeline import open_pipeline
from edgekit.profiling.machine import cpu_model
from edgekit.sparse import library

pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")
if engine_problem("native") or not all(map(library.library_path, ADAPTERS.values())):
    pytest.skip("the native engine is not built", allow_module_level=True)

FORMATS = {"onnx": "onnxruntime", "tflite": "tflite", "openvino": "openvino"}


def part_way(engine: str = "onnxruntime", **changes: Any) -> dict[str, Any]:
    """A break-even that holds here: above half of the cells."""
    return {"cpu": cpu_model(), "threads": 1, "engine": engine, "share": 0.5, **changes}


@pytest.fixture(scope="module", params=FORMATS)
def both(request: pytest.FixtureRequest, tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each format with sparse programs and a break-even."""
    if problem := engine_problem(FORMATS[request.param]):
        pytest.skip(str(problem).splitlines()[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr("edgekit.backends.openvino_build.COMPILERS", ())  # its Python operator does
        folder = tmp_path_factory.mktemp("both")
        path: Path = tiny.write_bundle(
            folder / "tiny.edgekit", request.param, programs=True, break_even=part_way(FORMATS[request.param])
        )
    return path


@pytest.fixture(autouse=True)
def _without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.backends.openvino_build.COMPILERS", ())
    monkeypatch.delenv("CXX", raising=False)


Write = Callable[..., Path]


@pytest.fixture
def write(tiny: ModuleType, tmp_path: Path) -> Write:
    """Writes an ONNX bundle with sparse programs and the break-even that is given."""
    return lambda **changes: tiny.write_bundle(tmp_path / "x.edgekit", programs=True, break_even=part_way(**changes))


def test_every_engine_finds_the_same(both: Path, tiny: ModuleType) -> None:
    manifest = open_bundle(both).manifest
    dense = FORMATS[manifest.graph_format]
    assert (manifest.choices[0], manifest.choices[-1]) == ("native", f"{dense}-sparse")
    expected = open_pipeline(both, engine=dense).process(tiny.picture())
    assert len(expected.detections) == 4
    for name in (*manifest.choices, "auto"):
        pipeline = open_pipeline(both, engine=name, threads=1)
        assert pipeline.engine_name.startswith({"auto": "native"}.get(name, name.removesuffix("-sparse")))
        assert pipeline.engine_name.endswith(", sparse") == name.endswith("-sparse")
        assert pipeline.detector.takes_pixels == (name not in manifest.engines)
        for picture in (tiny.picture(), tiny.picture(200, 150)):
            got, wanted = pipeline.process(picture), open_pipeline(both, engine=dense).process(picture)
            np.testing.assert_array_equal(got.mask, wanted.mask)
            np.testing.assert_allclose(got.detections.boxes_xyxy, wanted.detections.boxes_xyxy, atol=1e-3)
            np.testing.assert_allclose(got.detections.scores, wanted.detections.scores, atol=1e-5)


def test_verify_looks_at_every_engine(both: Path) -> None:
    report = verify_bundle(both)
    assert [check.engine for check in report.checks] == list(open_bundle(both).manifest.choices)
    assert {check.status for check in report.checks} == {"passed"}


def counted(tiny: ModuleType, pipeline: Any) -> tuple[Any, Any]:
    """The sparse and the dense engine of a pipeline that takes turns, wrapped."""
    switch = pipeline.detector
    assert isinstance(switch, ByShare)
    switch._sparse, switch._dense = tiny.Counting(switch._sparse), tiny.Counting(switch._dense)
    return switch._sparse, switch._dense


def test_auto_takes_turns_by_share(both: Path, tiny: ModuleType) -> None:
    dense_name = FORMATS[open_bundle(both).manifest.graph_format]
    pipeline = open_pipeline(both)
    assert pipeline.engine_name.startswith("native ")
    assert f", above 50 % active {dense_name} " in pipeline.engine_name
    sparse, dense = counted(tiny, pipeline)
    alone = {name: open_pipeline(both, engine=name) for name in ("native", dense_name)}

    def half(more: int) -> Callable[[Any], Any]:
        return lambda frame: np.arange(16).reshape(4, 4) < 8 + more

    for more, runs in ((0, (1, 0)), (1, (1, 1)), (8, (1, 2)), (-7, (2, 2))):
        got = pipeline.with_mask(half(more)).process(tiny.picture())
        assert (sparse.runs, dense.runs) == runs
        name = dense_name if more > 0 else "native"
        expected = alone[name].with_mask(half(more)).process(tiny.picture())
        np.testing.assert_array_equal(got.detections.scores, expected.detections.scores)
        np.testing.assert_array_equal(got.detections.boxes_xyxy, expected.detections.boxes_xyxy)


def test_a_dense_engine_that_takes_pixels_gets_them(both: Path, tiny: ModuleType) -> None:
    pipeline = open_pipeline(both, engine="native")
    switch = ByShare(pipeline.detector, pipeline.detector, share=0.0, spec=tiny.SPEC)
    image, mask = tiny.picture().transpose(2, 0, 1)[None], np.ones((1, 1, 4, 4), np.float32)
    got, expected = (one.run({"image": image, "mask": mask}) for one in (switch, pipeline.detector))
    np.testing.assert_array_equal(got["class_logits"], expected["class_logits"])


@pytest.mark.parametrize("changes", [{"cpu": "another"}, {"threads": 2}, {"share": 1.0}])
def test_a_break_even_of_another_machine_is_not_used(write: Write, changes: dict[str, Any]) -> None:
    name = open_pipeline(write(**changes)).engine_name
    assert name.startswith("native ")
    assert "above" not in name


def test_the_number_of_threads_is_the_one_in_use(write: Write) -> None:
    path = write(threads=3)
    assert "above" in open_pipeline(path, threads=3).engine_name
    assert "above" not in open_pipeline(path, threads=None).engine_name  # the bundle asks for one


def broken(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(importlib.import_module(f"edgekit.backends.{name}"), "require", fail)


def test_without_the_dense_engine_native_runs_everything(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    broken("onnxruntime", MissingDependencyError("onnxruntime", "onnx", "run"), monkeypatch)
    name = open_pipeline(path).engine_name
    assert name.startswith("native ")
    assert "above" not in name


def test_without_kernels_the_dense_engines_are_used(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write()
    broken("native", EngineError("the kernels cannot be loaded"), monkeypatch)
    with caplog.at_level(logging.WARNING, logger="edgekit"):
        assert open_pipeline(path).engine_name.startswith("onnxruntime ")
    assert "the dense graphs run instead of the sparse programs: the kernels cannot be loaded" in caplog.text


def test_an_adapter_that_is_missing_names_the_dense_engine(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = FORMATS[open_bundle(both).manifest.graph_format]
    monkeypatch.setenv(library.FOLDER_VARIABLE, str(tmp_path))
    assert "there is no" in str(engine_problem(f"{name}-sparse"))
    assert engine_problem(name) is None
    with pytest.raises(EngineError, match=rf"there is no {ADAPTERS[name]}(?s:.)*runs without it: --engine {name}$"):
        open_pipeline(both, engine=f"{name}-sparse")
    statuses = {check.engine: check.status for check in verify_bundle(both).checks}
    assert (statuses["native"], statuses[name], statuses[f"{name}-sparse"]) == ("passed", "passed", "error")


def test_settings_are_those_of_dense_graphs(tiny: ModuleType, tmp_path: Path) -> None:
    options = {"onnxruntime": {"providers": [{"name": "EvilProvider"}]}, "native": {"x": 1}}
    path = tiny.write_bundle(tmp_path / "x.edgekit", programs=True, engine_options=options)
    with pytest.raises(EngineError, match="'EvilProvider' is not allowed"):
        open_pipeline(path, engine="onnxruntime")
    for engine in ("native", "onnxruntime-sparse"):
        assert len(open_pipeline(path, engine=engine).process(tiny.picture()).detections) == 4


def test_names_that_the_bundle_has_nothing_for(both: Path, tiny: ModuleType, tmp_path: Path) -> None:
    for name in ("native-sparse", "torch", "tflite-spars"):
        with pytest.raises(UsageError, match=rf"graphs and sparse programs, which '{name}' does not run; its engines"):
            open_pipeline(both, engine=name)
    plain = tiny.write_bundle(tmp_path / "plain.edgekit")
    for name in ("native", "onnxruntime-sparse"):
        with pytest.raises(UsageError, match=r"(?s)does not run; .*Make one .* edgekit export CHECKPOINT --sparse"):
            open_pipeline(plain, engine=name)
    with pytest.raises(UsageError, match="no engine is called 'native-sparse'"):
        load_engine("native-sparse", tmp_path / "x.sparse", threads=1)
