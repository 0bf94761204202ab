"""``edgekit profile`` on a tiny bundle and on an untrained checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import MissingDependencyError, UsageError
from edgekit.models.facts import find_facts
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


def test_the_macs_of_a_network_by_its_name() -> None:
    facts = find_facts("pvanet-9.0")
    lines = profile(facts.name, "--macs").splitlines()
    assert lines[1] == "input 1056x640 (width x height), 20 classes, 200 RoIs"
    assert lines[3].split() == ["stage", "weights", "parameters", "MMAC"]
    assert lines[4].split() == ["conv1_1", "2,352", "2,416", "397.39"]
    assert lines[-2].split() == ["head", "92,704,768", "92,729,449", "18540.95"]
    assert lines[-1].split() == ["total", "96,488,432", "96,532,415", "27787.12"]
    assert profile(facts.name, "--macs", "--no-layers").splitlines() == [*lines[:4], lines[-1]]
    assert json.loads(profile(facts.name, "--macs", "--json")) == json.loads(json.dumps(facts.to_json()))


def test_the_macs_of_a_network_need_no_engine() -> None:
    program = (
        "import sys; from edgekit.cli import load_program\n"
        "load_program('profile').main(['pvanet-9.1', '--macs'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("27890.52\n[]\n")


def test_the_macs_of_a_bundle(bundle: Path) -> None:
    document = json.loads(profile(bundle, "--macs", "--json"))
    assert document.keys() == {"model", "parameters", "macs", "macs_omg", "layers"}
    assert (document["macs"], document["macs_omg"], document["parameters"]) == (360, 48, 39)
    assert [row["name"] for row in document["layers"]] == ["omg.side_4", "detector.side_4", "detector.side_2"]
    lines = profile(bundle, "--macs").splitlines()
    assert lines[0].split() == ["output", "parameters", "MMAC"]
    assert [line.split()[0] for line in lines[1:]] == [*(row["name"] for row in document["layers"]), "omg", "detector"]
    assert profile(bundle, "--macs", "--no-layers").splitlines() == [lines[0], *lines[-2:]]


def test_the_macs_of_a_checkpoint(checkpoint: Path) -> None:
    text = profile(checkpoint, "--macs")
    assert "detector.backbone.stem.conv" in text
    assert "milliseconds" not in text


def test_macs_that_were_asked_for_and_cannot_be_known(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx", reason="the tiny bundle is written with onnx")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="torch is needed to count the MACs"):
        profile(tiny.write_bundle(tmp_path / "tiny.edgekit"), "--macs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pvanet-9.00", "--macs"), r"no network is called 'pvanet-9\.00'; did you mean pvanet-9\.0\?\n.* bundle"),
        (("zzz", "--macs"), r"no network is called 'zzz'; there are: mobilenetv2.*\nThere is no bundle or checkpoint"),
        (("pvanet-9.0",), r"pvanet-9\.0 is a network's name, and without weights nothing is timed; add --macs"),
        (("--macs", "--threads", 1), "--macs runs nothing, so it goes without --threads"),
        (
            ("pvanet-9.0", "--macs", "--iterations", 100, "--mask", "omg", "--warmup", 1),
            "goes without --mask, --warmup, --iterations",
        ),
        (("--macs", "--engine", "all", "--active", 0.5, "--source", "demo"), "without --engine, --active, --source"),
    ],
)
def test_wrong_use(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        profile(*arguments)
    assert caught.value.exit_code == 2


def test_a_path_comes_before_a_network_of_the_same_name(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pvanet-9.0").symlink_to(bundle)
    assert json.loads(profile("pvanet-9.0", "--macs", "--json"))["macs"] == 360
