"""OpenVINO IR (or ONNX) on the CPU through OpenVINO.

Arithmetic is held to float32 whatever the weights are stored in: left alone, OpenVINO computes in bfloat16 on CPUs that
have it, with 8 bits where a float16 bundle promises 11, and the same bundle would give other boxes on another machine.
A bundle may ask for less with ``INFERENCE_PRECISION_HINT``. Any of :data:`PROPERTIES` is passed to ``compile_model``,
``precision`` changes nothing, and other options are refused.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends import Engine, Tensors
from edgekit.backends.boundary import LOADING, RUNNING, absent, broken_install, check_finite, check_inputs, translated
from edgekit.errors import EngineError

PROPERTIES = (
    "PERFORMANCE_HINT",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "SCHEDULING_CORE_TYPE",
)
"""What a bundle may set; none of them is a path."""


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

    def __init__(self, module: types.ModuleType, graph: Path, properties: Mapping[str, Any]) -> None:
        """Compile ``graph`` with the OpenVINO ``properties``."""
        self._errors = _openvino_errors()
        self._graph = graph.name
        with translated("openvino", self._graph, LOADING, self._errors):
            compiled = module.Core().compile_model(str(graph), "CPU", dict(properties))
            self._request = compiled.create_infer_request()
            self._shapes = {port.get_any_name(): tuple(port.get_shape()) for port in compiled.inputs}
            self._outputs = [port.get_any_name() for port in compiled.outputs]
        self.name = f"openvino {module.__version__.split('-')[0]} CPU"

    def run(self, inputs: Tensors) -> Tensors:
        """Run the graph once."""
        check_inputs("openvino", self._graph, inputs, self._shapes)
        with translated("openvino", self._graph, RUNNING, self._errors):
            # Copies, because the next run writes into the request's own tensors.
            result = self._request.infer({name: np.ascontiguousarray(v, np.float32) for name, v in inputs.items()})
            outputs = {name: np.array(result[name], np.float32) for name in self._outputs}
        return check_finite("openvino", self._graph, outputs)


def _openvino_errors() -> tuple[type[Exception], ...]:
    from openvino.exceptions import OVError

    return (OVError, RuntimeError, ValueError, TypeError, OSError)
