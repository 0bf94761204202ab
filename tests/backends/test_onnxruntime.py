"""What is particular to onnxruntime: providers, their options, and falling back."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekit.backends import load_engine
from edgekit.errors import EngineError

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
IMAGE = np.zeros((1, 3, 64, 64), np.float32)

JETSON = {
    "precision": "fp16",
    "providers": [
        {
            "name": "TensorrtExecutionProvider",
            "options": {
                "trt_fp16_enable": True,
                "trt_engine_cache_enable": True,
                "trt_engine_cache_path": "~/.cache/edgekit/tensorrt",
                "trt_timing_cache_enable": True,
                "trt_timing_cache_path": "~/.cache/edgekit/tensorrt",
                "trt_max_workspace_size": 1 << 30,
            },
        },
        {"name": "CUDAExecutionProvider"},
        {"name": "CPUExecutionProvider"},
    ],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def provider(name: str, **options: Any) -> dict[str, Any]:
    return {"providers": [{"name": name, "options": options}]}


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_absent_providers_are_warned_about_and_the_cpu_takes_over(
    tiny: ModuleType, tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = tiny.onnx_omg(tmp_path / "omg.onnx")
    with caplog.at_level(logging.WARNING, logger="edgekit"):
        engine = load_engine("onnxruntime", graph, threads=1, options=JETSON)
    assert engine.name == f"onnxruntime {onnxruntime.__version__} CPU"
    assert engine.run({"image": IMAGE})["objectness"].shape == (1, 1, 4, 4)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in messages] == [
        "onnxruntime cannot use TensorrtExecutionProvider, trying CPUExecutionProvider instead",
        "onnxruntime cannot use CUDAExecutionProvider, trying CPUExecutionProvider instead",
    ]
    assert "this onnxruntime is built without it" in messages[0]
    assert capfd.readouterr().out == ""


def test_a_provider_that_refuses_its_options_is_left_out(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that is there but does not start; any that every build has will do for that."""
    other = next((name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider"), None)
    if other is None:
        pytest.skip("this onnxruntime has no provider but the CPU's")
    from edgekit.backends import onnxruntime as backend

    monkeypatch.setitem(backend.ALLOWED_OPTIONS, other, frozenset({"no_such_option"}))
    graph = tiny.onnx_omg(tmp_path / "omg.onnx")
    engine = load_engine("onnxruntime", graph, threads=1, options=provider(other, no_such_option="x"))
    assert engine.run({"image": IMAGE})["objectness"].shape == (1, 1, 4, 4)


def test_without_options_it_is_the_cpu(tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = load_engine("onnxruntime", tiny.onnx_omg(tmp_path / "omg.onnx"), threads=2)
    assert engine.name.endswith("CPU")
    assert caplog.records == []


def test_tensorrt_caches_are_the_user_s_and_apart_for_each_graph(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    from edgekit.backends.onnxruntime import _providers

    first = dict(_providers(tiny.onnx_omg(tmp_path / "omg.onnx"), JETSON))["TensorrtExecutionProvider"]
    other = dict(_providers(tiny.onnx_detector(tmp_path / "d.onnx"), JETSON))["TensorrtExecutionProvider"]
    cache = home / ".cache/edgekit/tensorrt"
    assert first["trt_timing_cache_path"] == other["trt_timing_cache_path"] == str(cache)
    assert Path(first["trt_engine_cache_path"]).parent == cache
    assert first["trt_engine_cache_path"] != other["trt_engine_cache_path"]
    assert first["trt_fp16_enable"] == "1"
    assert first["trt_max_workspace_size"] == "1073741824"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (provider("OpenVINOExecutionProvider"), "'OpenVINOExecutionProvider' is not allowed; there are: Tensorrt"),
        (provider("CPUExecutionProvider", use_arena=1), "use_arena is not allowed; a bundle may set: nothing"),
        (provider("TensorrtExecutionProvider", trt_extra_plugin_lib_paths="/x.so"), "paths is not allowed"),
        (provider("CUDAExecutionProvider", user_compute_stream="1"), "user_compute_stream is not allowed"),
        (
            provider("CUDAExecutionProvider", device_id=None),
            "device_id: expected text, a number or true/false, got None",
        ),
        (
            provider("TensorrtExecutionProvider", trt_engine_cache_path="/tmp/x"),
            "expected a folder below ~/.cache/edgekit, got '/tmp/x'",
        ),
        (
            provider("TensorrtExecutionProvider", trt_timing_cache_path="~/.cache/edgekit/../../.ssh"),
            "expected a folder below ~/.cache/edgekit",
        ),
        ({"providers": ["CPUExecutionProvider"]}, 'expected {"name", "options"}'),
        ({"providers": [{"name": "CPUExecutionProvider", "options": 3}]}, 'expected {"name", "options"}'),
        ({"providers": "CPUExecutionProvider"}, "must be a list of providers"),
    ],
)
def test_options_that_a_bundle_may_not_set(
    tiny: ModuleType, tmp_path: Path, home: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=re.escape(message)):
        load_engine("onnxruntime", tiny.onnx_omg(tmp_path / "omg.onnx"), threads=1, options=options)


def test_cache_folders_are_made_where_they_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from edgekit.backends.onnxruntime import _present

    (tmp_path / "file").touch()
    for name in ("cache", "file/cache"):
        providers = [("CPUExecutionProvider", {"trt_engine_cache_path": str(tmp_path / name)})]
        assert _present(onnxruntime, providers) == providers
    assert (tmp_path / "cache").is_dir()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["Not a directory"]


def test_nan_weights_are_named(tiny: ModuleType, tmp_path: Path) -> None:
    engine = load_engine("onnxruntime", tiny.onnx_omg(tmp_path / "omg.onnx", nan=True), threads=1)
    with pytest.raises(
        EngineError, match=r"output 'objectness' of omg\.onnx holds NaN or infinity \(16 of 16 values\)"
    ):
        engine.run({"image": IMAGE})
