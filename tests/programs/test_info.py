"""``edgekit info``."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import BundleIntegrityError, UsageError

pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")


@pytest.fixture(scope="module")
def bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny.write_bundle(
        tmp_path_factory.mktemp("info") / "tiny.edgekit",
        zipped=True,
        accuracy={"ap50_before": 0.61, "ap50_after": 0.6, "images": 500, "max_drop": 1.0},
        calibration={"images": 128, "sha256": "0" * 64},
        kept_float=["conv"],
        target="raspberry-pi-4",
    )
    return path


def output(*arguments: str | Path) -> str:
    result = CliRunner().invoke(load_program("info"), [str(item) for item in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_bundle_for_people(bundle: Path) -> None:
    text = output(bundle)
    for line in (
        "classes           2: red, blue",
        "input             64x64 RGB, letterboxed; (pixel - 128) / 128",
        "anchors           20 on 2 levels",
        "mask              4x4 cells, active from 0.1, dilated by 0",
        "format            onnx, fp32, for raspberry-pi-4",
        "calibration       128 images",
        "kept in float     1 layers",
        "ap50_after 0.6000",
        "training data     none",
    ):
        assert line in text


def test_a_bundle_as_json(bundle: Path, tiny: ModuleType) -> None:
    document = json.loads(output(bundle, "--json"))
    assert document["kind"] == "bundle"
    assert document["spec"]["classes"] == list(tiny.SPEC.classes)
    assert document["bytes"] == sum(entry["bytes"] for entry in document["files"].values())


def test_a_sparse_bundle(tiny: ModuleType, tmp_path: Path) -> None:
    text = output(tiny.write_bundle(tmp_path / "tiny.edgekit", "sparse"))
    assert "format            sparse, fp32, for any board" in text
    assert "engines           native; 1 threads" in text


def test_sparse_programs_beside_the_graphs(tiny: ModuleType, tmp_path: Path) -> None:
    known = {"cpu": "AMD EPYC", "threads": 2, "engine": "openvino", "share": 0.83}
    for name, break_even, line in (
        ("a", None, "for every frame; break-even not measured (edgekit bench sparse)"),
        ("b", known, "up to 83 % active, above it openvino is faster, measured on AMD EPYC, 2 threads"),
        ("c", {**known, "share": 1}, "for every frame; never slower than openvino, measured on AMD EPYC, 2 threads"),
    ):
        text = output(tiny.write_bundle(tmp_path / name, programs=True, break_even=break_even))
        assert "engines           native, onnxruntime, openvino, onnxruntime-sparse; 1 threads" in text
        assert f"sparse programs   {line}" in text


def test_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    from edgekit.models.checkpoint import Checkpoint, save_checkpoint
    from edgekit.models.registry import build

    model = build("mobilenetv2-ssdlite-omg", ("a", "b"), size=64).eval()
    provenance = {"training_data": "photographs", "starting_weights": "ImageNet", "teacher": "a large one"}
    save_checkpoint(tmp_path / "best.pt", Checkpoint(model=model, metrics={"ap50": 0.5}, provenance=provenance))
    text = output(tmp_path / "best.pt")
    assert "mobilenetv2-ssdlite-omg" in text
    assert "ap50              0.5" in text
    assert "training data     photographs" in text
    assert "teacher           a large one" in text
    document = json.loads(output(tmp_path / "best.pt", "--json"))
    assert document["kind"] == "checkpoint"
    assert document["parameters"] == sum(value.numel() for value in model.parameters())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model"):
        output(tmp_path / "absent.edgekit")


def test_a_damaged_bundle(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.edgekit").write_bytes(bundle.read_bytes()[:-30])
    with pytest.raises(BundleIntegrityError, match="is no zip file, or a damaged one"):
        output(tmp_path / "cut.edgekit")
