"""TFLite graphs through whichever interpreter is there: ai-edge-litert, tflite-runtime or TensorFlow.

A TFLite graph works on NHWC and, in an int8 file, on quantised integers. This file brings both to the protocol's
float32 NCHW: every 4-D tensor is transposed, and every integer tensor is (de)quantised by the parameters that the file
gives it: real = scale * (integer - zero point).

Tensors are found by name: through the file's signature where it has one, else by the tensors' own names.

A graph with a ``SparseRegion`` (``edgekit.exporters.sparse_region``) gets our adapter as a delegate.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors
from edgekit.backends.adapters import adapter, full_name, holds_region, nchw, pixels
from edgekit.backends.boundary import LOADING, RUNNING, absent, check_finite, check_inputs, translated
from edgekit.errors import EngineError

INTERPRETERS = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite.python.interpreter", "tensorflow"),  # where tf.lite.Interpreter has its load_delegate beside it
)
"""(module that has ``Interpreter``, distribution), best first: litert is the newest, TensorFlow the heaviest."""

ERRORS = (RuntimeError, ValueError, TypeError, SystemError, AttributeError, OSError)
"""What interpreters raise; the bindings let some internal errors out as AttributeError or SystemError."""


def require(interpreters: Sequence[tuple[str, str]] = INTERPRETERS) -> tuple[Any, str]:
    """The first ``Interpreter`` class that can be imported, and its distribution with version.

    Raises:
        MissingDependencyError: none of ``interpreters`` is installed.
        EngineError: some are installed, but each is broken; the message has every reason.
    """
    reasons = []
    for module, distribution in interpreters:
        try:
            interpreter = importlib.import_module(module).Interpreter
            if distribution == "tflite-runtime" and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
                # It imports, and then every interpreter dies with "_ARRAY_API not found".
                reasons.append(f"tflite-runtime is built for numpy 1, and numpy {np.__version__} is installed")
                continue
            return interpreter, f"{distribution} {importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:  # installed under another name, as tensorflow-aarch64 is
            return interpreter, distribution
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
                reasons.append(f"{distribution}: {error}")
        except (ImportError, AttributeError, SystemError) as error:
            reasons.append(f"{distribution}: {error}")
    if not reasons:
        raise absent("tflite", interpreters[0][1])
    raise EngineError(
        f"no TFLite interpreter can be imported. {'; '.join(reasons)}\n"
        'Repair it with: pip install --force-reinstall "edgekit-vision[tflite]"'
    )


def load(graph: Path, *, threads: int, options: Mapping[str, Any]) -> Engine:
    """Load a ``.tflite`` file; of ``options`` nothing is used, because the file says it all.

    Raises:
        MissingDependencyError: no interpreter is installed.
        EngineError: the interpreter refuses the file.
    """
    return TfliteEngine(graph, threads=threads)


@dataclass(frozen=True, kw_only=True)
class _Port:
    """One input or output tensor of the graph."""

    index: int
    shape: tuple[int, ...]
    dtype: Any
    scale: float
    """0 where the tensor is not quantised."""
    zero_point: int

    @property
    def is_pixels(self) -> bool:
        """Whether it takes the numbers 0..255 themselves."""
        return self.dtype == np.uint8 and not self.scale

    @property
    def nchw_shape(self) -> tuple[int, ...]:
        """Shape in the protocol's order."""
        return nchw(self.shape) if len(self.shape) == 4 else self.shape

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Float32 (or pixels) NCHW -> the graph's layout and type."""
        if self.is_pixels:
            return np.ascontiguousarray(pixels(values))
        nhwc = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
        if not self.scale:
            return np.ascontiguousarray(nhwc, self.dtype)
        limits = np.iinfo(self.dtype)
        scaled = np.rint(nhwc * np.float32(1 / self.scale)) + self.zero_point
        return np.asarray(np.clip(scaled, limits.min, limits.max), self.dtype)

    def decode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The graph's layout and type -> float32 NCHW."""
        real = values.astype(np.float32, copy=False)
        if self.scale:
            real = (real - np.float32(self.zero_point)) * np.float32(self.scale)
        return np.ascontiguousarray(real.transpose(0, 3, 1, 2)) if real.ndim == 4 else real


class TfliteEngine:
    """One graph in one interpreter."""

    takes_pixels = False

    def __init__(self, graph: Path, *, threads: int) -> None:
        """Load ``graph``; raises as :func:`load` does."""
        interpreter, self._version = require()
        self._graph = graph.name
        with translated(self._version, self._graph, LOADING, ERRORS):
            delegates = [_load_delegate(interpreter, adapter("tflite", graph))] if holds_region(graph) else None
            self._interpreter = interpreter(
                model_path=str(graph), num_threads=threads, experimental_delegates=delegates
            )
            self._interpreter.allocate_tensors()
        self.name = full_name(f"tflite ({self._version}) CPU", graph)
        with translated(self._version, self._graph, LOADING, ERRORS):
            self._inputs, self._outputs = _ports(self._interpreter)
        if "image" in self._inputs and self._inputs["image"].is_pixels:
            self.takes_pixels = True

    def run(self, inputs: Tensors) -> Tensors:
        """Run the graph once."""
        check_inputs("tflite", self._graph, inputs, {name: port.nchw_shape for name, port in self._inputs.items()})
        with translated(self._version, self._graph, RUNNING, ERRORS):
            for name, port in self._inputs.items():
                self._interpreter.set_tensor(port.index, port.encode(inputs[name]))
            self._interpreter.invoke()
            raw = {name: self._interpreter.get_tensor(port.index) for name, port in self._outputs.items()}
        outputs = {name: port.decode(raw[name]) for name, port in self._outputs.items()}
        return check_finite("tflite", self._graph, outputs)


def _load_delegate(interpreter: Any, library: Path) -> Any:
    """``library`` as a delegate for the ``Interpreter`` class."""
    module = importlib.import_module(interpreter.__module__)
    return module.load_delegate(str(library))


def _ports(interpreter: Any) -> tuple[dict[str, _Port], dict[str, _Port]]:
    """Inputs and outputs by name."""
    if signatures := interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
    else:
        inputs = {_plain(details["name"]): details for details in interpreter.get_input_details()}
        outputs = {_plain(details["name"]): details for details in interpreter.get_output_details()}
    return (
        {name: _port(details) for name, details in inputs.items()},
        {name: _port(details) for name, details in outputs.items()},
    )


def _plain(name: str) -> str:
    """``serving_default_image:0`` -> ``image``: converters of TensorFlow decorate names."""
    return name.removeprefix("serving_default_").partition(":")[0]


def _port(details: Mapping[str, Any]) -> _Port:
    scale, zero_point = details["quantization"]
    quantised = np.issubdtype(details["dtype"], np.integer)
    if quantised and not scale and details["dtype"] != np.uint8:
        raise ValueError(f"tensor {details['name']} is {np.dtype(details['dtype'])} but has no scale")
    return _Port(
        index=int(details["index"]),
        shape=tuple(int(size) for size in details["shape"]),
        dtype=details["dtype"],
        scale=float(scale) if quantised else 0.0,
        zero_point=int(zero_point) if quantised else 0,
    )
