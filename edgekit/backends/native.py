"""Sparse programs through edgekit's own kernels: the time of a frame follows the number of active cells.

The kernels come with every install and need nothing but numpy. There are several sets of them, one an instruction set;
the best one that this processor can run is taken, or the one that the environment variable ``EDGEKIT_ISA`` names.
"""

from __future__ import annotations

import importlib.metadata
import os
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors
from edgekit.backends.boundary import RUNNING, check_finite, check_inputs, translated
from edgekit.errors import EngineError, SparseProgramError

ISA_VARIABLE = "EDGEKIT_ISA"
"""Environment variable that picks an instruction set."""


@dataclass(frozen=True, kw_only=True)
class InstructionSets:
    """What the kernels can use on this processor."""

    usable: tuple[str, ...]
    """Those that both this build and this processor have, slowest first: ``reference``, then e.g. ``avx2``."""

    chosen: str
    """The one that engines use."""

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary that ``json`` can write."""
        return asdict(self)


def require() -> types.ModuleType:
    """The module of compiled kernels.

    Raises:
        EngineError: it cannot be loaded: it was built for another machine, or not built at all.
    """
    try:
        from edgekit.sparse import _native
    except ImportError as error:
        raise EngineError(
            f"the kernels of the native engine cannot be loaded: {error}\n"
            "They are compiled when edgekit is installed. Repair it with: pip install --force-reinstall edgekit-vision"
        ) from error
    return _native


def instruction_sets() -> InstructionSets:
    """The instruction sets that work here, and the one to use.

    Raises:
        EngineError: the kernels cannot be loaded, or ``EDGEKIT_ISA`` names none of these.
    """
    usable = tuple(require().instruction_sets())
    chosen = os.environ.get(ISA_VARIABLE) or usable[-1]
    if chosen not in usable:
        raise EngineError(
            f"{ISA_VARIABLE}: expected an instruction set of this processor, {', '.join(usable)}, got {chosen!r}.\n"
            f"Leave it out to take the best one: unset {ISA_VARIABLE}"
        )
    return InstructionSets(usable=usable, chosen=chosen)


def load(graph: Path, *, threads: int, options: Mapping[str, Any]) -> Engine:
    """Load a ``.sparse`` file; of ``options`` nothing is used, because the file says it all.

    Raises:
        EngineError: the kernels cannot be loaded, ``EDGEKIT_ISA`` names none, the file cannot be read, or there is too
            little memory.
        SparseProgramError: the file is damaged.
    """
    return NativeEngine(graph, threads=threads)


class NativeEngine:
    """One program in the native engine."""

    takes_pixels = True

    def __init__(self, graph: Path, *, threads: int) -> None:
        """Load ``graph``; raises as :func:`load` does."""
        isa = instruction_sets().chosen
        from edgekit.sparse import _native

        self._graph = graph.name
        try:
            self._engine = _native.Engine(graph.read_bytes(), threads, isa)
        except _native.ProgramError as error:
            raise SparseProgramError(f"native could not load {self._graph}: {error}") from error
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise EngineError(
                f"native could not load {self._graph}: {_reason(error)}\nSee what works with: edgekit doctor"
            ) from error
        height, width, channels = self._engine.image_shape
        self._inputs: dict[str, tuple[int, ...]] = {"image": (1, channels, height, width)}
        if self._engine.mask_shape is not None:
            self._inputs["mask"] = (1, 1, *self._engine.mask_shape)
        self.name = " ".join(["native", *_version(), f"({self._engine.isa})", "CPU"])

    def run(self, inputs: Tensors) -> Tensors:
        """Run the program once; ``image`` may be the letterboxed pixels, uint8, instead of normalised floats."""
        check_inputs("native", self._graph, inputs, self._inputs)
        with translated("native", self._graph, RUNNING, (RuntimeError, ValueError, MemoryError)):
            image = inputs["image"][0].transpose(1, 2, 0)
            image = np.ascontiguousarray(image, np.uint8 if image.dtype == np.uint8 else np.float32)
            mask = np.ascontiguousarray(inputs["mask"][0, 0] != 0, np.uint8) if "mask" in self._inputs else None
            results = self._engine.run(image, mask)
        return check_finite(
            "native", self._graph, {name: self._shaped(name, values) for name, values in results.items()}
        )

    def _shaped(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The program's [A, K] as the protocol's [1, A, K], or [1, 1, G, G] where it is a map of cells."""
        if name != "objectness":
            return values[None]
        height, width, _ = self._engine.image_shape
        return values.reshape(1, 1, round((len(values) * height / width) ** 0.5), -1)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or "out of memory"


def _version() -> list[str]:
    """Of the distribution that the kernels came with, if they came with one."""
    try:
        return [importlib.metadata.version("edgekit-vision")]
    except importlib.metadata.PackageNotFoundError:
        return []
