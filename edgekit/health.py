"""What works on this machine and how to mend what does not: the checks behind ``edgekit doctor``.

One function a check, all in :data:`CHECKS`. A finding *fails* only if running the built-in detector is impossible;
whatever else does not work is a warning.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edgekit.errors import EdgekitError, EngineError

GIB = 1 << 30
PACKAGES = {"numpy": "numpy", "PIL": "pillow", "cv2": "opencv-python-headless"}
"""Module -> the distribution that brings it."""

REINSTALL = 'pip install --force-reinstall --no-deps "edgekit-vision"'
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at, e.g. ``engine tflite``."""

    status: Status
    """``warn``: something does not work, or is worth knowing. ``fail``: the built-in detector cannot run."""

    text: str
    """What was found."""

    fix: str | None = None
    """What to do about it, where there is something to do."""

    def to_json(self) -> dict[str, str | None]:
        """The fields as a dictionary that ``json`` can write."""
        return asdict(self)


def run_checks(root: Path = Path("/")) -> list[Finding]:
    """Every finding of every check, in the table's order.

    Args:
        root: where ``proc/`` and ``dev/`` are found, so that any machine can be imitated.
    """
    findings = []
    for name, check in CHECKS.items():
        try:
            findings += check(root)
        except Exception as error:  # a doctor who faints helps nobody; the other checks still count
            text = f"could not be checked: {type(error).__name__}: {error}"
            status: Status = "fail" if check is check_default else "warn"
            findings.append(Finding(check=name, status=status, text=text, fix="report it: this is a bug in edgekit"))
    return findings


def check_python(_root: Path) -> list[Finding]:
    """The interpreter: engines publish wheels for 64-bit Pythons only."""
    bits = struct.calcsize("P") * 8
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "the system's own"
    text = f"Python {platform.python_version()}, {bits}-bit, {where}"
    if bits < 64:
        fix = (
            "Engines have no wheels for 32-bit systems: install a 64-bit system (on a Raspberry Pi: the 64-bit image)."
        )
        return [Finding(check="python", status="warn", text=text, fix=fix)]
    return [Finding(check="python", status="ok", text=text)]


def check_packages(_root: Path) -> list[Finding]:
    """The packages that everything needs, OpenCV if it is there, and builds of it that overwrite each other."""
    from edgekit.profiling.machine import package_version

    findings = [_import_check("numpy", "numpy", "fail"), _import_check("pillow", "PIL", "fail")]
    if importlib.util.find_spec("cv2") is None:
        text = "not installed: cameras, videos and the demo need it, pictures do not"
        fix = 'pip install "edgekit-vision[camera]"'
        findings.append(Finding(check="opencv", status="warn", text=text, fix=fix))
    else:
        findings.append(_import_check("opencv", "cv2", "warn"))
    builds = [f"opencv-{kind}" for kind in ("python", "contrib-python", "python-headless", "contrib-python-headless")]
    present = [name for name in builds if package_version(name)]
    if len(present) > 1:
        text = f"several builds of OpenCV lie on top of each other: {', '.join(present)}"
        fix = f"pip uninstall {' '.join(present)} && pip install opencv-python-headless"
        findings.append(Finding(check="opencv builds", status="warn", text=text, fix=fix))
    return findings


def _import_check(check: str, module: str, broken: Status) -> Finding:
    try:
        version = importlib.import_module(module).__version__
    except (ImportError, AttributeError) as error:
        fix = f"pip install --force-reinstall {PACKAGES[module]}"
        return Finding(check=check, status=broken, text=f"cannot be imported: {error}", fix=fix)
    return Finding(check=check, status="ok", text=f"{module} {version}")


def check_default(_root: Path) -> list[Finding]:
    """The basic job: the built-in detector reproduces its recorded output on an engine that is here."""
    from edgekit.models.default import default_bundle

    return [_check_bundle("default detector", default_bundle())]


def _check_bundle(name: str, path: Path) -> Finding:
    from edgekit.bundle import open_bundle
    from edgekit.profiling.probe import in_a_process

    try:
        engines = open_bundle(path).manifest.choices
    except EdgekitError as error:
        return Finding(check=name, status="fail", text=str(error), fix=REINSTALL)
    trials = {engine: in_a_process(verify_on, str(path), engine) for engine in engines}
    tried = {engine: trial for engine, trial in trials.items() if trial.outcome != "absent"}
    if not tried:
        return Finding(check=name, status="fail", text="no engine for it is installed", fix=_install(engines[0]))
    works = [engine for engine, trial in tried.items() if trial.outcome == "ok"]
    first = next(iter(tried))  # the one that `edgekit run` takes
    if first in works:
        return Finding(check=name, status="ok", text=tried[first].text)
    if works:
        text = f"{first} does not run it ({tried[first].text}), {works[0]} does"
        return Finding(check=name, status="warn", text=text, fix=f"edgekit run --engine {works[0]}")
    return Finding(check=name, status="fail", text=f"{first}: {tried[first].text}", fix=_reinstall(first))


def verify_on(path: str, engine: str) -> str:
    """Run the golden input of the bundle at ``path`` on ``engine``; says what came out.

    Raises:
        MissingDependencyError: the engine is not installed.
        EngineError: it fails, or finds something else than was recorded.
    """
    from edgekit.bundle.golden import verify_bundle

    report = verify_bundle(path, engine)
    if not report.passed:
        check = report.checks[0]
        raise EngineError(
            f"differs from the recording: scores by {check.score:.3f}, boxes by {check.box_px:.1f} px, "
            f"{check.mask_cells} mask cells, {check.unmatched} objects without a partner"
        )
    return f"runs on {report.checks[0].detail}: {report.detections} objects in its test picture, as recorded"


def check_engines(_root: Path) -> list[Finding]:
    """Each engine imports, loads a graph of one operator, and computes it."""
    from edgekit.backends import ENGINES
    from edgekit.profiling.probe import in_a_process, run_tiny_graph

    findings = []
    for engine in ENGINES:
        trial = in_a_process(run_tiny_graph, engine)
        if trial.outcome == "ok":
            findings.append(Finding(check=f"engine {engine}", status="ok", text=trial.text))
            continue
        text, fix = trial.text, _reinstall(engine)
        if trial.outcome == "absent":
            text, fix = "not installed", _install(engine)
        findings.append(Finding(check=f"engine {engine}", status="warn", text=text, fix=fix))
    return findings


def check_kernels(_root: Path) -> list[Finding]:
    """The native engine computes with each instruction set that this processor has kernels for; the first is used."""
    from edgekit.profiling.probe import in_a_process, run_every_instruction_set

    trial = in_a_process(run_every_instruction_set)
    if trial.outcome == "ok":
        return [Finding(check="kernels", status="ok", text=f"{trial.text}; EDGEKIT_ISA=NAME takes another")]
    return [Finding(check="kernels", status="warn", text=trial.text, fix=_reinstall("native"))]


def _install(engine: str) -> str:
    from edgekit.backends import host_engine
    from edgekit.backends.boundary import ENGINE_EXTRAS

    host = host_engine(engine)
    return f'pip install "edgekit-vision[{ENGINE_EXTRAS[host]}]"' if host in ENGINE_EXTRAS else REINSTALL


def _reinstall(engine: str) -> str:
    if engine == "native":
        return "unset EDGEKIT_ISA" if os.environ.get("EDGEKIT_ISA") else REINSTALL
    return _install(engine).replace("install", "install --force-reinstall", 1) + ", or another release of the engine"


EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "train": ("train and validate", ("torch", "pycocotools", "matplotlib", "rich", "ai-edge-litert", "scipy")),
    "export": (
        "export",
        (
            *("torch", "onnx", "onnxruntime", "openvino"),
            *("ai-edge-litert", "flatbuffers", "pycocotools", "rich"),
        ),
    ),
    "segment": ("segment by words", ("openai-clip", "ftfy", "regex")),
    "demo": ("run the demo", ("scikit-image",)),
    "mqtt": ("send to an MQTT broker", ("paho-mqtt",)),
    "view": ("serve the browser page", ("aiohttp",)),
    "metrics": ("serve metrics", ("prometheus-client",)),
    "test": (
        "run the tests",
        (
            *("pytest", "hypothesis", "ruff", "mypy", "build"),
            *("scikit-build-core", "nanobind", "cmake", "ninja", "playwright", "trustme"),
        ),
    ),
}
"""Extra -> (what it is for, the distributions that it brings). Engines are checked by running them, and OpenCV by
importing it: boards bring builds that pip does not know of."""


def check_extras(_root: Path) -> list[Finding]:
    """Whether what each job needs is installed; nothing is imported for it."""
    from edgekit.profiling.machine import package_version

    findings = []
    for extra, (purpose, distributions) in EXTRAS.items():
        absent = [name for name in distributions if not package_version(name)]
        if "onnxruntime" in absent and package_version("onnxruntime-gpu"):
            absent.remove("onnxruntime")
        check = f"extra {extra}"
        if absent:
            text = f"cannot {purpose}: {', '.join(absent)} not installed"
            findings.append(
                Finding(check=check, status="warn", text=text, fix=f'pip install "edgekit-vision[{extra}]"')
            )
        else:
            findings.append(Finding(check=check, status="ok", text=f"can {purpose}"))
    return findings


def check_cameras(root: Path) -> list[Finding]:
    """Video devices, and whether this user may read and write them."""
    devices = sorted((root / "dev").glob("video[0-9]*"))
    if not devices:
        text = "no /dev/video*: files, folders, URLs and the demo work all the same"
        return [Finding(check="cameras", status="ok", text=text)]
    shut = [path.name for path in devices if not os.access(path, os.R_OK | os.W_OK)]
    if shut:
        text = f"this user may not use {', '.join(f'/dev/{name}' for name in shut)}"
        fix = "sudo usermod -aG video $USER, then log in again"
        return [Finding(check="cameras", status="warn", text=text, fix=fix)]
    text = f"may use {', '.join(f'/dev/{path.name}' for path in devices)}"
    return [Finding(check="cameras", status="ok", text=text)]


def check_board(root: Path) -> list[Finding]:
    """Which file in ``boards/`` describes this machine."""
    from edgekit.boards import detect_board, load_board

    name = detect_board(root)
    if name is None:
        text = "no file in boards/ describes this machine; `edgekit boards` lists those that there are"
        return [Finding(check="board", status="ok", text=text)]
    export = load_board(name).export
    text = f"{name}: exports for it are {export.format} {export.precision}, best run on {export.engines[0]}"
    return [Finding(check="board", status="ok", text=text)]


def check_cpu(root: Path) -> list[Finding]:
    """Instruction sets, and what they mean for int8."""
    from edgekit.profiling.machine import describe_machine

    machine = describe_machine(root)
    memory = f", {machine.memory_mb} MB" if machine.memory_mb else ""
    text = f"{machine.cpu}, {machine.cores} cores{memory}: {' '.join(machine.flags) or 'no known instruction sets'}"
    flags = set(machine.flags)
    if "neon" in flags:
        gain = "1.1-1.3x over fp16" if "dotprod" in flags else "1.5x and more"
        return [Finding(check="cpu", status="ok", text=f"{text}; int8 gains {gain}")]
    if machine.architecture in ("x86_64", "AMD64") and "avx2" not in flags:
        fix = "export with --precision fp32: without AVX2, int8 is slower than fp32"
        return [Finding(check="cpu", status="warn", text=text, fix=fix)]
    if "avx2" in flags and "vnni" not in flags:
        text += "; no VNNI: int8 gains less here, and its sums can saturate (edgekit's own exports avoid it)"
    return [Finding(check="cpu", status="ok", text=text)]


def check_disk(_root: Path) -> list[Finding]:
    """Free space where results are written."""
    try:
        free = shutil.disk_usage(Path.cwd()).free
    except OSError as error:
        text = f"the current folder cannot be used: {error}"
        return [Finding(check="disk", status="warn", text=text, fix="change to a folder that exists")]
    text = f"{free / GIB:.1f} GB free in the current folder"
    if free < GIB:
        return [Finding(check="disk", status="warn", text=text, fix="free some: a minute of video takes about 20 MB")]
    return [Finding(check="disk", status="ok", text=text)]


def check_terminal(_root: Path) -> list[Finding]:
    """How output will look."""
    if not sys.stderr.isatty():
        return [Finding(check="terminal", status="ok", text="stderr is no terminal: no progress bars, no colours")]
    colours = "off (NO_COLOR)" if os.environ.get("NO_COLOR") else "on"
    columns = shutil.get_terminal_size().columns
    return [Finding(check="terminal", status="ok", text=f"{columns} columns, colours {colours}")]


CHECKS: dict[str, Callable[[Path], list[Finding]]] = {
    "python": check_python,
    "packages": check_packages,
    "default detector": check_default,
    "engines": check_engines,
    "kernels": check_kernels,
    "extras": check_extras,
    "cameras": check_cameras,
    "board": check_board,
    "cpu": check_cpu,
    "disk": check_disk,
    "terminal": check_terminal,
}
"""Every check, in the order of the report."""
