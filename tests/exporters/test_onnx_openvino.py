"""OpenVINO files in every precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.backends import load_engine
from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.exporters.onnx_openvino import to_openvino


def compare(
    source: Path, converted: Path, unseen: list[Inputs]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(found, expected) of every output for every input."""
    engine = load_engine("openvino", converted, threads=1)
    reference = load_engine("onnxruntime", source, threads=1)
    for inputs in unseen:
        used = inputs if source.stem == "detector" else {"image": inputs["image"]}
        found = engine.run(used)
        for output, expected in reference.run(used).items():
            yield found[output], expected


@pytest.mark.parametrize("name", ["detector", "omg"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_float_equals_onnxruntime(
    graphs: dict[str, Path], tmp_path: Path, unseen: list[Inputs], name: str, precision: Any, tolerance: float
) -> None:
    out = tmp_path / f"{name}.xml"
    to_openvino(graphs[name], out, precision)
    for found, expected in compare(graphs[name], out, unseen):
        assert np.abs(found - expected).max() < tolerance
        assert not found[expected == 0].any()


def test_half_precision_halves_the_weights(graphs: dict[str, Path], tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        to_openvino(graphs["detector"], tmp_path / f"{precision}.xml", precision)  # type: ignore[arg-type]
    sizes = [(tmp_path / f"{precision}.bin").stat().st_size for precision in ("fp32", "fp16")]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("name", ["detector", "omg"])
def test_int8_is_close_to_float_and_the_mask_holds(
    graphs: dict[str, Path],
    tmp_path: Path,
    calibration: Calibration,
    unseen: list[Inputs],
    cosine: Callable[..., float],
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    out = tmp_path / f"{name}.xml"
    to_openvino(graphs[name], out, "int8", calibration)
    assert capfd.readouterr().out == "", "stdout belongs to data"
    for found, expected in compare(graphs[name], out, unseen):
        assert cosine(found, expected) > 0.99
        assert not found[expected == 0].any()


def test_kept_layers_stay_float(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration, net: Any) -> None:
    import openvino

    kept = frozenset({"depthwise", "class_logits.far"})
    to_openvino(graphs["detector"], tmp_path / "detector.xml", "int8", calibration, kept)
    model = openvino.Core().read_model(tmp_path / "detector.xml")
    float_weights = set()
    for operation in model.get_ops():
        if "Convolution" in operation.get_type_name():
            source = operation.input_value(1).get_node()
            while source.get_type_name() in ("Reshape", "Convert", "Multiply", "Subtract"):
                source = source.input_value(0).get_node()
            if source.get_element_type().to_string() in ("f32", "f16"):
                float_weights.add(operation.get_friendly_name().split("/")[0])
    assert float_weights == kept


def test_an_operation_that_openvino_lacks_is_refused(net: Any, tmp_path: Path) -> None:
    graph = net(image=[1, 3, 4, 4])
    source = graph.save(tmp_path / "graph.onnx", graph.node("Det", ["image"], "determinant"))
    with pytest.raises(ExportError, match=r"OpenVINO cannot convert .*graph.onnx[\s\S]*Det"):
        to_openvino(source, tmp_path / "graph.xml", "fp32")


def test_unknown_layers_are_not_kept(graphs: dict[str, Path], tmp_path: Path, calibration: Calibration) -> None:
    with pytest.raises(ExportError, match="cannot keep 'nothing' in float32: the graph has no such convolution"):
        to_openvino(graphs["omg"], tmp_path / "graph.xml", "int8", calibration, frozenset({"nothing"}))
