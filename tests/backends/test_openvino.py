"""What is particular to OpenVINO: its properties, and reading ONNX."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import load_engine
from edgekit.errors import EngineError

pytest.importorskip("openvino", reason="needs openvino")
IMAGE = np.zeros((1, 3, 64, 64), np.float32)


@pytest.mark.parametrize("options", [{}, {"precision": "fp32"}, {"precision": "int8"}, {"NUM_STREAMS": "1"}])
def test_it_reads_onnx_too(tiny: ModuleType, tmp_path: Path, options: dict[str, Any]) -> None:
    engine = load_engine("openvino", tiny.onnx_omg(tmp_path / "omg.onnx"), threads=1, options=options)
    np.testing.assert_allclose(engine.run({"image": IMAGE})["objectness"], tiny.OMG_BIAS[0])


@pytest.mark.parametrize("option", [{"CACHE_DIR": "/tmp/x"}, {"num_streams": 1}, {"NUM_STREAMS": [1]}])
def test_properties_that_a_bundle_may_not_set(tiny: ModuleType, tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(
        EngineError, match=rf"{re.escape(next(iter(option)))} = .* is not allowed; a bundle may set: PERF"
    ):
        load_engine("openvino", tiny.onnx_omg(tmp_path / "omg.onnx"), threads=1, options=option)


def test_a_property_that_openvino_refuses(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"openvino could not load omg\.onnx"):
        load_engine("openvino", tiny.onnx_omg(tmp_path / "omg.onnx"), threads=1, options={"PERFORMANCE_HINT": "WARP"})


def test_weights_that_are_missing_beside_the_graph(tiny: ModuleType, tmp_path: Path) -> None:
    files = tiny.graphs(tmp_path, "openvino")
    (tmp_path / "omg.bin").unlink()
    with pytest.raises(EngineError, match=r"openvino could not load omg\.xml"):
        load_engine("openvino", tmp_path / files["omg"], threads=1)


def test_nan_weights_are_named(tiny: ModuleType, tmp_path: Path) -> None:
    engine = load_engine("openvino", tiny.onnx_omg(tmp_path / "omg.onnx", nan=True), threads=1)
    with pytest.raises(EngineError, match=r"output 'objectness' of omg\.onnx holds NaN or infinity"):
        engine.run({"image": IMAGE})


def test_arithmetic_is_float32_whatever_the_weights(tiny: ModuleType, tmp_path: Path) -> None:
    exact = objectness(tiny, tmp_path, INFERENCE_PRECISION_HINT="f32")
    for precision in ("fp32", "fp16", "int8"):
        np.testing.assert_array_equal(objectness(tiny, tmp_path, precision=precision), exact)


def test_a_bundle_may_ask_for_less(tiny: ModuleType, tmp_path: Path) -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a CPU with bfloat16; others compute in float32 whatever is asked for")
    exact = objectness(tiny, tmp_path, INFERENCE_PRECISION_HINT="f32")
    assert not np.array_equal(objectness(tiny, tmp_path, INFERENCE_PRECISION_HINT="bf16"), exact)


def objectness(tiny: ModuleType, folder: Path, **options: str) -> NDArray[np.float32]:
    engine = load_engine("openvino", tiny.onnx_omg(folder / "omg.onnx"), threads=1, options=options)
    image = np.random.default_rng(0).uniform(-1, 1, IMAGE.shape).astype(np.float32)
    result: NDArray[np.float32] = engine.run({"image": image})["objectness"]
    return result
