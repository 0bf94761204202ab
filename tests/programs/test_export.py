"""``edgekit export``: from a checkpoint to a bundle that verifies, or to nothing at all."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import open_bundle
from edgekit.bundle.golden import verify_bundle
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.cli import load_program
from edgekit.errors import (
    CheckpointError,
    DataError,
    EngineError,
    ExportError,
    GateError,
    StorageError,
    UsageError,
)
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.registry import build

ROOT = Path(__file__).resolve().parents[2]
NO_HALF = ("sparse", "fp16")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """``tests/toy_detector.py``: a small detector that really detects, and its data."""
    specification = importlib.util.spec_from_file_location("toy_detector", ROOT / "tests" / "toy_detector.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights: enough for everything but int8."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("mobilenetv2-ssdlite-omg", ("red", "blue"), size=64).eval()
    path = tmp_path_factory.mktemp("untrained") / "best.pt"
    save_checkpoint(path, Checkpoint(model=model, provenance={"training_data": "none", "starting_weights": "none"}))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType) -> Path:
    """A folder with ``toy.pt``, ``broken.pt`` (the same function, hopeless in int8) and ``data``."""
    folder = tmp_path_factory.mktemp("toy")
    model = toy.train()
    toy.save(model, folder / "toy.pt")
    toy.save(toy.break_under_int8(model), folder / "broken.pt")
    toy.write_dataset(folder / "data")
    return folder


def export(*arguments: object) -> Result:
    result = CliRunner().invoke(load_program("export"), [str(value) for value in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_bundle_that_verifies(tmp_path: Path, untrained: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "x.edgekit"
    document: dict[str, Any] = json.loads(export(untrained, "-o", out, "--json").stdout)
    assert (document["format"], document["precision"], document["target"]) == ("onnx", "fp32", None)
    assert document["gate"]["passed"] is True
    assert document["gate"]["accuracy"] is None
    assert document["gate"]["parity"]["tensors"]["class_logits"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert "accuracy is not measured" in caplog.text

    manifest = open_bundle(out).manifest
    recorded = manifest.document
    assert recorded["accuracy"] is None
    assert recorded["calibration"] is None
    assert recorded["parity"]["images"] == 1
    assert recorded["provenance"] == {"training_data": "none", "starting_weights": "none"}
    assert {"python", "torch", "onnx", "onnxruntime", "numpy"} <= set(recorded["tool_versions"])
    assert manifest.name == "x"
    assert manifest.spec == load_checkpoint(untrained).spec
    assert manifest.macs["dense"] == sum(row["macs"] for row in recorded["layers"] if row["graph"] == "detector") > 0
    assert manifest.parameters == sum(row["parameters"] for row in recorded["layers"])
    assert document["bytes"] == sum(entry.bytes for entry in manifest.files.values())
    assert verify_bundle(out, "onnxruntime").passed
    assert leftovers(tmp_path) == ["x.edgekit"]


def test_a_target_chooses_and_the_run_names_the_bundle(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "runs" / "night"
    run.mkdir(parents=True)
    shutil.copy(untrained, run / "best.pt")
    monkeypatch.chdir(tmp_path)
    text = export(run / "best.pt", "--target", "raspberry-pi-4", "--zip").stdout
    assert text.startswith("night-raspberry-pi-4-fp16.edgekit: fp16 tflite")
    assert "accuracy  not measured" in text
    assert "raspberry-pi-4 is fastest in int8, which needs pictures" in caplog.text
    bundle = open_bundle(tmp_path / "night-raspberry-pi-4-fp16.edgekit")
    assert bundle.path.is_file()
    assert (bundle.manifest.target, bundle.manifest.threads, bundle.manifest.engines) == (
        "raspberry-pi-4",
        4,
        ("tflite",),
    )


def test_a_sparse_program(tmp_path: Path, untrained: Path) -> None:
    out = tmp_path / "x.edgekit"
    document = json.loads(export(untrained, "--format", "sparse", "-o", out, "--json").stdout)
    assert (document["format"], document["engines"]) == ("sparse", ["native"])
    assert document["gate"]["engine"].startswith("native ")
    assert document["gate"]["parity"]["tensors"]["class_logits"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert open_bundle(out).manifest.graphs == {"omg": "omg.sparse", "detector": "detector.sparse"}
    assert verify_bundle(out, "native").passed


@pytest.mark.parametrize(
    ("graph_format", "precision", "engines"),
    [
        ("onnx", "fp32", ["native", "onnxruntime", "openvino", "onnxruntime-sparse"]),
        ("tflite", "fp16", ["native", "tflite", "tflite-sparse"]),
        ("openvino", "fp32", ["native", "openvino", "openvino-sparse"]),
    ],
)
def test_sparse_programs_beside_the_graphs(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch, graph_format: str, precision: str,
    engines: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("edgekit.backends.openvino_build.COMPILERS", ())  # its Python operator does
    monkeypatch.delenv("CXX", raising=False)
    out = tmp_path / "x.edgekit"
    common = ("--format", graph_format, "--precision", precision, "--sparse")
    document = json.loads(export(untrained, *common, "-o", out, "--json").stdout)
    assert document["gate"]["precision"] == precision
    assert document["sparse_gate"]["passed"] is True
    assert document["sparse_gate"]["precision"] == "fp32"  # there is no fp16
    assert document["sparse_gate"]["engine"].startswith("native ")
    assert document["sparse_gate"]["parity"]["tensors"]["class_logits"]["cosine"] == pytest.approx(1, abs=1e-5)
    manifest = open_bundle(out).manifest
    suffix = GRAPH_FORMATS[graph_format][0]
    section = manifest.document["sparse"]
    assert section["programs"] == {"omg": "omg.sparse", "detector": "detector.sparse"}
    assert section["regions"] == {"omg": f"omg.sparse{suffix}", "detector": f"detector.sparse{suffix}"}
    assert section["break_even"] is section["accuracy"] is None
    assert section["parity"]["engine"].startswith("native ")
    assert (document["engines"], manifest.choices) == (engines[1:-1], tuple(engines))
    checks = {check.engine: check for check in verify_bundle(out).checks}
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys(engines, "passed")
    assert checks["native"].tolerance.score == checks[engines[-1]].tolerance.score == 0.002
    assert checks[engines[1]].tolerance.score == (0.02 if precision == "fp16" else 0.002)
    assert leftovers(tmp_path) == ["x.edgekit"]


def test_a_sparse_program_that_fails_is_named(tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.exporters import build
    from edgekit.exporters.gate import run_gate

    def strict(*arguments: Any, **options: Any) -> Any:
        report = run_gate(*arguments, **options)
        if not report.engine.startswith("native"):
            return report
        return replace(report, parity=replace(report.parity, detections=0, unpaired=99))

    monkeypatch.setattr(build, "run_gate", strict)
    with pytest.raises(GateError) as refusal:
        export(untrained, "--half", "--sparse", "-o", tmp_path / "x.edgekit")
    message = str(refusal.value)
    assert message.startswith("the fp32 sparse program is too far from its checkpoint, so no bundle was written:\n")
    assert message.endswith("not the model\nThe graphs beside it passed: without --sparse they make a bundle")
    assert refusal.value.exit_code == 5
    assert leftovers(tmp_path) == []


def test_sparse_programs_need_the_native_engine(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise EngineError("the kernels of the native engine cannot be loaded")

    monkeypatch.setattr("edgekit.backends.native.require", fail)
    with pytest.raises(EngineError, match="the kernels of the native engine cannot be loaded"):
        export(untrained, "--sparse", "-o", tmp_path / "x.edgekit")
    assert leftovers(tmp_path) == []


def test_the_report_has_both(tmp_path: Path, untrained: Path) -> None:
    lines = export(untrained, "--sparse", "--zip", "-o", tmp_path / "x.edgekit").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["parity", "accuracy", "beside", "parity", "accuracy"]
    assert lines[3] == "beside it, fp32 sparse programs"
    assert lines[4].endswith("CPU)")
    assert "(native " in lines[4]


def test_jetson_settings_and_a_golden_picture_travel(tmp_path: Path, untrained: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert cv2.imwrite(str(tmp_path / "mine.png"), picture)
    out = tmp_path / "x.edgekit"
    export(
        untrained, "--target", "jetson", "--half", "--precision", "fp16", "--golden", tmp_path / "mine.png", "-o", out
    )
    bundle = open_bundle(out)
    manifest = bundle.manifest
    assert (manifest.target, manifest.precision, manifest.engines[0]) == ("jetson-orin-nano", "fp16", "onnxruntime")
    assert manifest.engine_options["onnxruntime"]["providers"][0]["name"] == "TensorrtExecutionProvider"
    assert np.array_equal(cv2.imread(str(bundle.file(manifest.golden.input))), picture)


def test_an_old_bundle_is_replaced_only_when_asked(tmp_path: Path, untrained: Path) -> None:
    out = tmp_path / "x.edgekit"
    export(untrained, "-o", out)
    with pytest.raises(UsageError, match=r"exists already; .* --overwrite"):
        export(untrained, "-o", out)
    export(untrained, "-o", out, "--half", "--overwrite")
    assert open_bundle(out).manifest.precision == "fp16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name one checkpoint to export"),
        (("a.pt", "-m", "b.pt"), "name one checkpoint to export"),
        (("a.pt", "--half", "--int8"), "contradict each other: fp16 and int8"),
        (("a.pt", "--precision", "fp32", "--half"), "contradict each other: fp16 and fp32"),
        (("a.pt", "--int8"), r"int8 needs at least 100 pictures .*\n.*--calib DIR"),
        (("a.pt", "--target", "rasberry-pi-4"), "did you mean raspberry-pi-4"),
        (("a.pt", "--keep-float", "worst:none"), "expects a positive number of layers"),
        (("a.pt", "--format", "sparse", "--half"), "the format sparse has no half precision; expected fp32 or int8"),
        (("a.pt", "--format", "sparse", "--sparse"), "those of --format sparse are sparse programs already"),
        (("a.edgekit",), "is no checkpoint"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(*arguments)


def test_keep_float_is_for_int8(tmp_path: Path, untrained: Path) -> None:
    with pytest.raises(ExportError, match="--keep-float only makes sense for int8, but the precision is fp32"):
        export(untrained, "--keep-float", "worst:1", "-o", tmp_path / "x.edgekit")
    assert leftovers(tmp_path) == []


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt does not exist"):
        export(tmp_path / "nowhere.pt", "-o", tmp_path / "x.edgekit")


def test_nan_weights_are_refused(tmp_path: Path, untrained: Path) -> None:
    checkpoint = load_checkpoint(untrained)
    checkpoint.model.detector.backbone.stem.conv.weight.data[0, 0, 0, 0] = float("nan")
    save_checkpoint(tmp_path / "nan.pt", checkpoint)
    with pytest.raises(CheckpointError, match=r"backbone\.stem\.conv\.weight holds 1 NaN"):
        export(tmp_path / "nan.pt", "-o", tmp_path / "x.edgekit")
    assert leftovers(tmp_path) == ["nan.pt"]


def test_too_few_calibration_pictures(tmp_path: Path, untrained: Path, toy: ModuleType) -> None:
    data = toy.write_dataset(tmp_path / "data", train=5, val=2)
    with pytest.raises(ExportError, match="expects at least 100 pictures, got 5"):
        export(untrained, "--int8", "--data", data, "-o", tmp_path / "x.edgekit")
    with pytest.raises(ExportError, match="expects at least 100 pictures, got 7"):
        export(untrained, "--int8", "--calib", data / "images", "-o", tmp_path / "x.edgekit")
    assert leftovers(tmp_path) == ["data"]


def test_data_of_other_classes(tmp_path: Path, untrained: Path, toy: ModuleType) -> None:
    data = toy.write_dataset(tmp_path / "data", train=0, val=2)
    annotations = data / "annotations" / "instances_val.json"
    annotations.write_text(annotations.read_text().replace('"red"', '"cat"').replace('"blue"', '"dog"'))
    with pytest.raises(DataError, match="cat"):
        export(untrained, "--data", data, "-o", tmp_path / "x.edgekit")


def run_process(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli", "export", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **settings,
    )


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, untrained: Path) -> None:
    """The kernel refuses to write files beyond 1 MB, as a full disk would; the graphs are 14 MB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = tmp_path / "out"
    out.mkdir()
    done = run_process(untrained, "-o", out / "x.edgekit", preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr
    assert "Nothing was left behind" in done.stderr
    assert leftovers(out) == []


@pytest.mark.slow
def test_a_real_full_disk(tmp_path: Path, untrained: Path) -> None:
    """A file system of 4 MB, for each format: engines' own writers are not as clear as Python's."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        for graph_format in GRAPH_FORMATS:
            with pytest.raises(StorageError, match="Nothing was left behind"):
                export(untrained, "--format", graph_format, "-o", disk / "x.edgekit")
            assert leftovers(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_nothing(tmp_path: Path, untrained: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "edgekit.cli", "export", str(untrained), "-o", str(out / "x.edgekit")]
    # A shell starts what runs in its background with Ctrl-C ignored, and these tests may be part of that.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not leftovers(out) and time.monotonic() < deadline:
        time.sleep(0.005)  # until the hidden folder is there
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert leftovers(out) == []


def test_the_file_runs_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "export" / "export.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert done.stdout.startswith("Usage: edgekit export")
    assert "--keep-float worst:N" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_a_model_that_int8_breaks_is_refused_and_repaired(tmp_path: Path, trained: Path, graph_format: str) -> None:
    # AP50 of 40 easy pictures moves by a few points when one box turns over; the broken model loses 40.
    common = ("--format", graph_format, "--int8", "--data", trained / "data", "--calib-images", 100, "--max-drop", 10)
    export(trained / "toy.pt", *common, "-o", tmp_path / "good.edgekit")
    assert verify_bundle(tmp_path / "good.edgekit").passed

    with pytest.raises(GateError) as refusal:
        export(trained / "broken.pt", *common, "-o", tmp_path / "bad.edgekit")
    assert refusal.value.exit_code == 5
    worst = str(refusal.value).split("Layers that lose most")[1].splitlines()[1:3]
    assert {line.split()[0] for line in worst} == {
        "detector.backbone.blocks.0.project.conv",
        "detector.backbone.blocks.1.expand.conv",
    }
    assert "--keep-float worst:2" in str(refusal.value)
    assert leftovers(tmp_path) == ["good.edgekit"]

    report = json.loads(
        export(trained / "broken.pt", *common, "--keep-float", "worst:2", "--json", "-o", tmp_path / "x.edgekit").stdout
    )
    assert report["gate"]["passed"] is True
    assert set(open_bundle(tmp_path / "x.edgekit").manifest.document["kept_float"]) == {
        "detector.backbone.blocks.0.project.conv",
        "detector.backbone.blocks.1.expand.conv",
    }
    assert open_bundle(tmp_path / "x.edgekit").manifest.document["calibration"]["images"] == 100
    assert verify_bundle(tmp_path / "x.edgekit").passed


@pytest.mark.slow
def test_int8_programs_beside_int8_graphs(tmp_path: Path, trained: Path) -> None:
    """Same pictures, same kept layers; what they make of the golden input is recorded apart."""
    names = "detector.backbone.blocks.0.project.conv,detector.backbone.blocks.1.expand.conv"
    common = ("--format", "tflite", "--int8", "--data", trained / "data", "--calib-images", 100, "--max-drop", 10)
    out = tmp_path / "x.edgekit"
    document = json.loads(
        export(trained / "broken.pt", *common, "--keep-float", names, "--sparse", "-o", out, "--json").stdout
    )
    before = [document[gate]["accuracy"]["ap50_before"] for gate in ("gate", "sparse_gate")]
    assert before[0] == before[1]
    assert document["sparse_gate"]["precision"] == "int8"
    manifest = open_bundle(out).manifest
    assert manifest.document["sparse"]["accuracy"]["ap50_after"] == document["sparse_gate"]["accuracy"]["ap50_after"]
    checks = verify_bundle(out).checks
    assert [(check.engine, check.status) for check in checks] == [
        ("native", "passed"), ("tflite", "passed"), ("tflite-sparse", "passed"),
    ]  # fmt: skip
    assert (checks[0].score, checks[0].objectness) == (checks[2].score, checks[2].objectness)  # bit for bit the same
    assert {file for file in manifest.files if "sparse" in file} == {
        "omg.sparse", "detector.sparse", "omg.sparse.tflite", "detector.sparse.tflite", "golden_output_sparse.json",
    }  # fmt: skip


@pytest.mark.slow
def test_without_data_the_broken_model_fails_by_parity(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(
        GateError, match=r"class_logits of what is active|detections: expected|mask: expected|it does not run"
    ):
        export(
            trained / "broken.pt", "--format", "tflite", "--int8", "--calib", trained / "data" / "images",
            "--calib-images", 100, "-o", tmp_path / "x.edgekit",
        )  # fmt: skip
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph_format", "precision"),
    [(name, precision) for name in GRAPH_FORMATS for precision in ("fp32", "fp16") if (name, precision) != NO_HALF],
)
def test_float_formats_keep_the_accuracy(tmp_path: Path, trained: Path, graph_format: str, precision: str) -> None:
    out = tmp_path / "x.edgekit"
    export(
        trained / "toy.pt", "--format", graph_format, "--precision", precision, "--data", trained / "data",
        "--limit", 20, "-o", out,
    )  # fmt: skip
    accuracy = open_bundle(out).manifest.document["accuracy"]
    assert accuracy["images"] == 20
    assert accuracy["ap50_after"] == pytest.approx(accuracy["ap50_before"], abs=0.01)
    assert verify_bundle(out).passed


@pytest.mark.slow
def test_layers_are_kept_by_name(tmp_path: Path, trained: Path) -> None:
    names = "detector.backbone.blocks.0.project.conv,detector.backbone.blocks.1.expand.conv"
    common = ("--format", "tflite", "--int8", "--calib", trained / "data", "--calib-images", 100)
    export(trained / "broken.pt", *common, "--keep-float", names, "-o", tmp_path / "x.edgekit")
    assert ",".join(open_bundle(tmp_path / "x.edgekit").manifest.document["kept_float"]) == names
    with pytest.raises(
        ExportError, match=r"cannot keep 'backbone\.stem\.convv' .* did you mean 'backbone\.stem\.conv'"
    ):
        export(
            trained / "toy.pt", *common, "--keep-float", "detector.backbone.stem.convv", "-o", tmp_path / "y.edgekit"
        )
    assert leftovers(tmp_path) == ["x.edgekit"]
