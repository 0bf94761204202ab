"""ONNX graphs through onnxruntime, on the CPU or, on a Jetson, through its TensorRT and CUDA providers.

Options (all from a bundle, so none is trusted): ``providers``, a list of {``name``, ``options``}, tried in order; when
one is absent or does not start, a warning says so and why, and the next is tried. TensorRT builds its engine on the
first start and keeps it under ``~/.cache/edgekit``.

A graph with a ``SparseRegion`` (``edgekit.exporters.sparse_region``) brings our adapter into the session.
"""

from __future__ import annotations

import hashlib
import logging
import types
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors
from edgekit.backends.adapters import adapter, full_name, holds_region, nchw, pixels
from edgekit.backends.boundary import LOADING, RUNNING, absent, broken_install, check_finite, check_inputs, translated
from edgekit.errors import EngineError

log = logging.getLogger("edgekit")

CPU = "CPUExecutionProvider"

ALLOWED_OPTIONS: dict[str, frozenset[str]] = {
    "TensorrtExecutionProvider": frozenset(
        {
            "device_id",
            "trt_fp16_enable",
            "trt_int8_enable",
            "trt_engine_cache_enable",
            "trt_engine_cache_path",
            "trt_timing_cache_enable",
            "trt_timing_cache_path",
            "trt_force_timing_cache",
            "trt_max_workspace_size",
            "trt_min_subgraph_size",
            "trt_max_partition_iterations",
            "trt_builder_optimization_level",
            "trt_build_heuristics_enable",
            "trt_cuda_graph_enable",
            "trt_dla_enable",
            "trt_dla_core",
            "trt_layer_norm_fp32_fallback",
            "trt_context_memory_sharing_enable",
        }
    ),
    "CUDAExecutionProvider": frozenset(
        {
            "device_id",
            "gpu_mem_limit",
            "arena_extend_strategy",
            "cudnn_conv_algo_search",
            "cudnn_conv_use_max_workspace",
            "do_copy_in_default_stream",
            "use_tf32",
        }
    ),
    CPU: frozenset(),
}
"""Provider -> what a bundle may set; the rest loads libraries, writes files or takes memory addresses."""

PATH_OPTIONS = frozenset({"trt_engine_cache_path", "trt_timing_cache_path"})

CACHE_ROOT = PurePosixPath("~/.cache/edgekit")
""":data:`PATH_OPTIONS` must lie below it."""


def require() -> types.ModuleType:
    """The onnxruntime module.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it is installed but broken.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise absent("onnxruntime", "onnxruntime") from error
        raise broken_install("onnxruntime", "onnxruntime", error) from error
    except ImportError as error:
        raise broken_install("onnxruntime", "onnxruntime", error) from error
    module: types.ModuleType = onnxruntime
    return module


def load(graph: Path, *, threads: int, options: Mapping[str, Any]) -> Engine:
    """Load an ``.onnx`` file.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        EngineError: it refuses the file, or an option is not allowed.
    """
    return OnnxRuntimeEngine(require(), graph, threads=threads, providers=_providers(graph, options))


class OnnxRuntimeEngine:
    """One ONNX graph in an onnxruntime session."""

    takes_pixels = False

    def __init__(
        self, module: types.ModuleType, graph: Path, *, threads: int, providers: list[tuple[str, dict[str, str]]]
    ) -> None:
        """``providers``: (name, options) in the order of preference; the CPU is always the last resort."""
        self._errors = _session_errors()
        self._graph = graph.name
        self._session = self._open(module, graph, threads, _present(module, providers))
        self.provider: str = self._session.get_providers()[0]
        device = self.provider.removesuffix("ExecutionProvider")
        self.name = full_name(f"onnxruntime {module.__version__} {device}", graph)
        inputs = {item.name: item for item in self._session.get_inputs()}
        self._shapes = {name: tuple(item.shape) for name, item in inputs.items()}
        if "image" in inputs and inputs["image"].type == "tensor(uint8)":
            self.takes_pixels = True
            self._shapes["image"] = nchw(self._shapes["image"])
        self._outputs = [item.name for item in self._session.get_outputs()]

    def run(self, inputs: Tensors) -> Tensors:
        """Run the graph once."""
        check_inputs("onnxruntime", self._graph, inputs, self._shapes)
        with translated("onnxruntime", self._graph, RUNNING, self._errors):
            feed = {name: self._feed(name, values) for name, values in inputs.items()}
            values = self._session.run(self._outputs, feed)
        return check_finite("onnxruntime", self._graph, dict(zip(self._outputs, values, strict=True)))

    def _feed(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if name == "image" and self.takes_pixels:
            return np.ascontiguousarray(pixels(values))
        return np.ascontiguousarray(values, np.float32)

    def _open(
        self, module: types.ModuleType, graph: Path, threads: int, providers: list[tuple[str, dict[str, str]]]
    ) -> Any:
        """A session on the first provider that starts."""
        settings = module.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # fatal only: whatever matters reaches us as an exception
        if holds_region(graph):
            settings.add_session_config_entry("edgekit.threads", str(threads))  # before the adapter looks at it
            with translated("onnxruntime", self._graph, LOADING, self._errors):
                settings.register_custom_ops_library(str(adapter("onnxruntime", graph)))
        while len(providers) > 1:
            name = providers[0][0]
            try:
                session = self._session_on(module, graph, settings, providers)
            except self._errors as error:
                _warn_fallback(name, providers[1][0], " ".join(str(error).split())[:300])
            else:
                if session.get_providers()[0] == name:
                    return session
                _warn_fallback(name, providers[1][0], "it did not start; are its CUDA libraries on LD_LIBRARY_PATH?")
            providers = providers[1:]
        with translated("onnxruntime", self._graph, LOADING, self._errors):
            return self._session_on(module, graph, settings, providers)

    @staticmethod
    def _session_on(
        module: types.ModuleType, graph: Path, settings: Any, providers: list[tuple[str, dict[str, str]]]
    ) -> Any:
        # enable_fallback=0: onnxruntime's own fallback prints on stdout, among our JSON lines.
        return module.InferenceSession(
            str(graph),
            settings,
            providers=[name for name, _ in providers],
            provider_options=[options for _, options in providers],
            enable_fallback=0,
        )


def _session_errors() -> tuple[type[Exception], ...]:
    """Every exception class of onnxruntime's binding; they share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    own = [kind for kind in vars(binding).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, OSError)


def _present(module: types.ModuleType, providers: list[tuple[str, dict[str, str]]]) -> list[tuple[str, dict[str, str]]]:
    """``providers`` without those that this build lacks; each one left out is a warning."""
    available = module.get_available_providers()
    present = [item for item in providers if item[0] in available]
    for name, _ in providers:
        if name not in available:
            _warn_fallback(name, present[0][0], f"this onnxruntime is built without it, it has {', '.join(available)}")
    for _, options in present:
        for key in PATH_OPTIONS & options.keys():
            _make_folder(options[key])
    return present


def _make_folder(path: str) -> None:
    """A cache that cannot be kept costs time at each start, not the model."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("TensorRT cannot keep its engines in %s: %s", path, error.strerror or error)


def _warn_fallback(wanted: str, instead: str, reason: str) -> None:
    log.warning("onnxruntime cannot use %s, trying %s instead: %s", wanted, instead, reason)


def _providers(graph: Path, options: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The checked (provider, options) of a bundle, the CPU last."""
    entries = options.get("providers", [])
    if not isinstance(entries, list):
        raise EngineError(f"engine_options.onnxruntime: providers must be a list of providers, got {entries!r}")
    providers = [_provider(graph, entry) for entry in entries]
    return providers if any(name == CPU for name, _ in providers) else [*providers, (CPU, {})]


def _provider(graph: Path, entry: Any) -> tuple[str, dict[str, str]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("options", {}), dict):
        raise EngineError(f'engine_options.onnxruntime.providers: expected {{"name", "options"}}, got {entry!r}')
    name, options = entry.get("name"), entry.get("options", {})
    if name not in ALLOWED_OPTIONS:
        raise EngineError(
            f"engine_options.onnxruntime.providers: {name!r} is not allowed; there are: {', '.join(ALLOWED_OPTIONS)}"
        )
    return name, {key: _option(graph, name, key, value) for key, value in options.items()}


def _option(graph: Path, provider: str, key: str, value: Any) -> str:
    """One provider option as the text that onnxruntime takes."""
    where = f"engine_options.onnxruntime: {provider}: {key}"
    if key not in ALLOWED_OPTIONS[provider]:
        allowed = ", ".join(sorted(ALLOWED_OPTIONS[provider])) or "nothing"
        raise EngineError(f"{where} is not allowed; a bundle may set: {allowed}")
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise EngineError(f"{where}: expected text, a number or true/false, got {value!r}")
    return _cache_path(graph, key, value, where) if key in PATH_OPTIONS else value


def _cache_path(graph: Path, key: str, value: str, where: str) -> str:
    """The folder ``value``, made absolute.

    TensorRT names a cached engine after the graph's structure, not its weights, so each graph gets a folder of its own;
    kernel timings (``trt_timing_cache_path``) serve every model.
    """
    path = PurePosixPath(value)
    if ".." in path.parts or not path.is_relative_to(CACHE_ROOT):
        raise EngineError(f"{where}: expected a folder below {CACHE_ROOT}, got {value!r}")
    if "engine_cache" in key:
        path /= hashlib.sha256(graph.read_bytes()).hexdigest()[:16]
    return str(Path(path).expanduser())
