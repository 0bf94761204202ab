"""Inference engines behind one small protocol, one file an engine, imported only when chosen."""

from __future__ import annotations

import difflib
import importlib
import logging
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edgekit.errors import EngineError, MissingDependencyError, UsageError

Tensors = dict[str, NDArray[Any]]
"""Tensors by name, float32; the image of an engine that ``takes_pixels`` may be uint8."""

log = logging.getLogger("edgekit")


class Engine(Protocol):
    """One loaded graph.

    Whatever the engine's own layout and precision, tensors go in and out by name as float32 in NCHW order:

    ======== ==================== ================================================================
    graph    inputs               outputs
    ======== ==================== ================================================================
    omg      image [1,3,H,W]      objectness [1,1,G,G], logits
    detector image [1,3,H,W],     class_logits [1,A,C], box_offsets [1,A,4]; zero at inactive
             mask [1,1,G,G] (0/1) anchors
    ======== ==================== ================================================================
    """

    name: str
    """The engine with its version and the device or provider in use, e.g. ``openvino 2026.4 CPU``."""

    takes_pixels: bool
    """Whether ``image`` should be the letterboxed picture itself, uint8: the graph normalises it."""

    def run(self, inputs: Tensors) -> Tensors:
        """Run the graph once; raises :class:`EngineError` when it fails or gives NaN or infinity."""
        ...


ENGINES = {
    "native": ("edgekit.backends.native", ".sparse"),
    "tflite": ("edgekit.backends.tflite", ".tflite"),
    "openvino": ("edgekit.backends.openvino", ".xml"),
    "onnxruntime": ("edgekit.backends.onnxruntime", ".onnx"),
}
"""Engine name -> (module, suffix of the graph files made for it). The module has ``load`` and ``require``."""

REGION = "-sparse"
"""``tflite-sparse`` is the engine ``tflite`` on a graph that holds a sparse program (``edgekit.backends.adapters``)."""


def load_engine(name: str, graph: Path, *, threads: int, options: Mapping[str, Any] | None = None) -> Engine:
    """Load ``graph`` into the engine called ``name``.

    Args:
        name: one of :data:`ENGINES`; or with :data:`REGION`, which the graph says itself.
        graph: the graph file, of a suffix that the engine reads.
        threads: CPU threads, at least 1.
        options: the engine's own settings, from a bundle's ``engine_options[name]``, and ``precision`` (``fp32``,
            ``fp16`` or ``int8``); each backend's ``load`` says what it reads and what it refuses.

    Raises:
        UsageError: no such engine.
        MissingDependencyError: the engine is not installed.
        EngineError: the engine refuses the file or an option.
    """
    module = _module(name)
    engine: Engine = module.load(graph, threads=threads, options=options or {})
    return engine


def engine_problem(name: str) -> MissingDependencyError | EngineError | None:
    """Why the engine called ``name`` cannot be used here, or None when it can. Imports it to find out.

    Raises:
        UsageError: no such engine.
    """
    try:
        _module(name).require()
        if name.endswith(REGION):
            from edgekit.backends.adapters import ADAPTERS
            from edgekit.sparse.library import open_library

            open_library(ADAPTERS[host_engine(name)])
    except (MissingDependencyError, EngineError) as problem:
        return problem
    return None


def usable_engines(names: Sequence[str]) -> Iterator[str]:
    """Those of ``names`` that can be used here, in order; each is imported only when it is asked for.

    Raises:
        MissingDependencyError, EngineError: none can; the error is the first one's.
        UsageError: no such engine.
    """
    problems = []
    for name in names:
        problem = engine_problem(name)
        if problem is None:
            yield name
        else:
            log.debug("engine %s is not used: %s", name, problem)
            problems.append(problem)
    if len(problems) == len(names):
        raise problems[0]


def host_engine(name: str) -> str:
    """The engine that must be installed for ``name``: ``tflite`` for ``tflite-sparse``."""
    return name if name == f"native{REGION}" else name.removesuffix(REGION)


def _module(name: str) -> types.ModuleType:
    if host_engine(name) not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no engine is called {name!r}{hint} There are: {', '.join(ENGINES)}")
    return importlib.import_module(ENGINES[host_engine(name)][0])
