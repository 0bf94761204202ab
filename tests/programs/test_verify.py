"""``edgekit verify``."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import BundleIntegrityError, GateError, UsageError

pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")


@pytest.fixture(scope="module")
def good(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("verify") / "tiny.edgekit")
    return path


@pytest.fixture
def wrong(good: Path, tmp_path: Path) -> Path:
    """A bundle whose recorded output is another one."""
    path = Path(shutil.copytree(good, tmp_path / "wrong.edgekit"))
    output, manifest = path / "golden_output.json", path / "bundle.json"
    output.write_text(output.read_text().replace("0.997368", "0.497368"))
    document = json.loads(manifest.read_text())
    document["files"][output.name]["sha256"] = hashlib.sha256(output.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
    return path


def output(*arguments: str | Path) -> str:
    result = CliRunner().invoke(load_program("verify"), [str(item) for item in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_good_bundle(good: Path) -> None:
    lines = output(good).splitlines()
    assert lines[0] == "tiny: hashes match, 4 detections recorded"
    assert [line.split()[:2] for line in lines[4:]] == [["onnxruntime", "passed"], ["openvino", "passed"]]


def test_one_engine_as_json(good: Path) -> None:
    report = json.loads(output(good, "--engine", "onnxruntime", "--threads", "2", "--json"))
    assert report["passed"] is True
    assert [check["engine"] for check in report["checks"]] == ["onnxruntime"]


def test_another_output_fails_the_gate(wrong: Path) -> None:
    with pytest.raises(GateError, match=r"tiny does not give its recorded output on onnxruntime, openvino\."):
        output(wrong)


def test_the_exit_code_and_the_report_of_a_failure(wrong: Path) -> None:
    result = CliRunner().invoke(load_program("verify"), [str(wrong), "--engine", "onnxruntime", "--json"])
    assert result.exit_code == 5
    assert json.loads(result.stdout)["checks"][0]["status"] == "failed"
    assert "Do not trust its detections here" in result.stderr


def test_a_damaged_bundle(wrong: Path) -> None:
    (wrong / "omg.onnx").write_bytes(b"")
    with pytest.raises(BundleIntegrityError, match=r"omg\.onnx has 0 bytes"):
        output(wrong)


def test_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "best.pt").touch()
    with pytest.raises(UsageError, match=r"is a checkpoint, and only bundles carry a golden output\."):
        output(tmp_path / "best.pt")
