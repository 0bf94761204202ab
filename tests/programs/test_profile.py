"""``edgekit profile`` on a tiny bundle and on an untrained checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import UsageError
from edgekit.profiling.machine import cpu_model

STAGES = ["letterbox", "mask", "detector", "decode", "total"]


def profile(*arguments: object) -> str:
    result = CliRunner().invoke(load_program("profile"), [str(item) for item in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
    pytest.importorskip("onnx", reason="the tiny bundle is written with onnx")
    layers = [layer("omg", 4, 3), layer("detector", 4, 18), layer("detector", 2, 18)]
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edgekit", layers=layers)
    return path


def layer(graph: str, side: int, macs_a_site: int) -> dict[str, object]:
    """One entry of a bundle's layer table."""
    return {
        "name": f"{graph}.side_{side}",
        "kind": "conv",
        "graph": graph,
        "parameters": macs_a_site,
        "macs": side * side * macs_a_site,
        "rows": side,
        "columns": side,
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="checkpoints need PyTorch: pip install 'edgekit-vision[train]'")
    from edgekit.models.checkpoint import Checkpoint, save_checkpoint
    from edgekit.models.registry import build

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "x.pt"
    save_checkpoint(path, Checkpoint(model=build("mobilenetv2-ssdlite-omg", ("cat", "dog"), size=128).eval()))
    return path


def test_a_bundle_as_json(bundle: Path) -> None:
    document = json.loads(profile(bundle, "--engine", "onnxruntime", "--warmup", 1, "--iterations", 4, "--json"))
    (engine,) = document["engines"]
    assert engine["engine"] == "onnxruntime"
    assert list(engine["stages"]) == STAGES
    total = engine["stages"]["total"]
    assert total["iterations"] == 4
    assert total["min_ms"] <= total["p50_ms"] <= total["p95_ms"] <= total["p99_ms"]
    assert document["active_share"] == 2 / 16  # the red and the blue block
    assert (document["macs"], document["macs_omg"], document["parameters"]) == (360, 48, 39)
    assert [row["macs_executed"] for row in document["layers"]] == [48, 2 * 18, 2 * 18]
    assert document["macs_executed"] == 120
    assert document["gemm_gmacs"] > 0
    assert "cpu" in document["machine"]


def test_a_sparse_bundle(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the tiny bundle is written with onnx")
    path = tiny.write_bundle(tmp_path / "tiny.edgekit", "sparse", layers=[layer("detector", 4, 18)])
    document = json.loads(profile(path, "--warmup", 0, "--iterations", 2, "--json"))
    (engine,) = document["engines"]
    assert engine["detail"].startswith("native ")
    assert list(engine["stages"]) == STAGES
    assert document["active_share"] == 2 / 16


def test_sparse_programs_beside_the_graphs(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
    pytest.importorskip("onnx", reason="the tiny bundle is written with onnx")
    known = {"cpu": cpu_model(), "threads": 1, "engine": "onnxruntime", "share": 0.1}
    path = tiny.write_bundle(
        tmp_path / "tiny.edgekit", programs=True, break_even=known, layers=[layer("detector", 4, 18)]
    )
    common = ("--warmup", 0, "--iterations", 2, "--json")
    document = json.loads(profile(path, *common))
    engines = ["native", "onnxruntime", "openvino", "onnxruntime-sparse"]
    assert [engine["engine"] for engine in document["engines"]] == engines
    assert all(engine["ran"] for engine in document["engines"])
    (auto,) = json.loads(profile(path, "--engine", "auto", *common))["engines"]
    assert ", above 10 % active onnxruntime " in auto["detail"]


def test_a_bundle_as_tables(bundle: Path) -> None:
    text = profile(bundle, "--engine", "onnxruntime", "--mask", "off", "--warmup", 0, "--iterations", 2)
    assert "mask off: 100.0 % of the cells active" in text
    assert all(f"  {stage}" in text for stage in STAGES)
    assert "detector.side_2" in text


def test_macs_that_cannot_be_known_are_left_out(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
    pytest.importorskip("onnx", reason="the tiny bundle is written with onnx")
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tiny.write_bundle(tmp_path / "tiny.edgekit")
    text = profile(path, "--engine", "onnxruntime", "--warmup", 0, "--iterations", 1)
    assert "MMAC" not in text
    assert "MACs are left out: torch is needed to count the MACs" in caplog.text


def test_a_checkpoint_and_its_layers(checkpoint: Path, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    cv2.imwrite(str(picture), np.zeros((40, 60, 3), np.uint8))
    text = profile(checkpoint, "--source", picture, "--active", 0.25, "--warmup", 0, "--iterations", 1)
    assert "detector.backbone.stem.conv" in text
    assert "mask active 0.25: 25.0 % of the cells active" in text
    assert "dense GMAC/s in the detector" in text
    line = ("--source", picture, "--warmup", 0, "--iterations", 1)
    assert "detector.backbone.stem.conv" not in profile(checkpoint, *line, "--no-layers")


def test_macs_add_up_and_follow_the_mask(checkpoint: Path, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    cv2.imwrite(str(picture), np.zeros((40, 60, 3), np.uint8))

    def macs(*mask: object) -> dict[str, Any]:
        line = ("--source", picture, "--warmup", 0, "--iterations", 1, "--json")
        document: dict[str, Any] = json.loads(profile(checkpoint, *line, *mask))
        rows = document["layers"]
        assert sum(row["macs"] for row in rows) == document["macs"] + document["macs_omg"]
        assert sum(row["macs_executed"] for row in rows) == document["macs_executed"]
        return document

    off, none = macs("--mask", "off"), macs("--active", 0)
    assert off["macs_executed"] == off["macs"]
    assert none["macs_executed"] == 0
    assert off["parameters"] == none["parameters"] > 3_000_000


def test_two_masks(bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"two masks were given, --mask off and --active 0\.3"):
        profile(bundle, "--mask", "off", "--active", 0.3)


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model"):
        profile(tmp_path / "none.edgekit")
