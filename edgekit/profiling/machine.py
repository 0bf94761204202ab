"""What a measurement was taken on: enough to repeat or to doubt it, and nothing that names the machine or its owner."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.boards import cpu_flags, detect_board

INFERENCE_FLAGS = {
    "avx2": ("avx2",),
    "fma": ("fma",),
    "avx512": ("avx512f",),
    "vnni": ("avx_vnni", "avx512_vnni"),
    "neon": ("asimd", "neon"),
    "fp16": ("asimdhp", "avx512_fp16"),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
}
"""Instruction set -> the ``/proc/cpuinfo`` flags of which any one means that it is there."""

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "ai-edge-litert",
    "tflite-runtime",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
)
"""Distributions whose version can change a measured time."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine and the software of one measurement."""

    board: str | None
    """Name in ``boards/``, or None when no file describes this machine."""

    cpu: str
    """Model as the kernel names it."""

    architecture: str
    """``x86_64``, ``aarch64``, ..."""

    cores: int
    """Processors that this process may use; hyper-threads count."""

    flags: tuple[str, ...]
    """Those of :data:`INFERENCE_FLAGS` that the CPU has."""

    memory_mb: int | None
    """Main memory in MiB; None where ``/proc/meminfo`` does not say."""

    system: str
    """Kernel name and release."""

    python: str
    packages: dict[str, str]
    """Installed ones of :data:`PACKAGES` -> version."""

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary that ``json`` can write."""
        return asdict(self)


def describe_machine(root: Path = Path("/")) -> Machine:
    """Describe this machine.

    Args:
        root: where ``proc/`` is found, so that any machine can be imitated.
    """
    return Machine(
        board=detect_board(root),
        cpu=cpu_model(root),
        architecture=platform.machine(),
        cores=usable_cores(),
        flags=inference_flags(root),
        memory_mb=_memory_mb(root),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := package_version(name)) is not None},
    )


def usable_cores() -> int:
    """Processors that this process may use: containers and ``taskset`` allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def inference_flags(root: Path = Path("/")) -> tuple[str, ...]:
    """Instruction sets that matter to inference and that the CPU has, e.g. ``("avx2", "fma")``."""
    present = cpu_flags(root)
    return tuple(name for name, any_of in INFERENCE_FLAGS.items() if present.intersection(any_of))


def package_version(distribution: str) -> str | None:
    """Installed version of a distribution, without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model(root: Path = Path("/")) -> str:
    """``model name`` of /proc/cpuinfo; an Arm kernel has none, so the device tree's board name stands in."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return _read(root / "proc/device-tree/model").strip("\0 \n") or platform.processor() or "unknown"


def _memory_mb(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) // 1024  # /proc/meminfo says kB and means KiB
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def available_threads() -> int:
    """The CPUs that this process may use, or fewer where OMP_NUM_THREADS says so."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    usable = usable_cores()
    return max(1, min(usable, int(limit))) if limit.isdecimal() else usable
