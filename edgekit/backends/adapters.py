"""Graphs that hold a sparse program: one operator ``SparseRegion``, which an adapter of ours brings into the engine.

``edgekit.exporters.sparse_region`` writes such graphs. The program inside says which version of its format it has; the
adapter must read it.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EngineError
from edgekit.sparse.format import MAGIC, VERSION
from edgekit.sparse.library import ENGINE, REPAIR, library_path, newest_program, open_library

OPERATOR = "SparseRegion"
"""Type of the operator."""

DOMAIN = "edgekit"
"""Domain or operator set that the operator belongs to, where an engine has such."""

ADAPTERS = {"onnxruntime": "edgekit_onnxruntime.so", "tflite": "edgekit_tflite.so", "openvino": ENGINE}
"""Engine -> the library that brings the operator into it; OpenVINO's operator is written in Python."""


def holds_region(graph: Path) -> bool:
    """Whether ``graph``, in any engine's format, has a :data:`OPERATOR`. False if it cannot be read."""
    return _find(graph, OPERATOR.encode()) >= 0


def adapter(engine: str, graph: Path, content: Path | None = None) -> Path:
    """The library that ``engine`` needs to run ``graph``, checked: it is there, and it reads the programs inside.

    Args:
        engine: one of :data:`ADAPTERS`.
        graph: a graph that :func:`holds_region`.
        content: the file with its constants, where that is another.

    Raises:
        EngineError: the library is absent, cannot be loaded, or is too old for this edgekit or for the programs.
    """
    try:
        name = ADAPTERS[engine]
        newest = newest_program(open_library(name))
    except EngineError as error:
        raise _refusal(engine, graph, str(error)) from error
    version = _newest_inside(content or graph)
    if version > newest:
        reason = f"its sparse program has version {version} of the format, and {name} reads up to version {newest}.\n"
        hint = "Update edgekit with: pip install --upgrade edgekit-vision" if newest >= VERSION else REPAIR
        raise _refusal(engine, graph, reason + hint)
    path = library_path(name)
    assert path is not None  # open_library
    return path


def full_name(engine: str, graph: Path) -> str:
    """``engine``, a name with version and device, for :attr:`Engine.name`: it says so where ``graph`` has a region."""
    return f"{engine}, sparse" if holds_region(graph) else engine


def nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The protocol's order of the sizes [N, H, W, C]."""
    return shape[0], shape[3], shape[1], shape[2]


def pixels(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The protocol's ``image`` as a graph that takes pixels wants it: [1, 3, H, W] -> [1, H, W, 3].

    Raises:
        EngineError: it holds no pixels.
    """
    if image.dtype != np.uint8:
        raise EngineError(
            f"this graph takes the picture itself, pixels as uint8, got {image.dtype}.\n"
            "Do not normalise it where the engine's takes_pixels is true."
        )
    return image.transpose(0, 2, 3, 1)


def _refusal(engine: str, graph: Path, reason: str) -> EngineError:
    return EngineError(
        f"{engine} could not load {graph.name}: {reason}\n"
        f"The dense graph of the same bundle, {_dense_name(graph)}, runs without it: --engine {engine}"
    )


def _dense_name(graph: Path) -> str:
    """``detector.sparse.onnx`` -> ``detector.onnx``."""
    return graph.name.replace(".sparse.", ".")


def _newest_inside(graph: Path) -> int:
    """The newest version of the sparse programs in a file; 0 if there is none."""
    newest, at = 0, -1
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while (at := content.find(MAGIC, at + 1)) >= 0:
            version = content[at + len(MAGIC) : at + len(MAGIC) + 4]
            if len(version) == 4:
                newest = max(newest, struct.unpack("<I", version)[0])
    return newest


def _find(path: Path, text: bytes) -> int:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text)
    except (OSError, ValueError):  # absent, or empty: for the engine to complain about
        return -1
