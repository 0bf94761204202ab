"""The OpenVINO extension, compiled on the machine that runs it and kept under ``~/.cache/edgekit``.

A compiled extension works with exactly one release of OpenVINO, so no package of ours can bring it; every openvino
package brings its headers, and the compiler takes some seconds, once. It spares each run some 100 us of Python.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import types
from pathlib import Path

from edgekit.sparse.library import ENGINE, library_path

log = logging.getLogger("edgekit")

SOURCE, HEADER = "adapters/openvino.cpp", "c_api.h"
"""Beside the libraries of ``edgekit.sparse.library``."""

COMPILERS = ("c++", "g++", "clang++")
"""What is tried; the environment variable ``CXX`` comes first."""

SECONDS = 300
"""More than the slowest board needs."""


def extension(openvino: types.ModuleType) -> Path | None:
    """The extension for this ``openvino``, compiled now if it never was; None if that cannot be done."""
    engine, source, header = (library_path(name) for name in (ENGINE, SOURCE, HEADER))
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))), None)
    if engine is None or source is None or header is None or compiler is None:
        log.info("the OpenVINO extension cannot be compiled: there is no %s", "C++ compiler" if engine else ENGINE)
        return None
    package = Path(openvino.__file__ or "").parent
    key = hashlib.sha256(f"{openvino.__version__} {package} {engine} {compiler}".encode())
    for file in (source, header):
        key.update(file.read_bytes())
    try:
        built = Path("~/.cache/edgekit/openvino").expanduser() / key.hexdigest()[:16] / "edgekit_openvino.so"
        if not built.exists():
            _compile(compiler, source, built, package=package, engine=engine)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.info("the OpenVINO extension cannot be compiled: %s", error)
        return None
    return built


def _compile(compiler: str, source: Path, built: Path, *, package: Path, engine: Path) -> None:
    """Compile ``source`` to ``built``, which is there completely or not at all."""
    library = min((package / "libs").glob("libopenvino.so*"), default=None)
    if library is None:
        raise RuntimeError(f"{package} has no libopenvino.so")
    log.info("compiling the OpenVINO extension, once: %s", built)
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        made = Path(folder) / built.name
        command = [
            *(compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-w", "-o", str(made)),
            *(f"-I{package / 'include'}", str(source), str(library), str(engine), f"-Wl,-rpath,{engine.parent}"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"{compiler} ended with {done.returncode}: {done.stderr.strip()[:500]}")
        made.replace(built)
