"""The checks behind ``edgekit doctor``, on machines imitated by folders and on this one."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit import health
from edgekit.backends import ENGINES
from edgekit.errors import EngineError
from edgekit.health import CHECKS, EXTRAS, Finding, run_checks
from edgekit.profiling.probe import Trial

ROOT = Path(__file__).resolve().parent.parent


def imitate(root: Path, cpuinfo: str, model: str = "") -> Path:
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    if model:
        (root / "proc/device-tree/model").write_bytes(model.encode() + b"\0")
    return root


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_every_check_gives_findings_with_a_way_out() -> None:
    for finding in run_checks():
        assert finding.text
        assert finding.status == "ok" or finding.fix, finding


def test_a_check_that_crashes_is_a_warning_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_root: Path) -> list[Finding]:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(health, "CHECKS", {"disk": crash, "terminal": health.check_terminal})
    first, second = run_checks()
    assert (first.check, first.status, first.text) == ("disk", "warn", "could not be checked: ZeroDivisionError: oh")
    assert second.check == "terminal"


def test_the_basic_job_fails_when_its_check_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edgekit.bundle", None)  # importing it now raises ImportError
    monkeypatch.setattr(health, "CHECKS", {"default detector": health.check_default})
    assert only(run_checks()).status == "fail"


def test_python_and_packages_are_fine_here() -> None:
    assert only(health.check_python(Path("/"))).status == "ok"
    assert {finding.check for finding in health.check_packages(Path("/")) if finding.status == "ok"} == {
        "numpy",
        "pillow",
        "opencv",
    }


def test_two_builds_of_opencv_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgekit.profiling.machine.package_version", lambda name: "1" if "opencv-python" in name else None
    )
    finding = health.check_packages(Path("/"))[-1]
    assert finding.status == "warn"
    assert finding.text.endswith("opencv-python, opencv-python-headless")


def test_a_package_that_does_not_import_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert [finding.status for finding in health.check_packages(Path("/"))] == ["ok", "fail", "ok"]


def test_without_opencv_there_are_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    finding = health.check_packages(Path("/"))[-1]
    assert (finding.check, finding.status) == ("opencv", "warn")
    assert finding.fix == 'pip install "edgekit-vision[camera]"'


def test_a_broken_opencv_is_told_from_an_absent_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    finding = health.check_packages(Path("/"))[-1]
    assert finding.status == "warn"
    assert "libGL.so.1" in finding.text
    assert finding.fix == "pip install --force-reinstall opencv-python-headless"


@pytest.fixture(scope="module")
def bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason=f"the tiny bundle needs {package}")
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edgekit")
    return path


def test_a_bundle_that_runs(bundle: Path) -> None:
    finding = health._check_bundle("x", bundle)
    assert finding.status == "ok"
    assert finding.text.startswith("runs on onnxruntime ")
    assert finding.text.endswith("as recorded")


@pytest.mark.parametrize(
    ("onnxruntime", "openvino", "status", "text"),
    [
        ("absent", "ok", "ok", "fine"),
        ("failed", "ok", "warn", r"onnxruntime does not run it \(why\), openvino does"),
        ("failed", "failed", "fail", "onnxruntime: why"),
        ("failed", "absent", "fail", "onnxruntime: why"),
        ("absent", "absent", "fail", "no engine for it is installed"),
    ],
)
def test_what_becomes_of_the_engines_trials(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, onnxruntime: Any, openvino: Any, status: str, text: str
) -> None:
    outcomes = {"onnxruntime": onnxruntime, "openvino": openvino}

    def trial(_function: object, _path: str, engine: str) -> Trial:
        return Trial(outcome=outcomes[engine], text="fine" if outcomes[engine] == "ok" else "why")

    monkeypatch.setattr("edgekit.profiling.probe.in_a_process", trial)
    finding = health._check_bundle("x", bundle)
    assert finding.status == status
    assert re.fullmatch(text, finding.text)


def test_sparse_programs_are_tried_first_and_every_name_is_known(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    path = tiny.write_bundle(tmp_path / "tiny.edgekit", programs=True)
    assert health._check_bundle("x", path).text.startswith("runs on native ")
    assert "runs on onnxruntime " in health.verify_on(str(path), "onnxruntime-sparse")
    assert health._install("onnxruntime-sparse") == 'pip install "edgekit-vision[onnx]"'

    def trial(_function: object, _path: str, engine: str) -> Trial:
        return Trial(outcome="ok" if engine == "openvino" else "failed", text="why")

    monkeypatch.setattr("edgekit.profiling.probe.in_a_process", trial)
    finding = health._check_bundle("x", path)
    assert (finding.status, finding.fix) == ("warn", "edgekit run --engine openvino")
    assert finding.text == "native does not run it (why), openvino does"


def test_a_bundle_that_gives_something_else(tiny: ModuleType, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"the tiny bundle needs {package}")
    spec = replace(tiny.SPEC, mask_threshold=1.0).to_json()  # no cell reaches it, and the recording has two
    path = tiny.write_bundle(tmp_path / "tiny.edgekit", spec=spec)
    with pytest.raises(EngineError, match=r"differs from the recording: .* 2 mask cells"):
        health.verify_on(str(path), "onnxruntime")


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    finding = health._check_bundle("x", tmp_path / "none.edgekit")
    assert finding.status == "fail"
    assert "there is no bundle" in finding.text


def test_every_engine_is_run() -> None:
    findings = health.check_engines(Path("/"))
    assert [finding.check for finding in findings] == [f"engine {name}" for name in ENGINES]


def test_the_native_engine_and_its_kernels_work_here() -> None:
    pytest.importorskip("edgekit.sparse._native", reason="the native engine is not built")
    finding = only(health.check_kernels(Path("/")))
    assert finding.status == "ok"
    assert re.fullmatch(r"\S+, of reference.*; EDGEKIT_ISA=NAME takes another", finding.text)


@pytest.mark.parametrize(
    ("isa", "fix"), [("mmx", "unset EDGEKIT_ISA"), ("", "pip install --force-reinstall --no-deps")]
)
def test_a_native_engine_that_does_not_work(monkeypatch: pytest.MonkeyPatch, isa: str, fix: str) -> None:
    monkeypatch.setenv("EDGEKIT_ISA", isa)
    monkeypatch.setattr(
        "edgekit.profiling.probe.in_a_process", lambda *_: Trial(outcome="failed", text="it dies with SIGILL")
    )
    for finding in (only(health.check_kernels(Path("/"))), health.check_engines(Path("/"))[0]):
        assert (finding.status, finding.text) == ("warn", "it dies with SIGILL")
        assert finding.fix is not None
        assert finding.fix.startswith(fix)


def test_extras_are_those_of_the_project() -> None:
    """Extras of engines are checked by running the engine, OpenCV by importing it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    engines = {"tflite", "tensorflow", "openvino", "onnx"}
    assert EXTRAS.keys() == extras.keys() - engines - {"camera"}
    for name, (_, distributions) in EXTRAS.items():
        wanted = {line.split(">")[0].split("=")[0].split("<")[0] for line in extras[name]}
        assert set(distributions) == {line for line in wanted if not line.startswith("edgekit-vision")}


def test_absent_extras_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.profiling.machine.package_version", lambda _name: None)
    for finding in health.check_extras(Path("/")):
        assert finding.status == "warn"
        assert finding.fix == f'pip install "edgekit-vision[{finding.check.removeprefix("extra ")}]"'


def test_onnxruntime_for_the_gpu_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgekit.profiling.machine.package_version", lambda name: None if name == "onnxruntime" else "1.0"
    )
    assert all(finding.status == "ok" for finding in health.check_extras(Path("/")))


def test_no_camera_is_no_fault(tmp_path: Path) -> None:
    assert only(health.check_cameras(tmp_path)).status == "ok"


def test_a_camera_that_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").touch()
    assert only(health.check_cameras(tmp_path)).text == "may use /dev/video0"


def test_a_camera_that_may_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may use everything
    finding = only(health.check_cameras(tmp_path))
    assert finding.status == "warn"
    assert finding.fix is not None
    assert "usermod -aG video" in finding.fix


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags : avx2 fma\n", "no VNNI: int8 gains less here"),
        ("Features : fp asimd\n", "int8 gains 1.5x and more"),
        ("Features : fp asimd asimddp\n", "int8 gains 1.1-1.3x over fp16"),
    ],
)
def test_the_cpu_and_int8(tmp_path: Path, cpuinfo: str, expected: str) -> None:
    finding = only(health.check_cpu(imitate(tmp_path, cpuinfo)))
    assert finding.status == "ok"
    assert expected in finding.text


def test_vnni_needs_no_remark(tmp_path: Path) -> None:
    assert "int8" not in only(health.check_cpu(imitate(tmp_path, "flags : avx2 avx_vnni\n"))).text


def test_an_x86_without_avx2_should_stay_with_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    finding = only(health.check_cpu(imitate(tmp_path, "flags : sse4_2\n")))
    assert finding.status == "warn"
    assert finding.fix is not None
    assert "--precision fp32" in finding.fix


def test_the_board(tmp_path: Path) -> None:
    pi = imitate(tmp_path / "pi", "", "Raspberry Pi 4 Model B Rev 1.5")
    assert only(health.check_board(pi)).text.startswith("raspberry-pi-4: exports for it are tflite int8")
    assert only(health.check_board(tmp_path)).text.startswith("no file in boards/ describes this machine")


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(10, 9, 1))
    assert only(health.check_disk(Path("/"))).status == "warn"


def test_the_table_names_every_check_of_the_file() -> None:
    assert set(CHECKS.values()) == {value for name, value in vars(health).items() if name.startswith("check_")}
