"""OpenVINO IR (or ONNX) on the CPU through OpenVINO.

Arithmetic is held to float32 whatever the weights are stored in: left alone, OpenVINO computes in bfloat16 on CPUs that
have it, with 8 bits where a float16 bundle promises 11, and the same bundle would give other boxes on another machine.
A bundle may ask for less with ``INFERENCE_PRECISION_HINT``. Any of :data:`PROPERTIES` is passed to ``compile_model``,
``precision`` changes nothing, and other options are refused.

A graph with a ``SparseRegion`` (``edgekit.exporters.sparse_region``) brings our operator into the engine.
"""

from __future__ import annotations

import ctypes
import logging
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors
from edgekit.backends.adapters import adapter, full_name, holds_region, nchw, pixels
from edgekit.backends.boundary import LOADING, RUNNING, absent, broken_install, check_finite, check_inputs, translated
from edgekit.backends.signal_stack import kept_signal_stack
from edgekit.errors import EngineError

log = logging.getLogger("edgekit")

PROPERTIES = (
    "PERFORMANCE_HINT",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "SCHEDULING_CORE_TYPE",
)
"""What a bundle may set; none of them is a path."""

_BESIDE_REGION = {"ENABLE_CPU_PINNING": False}
"""A region has threads of its own. OpenVINO would hold the first of them to one core, whatever else runs there, and
keep as many more awake beside them: it gets one (``INFERENCE_NUM_THREADS``) for what little is not in the region."""


def require() -> types.ModuleType:
    """The openvino module.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it is installed but broken.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name == "openvino":
            raise absent("openvino", "openvino") from error
        raise broken_install("openvino", "openvino", error) from error
    except ImportError as error:
        raise broken_install("openvino", "openvino", error) from error
    module: types.ModuleType = openvino
    return module


def load(graph: Path, *, threads: int, options: Mapping[str, Any]) -> Engine:
    """Load an ``.xml`` file with the ``.bin`` file beside it, or an ``.onnx`` file.

    Raises:
        MissingDependencyError: openvino is not installed.
        EngineError: it refuses the file, or an option is not allowed.
    """
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    for key, value in options.items():
        if key in PROPERTIES and isinstance(value, str | int | bool):
            properties[key] = value
        elif key != "precision":
            raise EngineError(
                f"engine_options.openvino: {key} = {value!r} is not allowed; a bundle may set: {', '.join(PROPERTIES)}"
            )
    return OpenVinoEngine(require(), graph, properties)


class OpenVinoEngine:
    """One graph compiled for the CPU, with one inference request."""

    takes_pixels = False

    def __init__(self, module: types.ModuleType, graph: Path, properties: Mapping[str, Any]) -> None:
        """Compile ``graph`` with the OpenVINO ``properties``."""
        self._errors = _openvino_errors()
        self._graph = graph.name
        with translated("openvino", self._graph, LOADING, self._errors), kept_signal_stack():
            core = module.Core()
            if holds_region(graph):
                _add_region(module, core, graph, threads=properties["INFERENCE_NUM_THREADS"])
                properties = {**_BESIDE_REGION, **properties, "INFERENCE_NUM_THREADS": 1}
            compiled = core.compile_model(str(graph), "CPU", dict(properties))
            self._request = compiled.create_infer_request()
            self._inputs = {port.get_any_name(): _own_memory(module, self._request, port) for port in compiled.inputs}
            self._outputs = {port.get_any_name(): _own_memory(module, self._request, port) for port in compiled.outputs}
        self._shapes = {name: values.shape for name, values in self._inputs.items()}
        if "image" in self._inputs and self._inputs["image"].dtype == np.uint8:
            self.takes_pixels = True
            self._shapes["image"] = nchw(self._shapes["image"])
        self.name = full_name(f"openvino {module.__version__.split('-')[0]} CPU", graph)

    def run(self, inputs: Tensors) -> Tensors:
        """Run the graph once."""
        check_inputs("openvino", self._graph, inputs, self._shapes)
        with translated("openvino", self._graph, RUNNING, self._errors):
            for name, values in self._inputs.items():
                takes_pixels = name == "image" and self.takes_pixels
                np.copyto(values, pixels(inputs[name]) if takes_pixels else inputs[name], casting="unsafe")
            self._request.infer(share_outputs=True)  # else it makes copies that nobody asks for
            # Copies, because the next run writes into the same memory.
            outputs = {name: np.array(values, np.float32) for name, values in self._outputs.items()}
        return check_finite("openvino", self._graph, outputs)


def _own_memory(module: types.ModuleType, request: Any, port: Any) -> NDArray[Any]:
    """An array that is the memory of ``port`` in ``request``; OpenVINO's own ways to fill it cost some 50 us more."""
    values = np.zeros(tuple(port.get_shape()), port.get_element_type().to_dtype())
    request.set_tensor(port, module.Tensor(values, shared_memory=True))
    return values


def _add_region(module: types.ModuleType, core: Any, graph: Path, *, threads: int) -> None:
    """Teach ``core`` the operator of ``graph``: compiled if that is possible, else in Python."""
    from edgekit.backends.openvino_build import extension

    adapter("openvino", graph, graph.with_suffix(".bin") if graph.suffix == ".xml" else graph)
    if library := extension(module):
        try:
            ctypes.CDLL(str(library)).edgekit_openvino_set_threads(threads)
            core.add_extension(str(library))
            return
        except (OSError, RuntimeError) as error:
            log.info("the OpenVINO extension cannot be loaded: %s", error)
    from edgekit.backends.openvino_region import region_class

    core.add_extension(region_class(threads=threads))


def _openvino_errors() -> tuple[type[Exception], ...]:
    from openvino.exceptions import OVError

    return (OVError, RuntimeError, ValueError, TypeError, OSError)
