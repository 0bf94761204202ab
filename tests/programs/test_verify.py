"""``edgekit verify``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import pytest
from click.testing import CliRunner

from edgekit.cameras import Frame, Source
from edgekit.cli import load_program
from edgekit.errors import BundleIntegrityError, GateError, SparseProgramError, UsageError

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


def test_a_sparse_bundle(tiny: ModuleType, tmp_path: Path) -> None:
    path = tiny.write_bundle(tmp_path / "tiny.edgekit", "sparse")
    assert output(path).splitlines()[4].split()[:2] == ["native", "passed"]


def test_a_sparse_program_that_is_damaged(tiny: ModuleType, tmp_path: Path) -> None:
    """Its hash is right: another release of edgekit wrote it, say."""
    path = tiny.write_bundle(tmp_path / "tiny.edgekit", "sparse")
    program, manifest = path / "detector.sparse", path / "bundle.json"
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    document = json.loads(manifest.read_text())
    document["files"][program.name]["sha256"] = hashlib.sha256(program.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
    result = CliRunner().invoke(load_program("verify"), [str(path)])
    assert result.exit_code == 5
    assert "native could not load detector.sparse: the sparse program does not match its checksum" in result.stdout
    with pytest.raises(SparseProgramError, match=r"native could not load detector\.sparse"):
        output(path, "--engine", "native")


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


@pytest.fixture
def pictures(tmp_path: Path, tiny: ModuleType) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), tiny.picture(64 + 16 * index, 96)[..., ::-1])
    return folder


def test_against_another_model(good: Path, pictures: Path) -> None:
    document = json.loads(output(good, "--against", good, "--source", pictures, "--frames", 2, "--json"))
    assert document["passed"] is True
    assert [row["engine"].split()[0] for row in document["rows"]] == ["onnxruntime", "openvino"]
    assert {row["parity"]["images"] for row in document["rows"]} == {2}
    assert all(row["parity"]["detections"] > 0 for row in document["rows"])


def test_against_with_sparse_programs(tiny: ModuleType, good: Path, pictures: Path, tmp_path: Path) -> None:
    both = tiny.write_bundle(tmp_path / "both.edgekit", programs=True, precision="fp16")
    document = json.loads(output(both, "--against", good, "--source", pictures, "--json"))
    assert document["passed"] is True
    assert [(row["engine"].split()[0], row["engine"].endswith(", sparse")) for row in document["rows"]] == [
        ("native", False), ("onnxruntime", False), ("openvino", False), ("onnxruntime", True),
    ]  # fmt: skip
    assert [row["limits"]["box_px"] for row in document["rows"]] == [0.5, 2, 2, 0.5]
    assert json.loads(output(good, "--against", both, "--source", pictures, "--json"))["passed"] is True


def test_tolerances_are_printed_where_they_change(tiny: ModuleType, tmp_path: Path) -> None:
    lines = output(tiny.write_bundle(tmp_path / "both.edgekit", programs=True)).splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["allowed", "native", "onnxruntime", "openvino",
                                                       "onnxruntime-sparse"]  # fmt: skip
    golden = {"input": "golden_input.png", "output": "golden_output.json",
              "tolerance": {"objectness": 0.02, "mask_cells": 3, "score": 0.02, "box_px": 1.0}}  # fmt: skip
    half = tiny.write_bundle(tmp_path / "half.edgekit", programs=True, precision="fp16", golden=golden)
    assert [line.split()[0] for line in output(half).splitlines()[3:]] == [
        "allowed", "native", "allowed", "onnxruntime", "openvino", "allowed", "onnxruntime-sparse",
    ]  # fmt: skip


def test_against_prints_a_row_an_engine_and_source(good: Path, pictures: Path) -> None:
    lines = output(good, "--against", good, "--source", pictures, "--source", pictures / "0.png").splitlines()
    assert lines[0].split()[:2] == ["engine", "frames"]
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [
        (engine, str(source)) for engine in ("onnxruntime", "openvino") for source in (pictures, pictures / "0.png")
    ]


def test_against_a_model_that_sees_something_else(
    good: Path, pictures: Path, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, bias = tiny.HEADS["class_logits"]
    monkeypatch.setitem(tiny.HEADS, "class_logits", (weights[::-1].copy(), bias))  # red is blue and blue is red
    other = tiny.write_bundle(tmp_path / "other.edgekit")
    arguments = [str(good), "--engine", "onnxruntime", "--against", str(other), "--source", str(pictures)]
    result = CliRunner().invoke(load_program("verify"), arguments)
    assert result.exit_code == 5
    assert "do not agree" in result.stderr
    assert "expected at most" in result.stderr


def test_against_a_model_of_other_classes(good: Path, pictures: Path, tiny: ModuleType, tmp_path: Path) -> None:
    spec = replace(tiny.SPEC, classes=("cat", "dog"))
    other = tiny.write_bundle(tmp_path / "other.edgekit", spec=spec.to_json())
    with pytest.raises(UsageError, match=r"differ in classes: \('red', 'blue'\) and \('cat', 'dog'\)"):
        output(good, "--against", other, "--source", pictures)


@pytest.mark.parametrize("half", [("--source", "demo"), ("--against", "default")])
def test_against_and_source_go_together(good: Path, half: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="give both, or neither"):
        output(good, *half)


class Live(Source):
    live = True

    def frames(self) -> Iterator[Frame]:
        return iter(())


def test_against_on_a_live_source(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.exporters.comparison.open_source", lambda _: Live())
    with pytest.raises(UsageError, match="0 is live, so nobody could repeat the comparison"):
        output(good, "--against", good, "--source", "0")
