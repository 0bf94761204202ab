"""The border to the engines: translation of exceptions, checks of inputs and outputs."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.backends.boundary import (
    LOADING,
    RUNNING,
    absent,
    broken_install,
    check_finite,
    check_inputs,
    translated,
)
from edgekit.errors import EngineError, MissingDependencyError, UsageError

IMAGE = np.zeros((1, 3, 4, 4), np.float32)


def test_an_engine_s_exception_becomes_an_engine_error_with_its_cause() -> None:
    with (
        pytest.raises(EngineError, match=r"openvino could not load omg\.xml: no such op\nThe file is damaged") as info,
        translated("openvino", "omg.xml", LOADING, (RuntimeError,)),
    ):
        raise RuntimeError("no such\n  op")
    assert isinstance(info.value.__cause__, RuntimeError)


def test_an_exception_without_a_text_is_named() -> None:
    with (
        pytest.raises(EngineError, match="onnxruntime could not run x: RuntimeError\nThe machine ran out"),
        translated("onnxruntime", "x", RUNNING, (RuntimeError,)),
    ):
        raise RuntimeError


@pytest.mark.parametrize("error", [KeyError("ours"), UsageError("ours"), KeyboardInterrupt()])
def test_other_exceptions_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as info, translated("tflite", "x", RUNNING, (RuntimeError,)):
        raise error
    assert info.value is error


def test_absent_and_broken_packages_name_their_extra() -> None:
    assert isinstance(absent("onnxruntime", "onnxruntime"), MissingDependencyError)
    assert 'pip install "edgekit-vision[onnx]"' in str(absent("onnxruntime", "onnxruntime"))
    assert "run models with the onnxruntime engine" in str(absent("onnxruntime", "onnxruntime"))
    broken = str(broken_install("openvino", "openvino", ImportError("libtbb.so.12: cannot open")))
    assert "installed but cannot be imported: libtbb" in broken
    assert "edgekit-vision[openvino]" in broken


def test_inputs_are_checked_by_name_and_shape() -> None:
    check_inputs("tflite", "omg", {"image": IMAGE}, {"image": (1, 3, 4, 4)})
    with pytest.raises(EngineError, match=r"omg has the inputs image, mask, got image\."):
        check_inputs("tflite", "omg", {"image": IMAGE}, {"image": (1, 3, 4, 4), "mask": (1, 1, 2, 2)})
    with pytest.raises(EngineError, match=r"'image' of omg has the shape \[1, 3, 8, 8\], got \[1, 3, 4, 4\]"):
        check_inputs("tflite", "omg", {"image": IMAGE}, {"image": (1, 3, 8, 8)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_errors_that_name_the_graph(value: float) -> None:
    bad = np.ones((1, 5), np.float32)
    assert check_finite("torch", "omg", {"objectness": bad})["objectness"] is bad
    bad[0, 3] = value
    with pytest.raises(
        EngineError, match=r"torch: the output 'objectness' of omg holds NaN or infinity \(1 of 5 values\)"
    ):
        check_finite("torch", "omg", {"objectness": bad})
