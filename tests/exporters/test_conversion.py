"""The table of converters, the request they share, and what they say when a package is missing."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.backends import ENGINES
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.errors import ExportError, MissingDependencyError
from edgekit.exporters import CONVERTERS, SUFFIXES, converter
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.dependencies import load
from edgekit.spec import AnchorLevel, DetectorSpec

SPEC = DetectorSpec(
    model="x",
    classes=("a",),
    height=40,
    width=40,
    anchors=(AnchorLevel(rows=5, columns=5, sizes=((8.0, 8.0),)),),
    mask_grid=(5, 5),
)
EVERY = {name: converter(name, SPEC) for name in SUFFIXES}


def test_every_format_has_a_converter_and_a_suffix() -> None:
    assert {name: suffix for name, (suffix, _) in GRAPH_FORMATS.items()} == SUFFIXES
    assert set(SUFFIXES.values()) == {suffix for _, suffix in ENGINES.values()}
    assert CONVERTERS.keys() == SUFFIXES.keys() - {"sparse"}  # a sparse program needs to know the normalisation, too
    signatures = {str(inspect.signature(convert)) for convert in CONVERTERS.values()}
    assert len(signatures) == 1


@pytest.mark.parametrize("convert", EVERY.values(), ids=EVERY)
def test_contradictory_requests_are_refused(
    convert: Callable[..., None], graphs: dict[str, Path], tmp_path: Path, calibration: Calibration
) -> None:
    source, out = graphs["omg"], tmp_path / "out"
    with pytest.raises(ExportError, match=r"int8 needs calibration pictures[\s\S]*--calib DIR"):
        convert(source, out, "int8")
    with pytest.raises(ExportError, match=r"keeping 1 layer\(s\) in float32 only makes sense for int8.*is fp16"):
        convert(source, out, "fp16", calibration, frozenset({"stem"}))
    unknown: Any = "int4"
    with pytest.raises(ExportError, match="unknown precision 'int4'; there are: fp32, fp16, int8"):
        convert(source, out, unknown)
    assert not out.exists()


@pytest.mark.parametrize("convert", EVERY.values(), ids=EVERY)
def test_broken_graphs_are_refused(convert: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xfe not a graph")
    with pytest.raises(ExportError, match=r"broken.onnx is not a valid ONNX graph"):
        convert(tmp_path / "broken.onnx", tmp_path / "out", "fp32")
    with pytest.raises(ExportError, match=r"there is no ONNX graph at .*absent.onnx"):
        convert(tmp_path / "absent.onnx", tmp_path / "out", "fp32")


@pytest.mark.parametrize(
    ("name", "package", "absent"),
    [
        ("tflite", "ai-edge-litert", "ai_edge_litert"),
        ("openvino", "openvino", "openvino"),
        ("onnx", "onnx", "onnx"),
        ("sparse", "onnx", "onnx"),
    ],
)
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, graphs: dict[str, Path], tmp_path: Path, name: str, package: str, absent: str
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == absent]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, absent, None)
    message = rf'{package} is needed to .*\n.*pip install "edgekit-vision\[export\]"'
    with pytest.raises(MissingDependencyError, match=message):
        EVERY[name](graphs["omg"], tmp_path / "out", "fp32")


def test_a_broken_package_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_installed.py").write_text("import a_module_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_absent"):
        load("half_installed", package="half", purpose="test")
