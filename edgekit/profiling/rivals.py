"""One checkpoint in every engine and precision that can be had here: what a comparison of engines needs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import engine_problem, load_engine
from edgekit.exporters import SUFFIXES, converter
from edgekit.exporters.calibration import MIN_IMAGES, Calibration, calibration_inputs
from edgekit.exporters.conversion import Precision
from edgekit.exporters.equalisation import equalise_file
from edgekit.exporters.pictures import drawn_scene
from edgekit.exporters.torch_onnx import export_onnx
from edgekit.models.checkpoint import Checkpoint
from edgekit.profiling.rival import Rival
from edgekit.spec import DetectorSpec

log = logging.getLogger("edgekit")

FORMATS = {"native": "sparse", "openvino": "openvino", "onnxruntime": "onnx", "tflite": "tflite"}
"""Engine -> the format that it runs fastest."""


def detectors(
    checkpoint: Checkpoint, folder: Path, *, threads: int, precisions: tuple[Precision, ...], calibration: Calibration
) -> Iterator[Rival]:
    """The detector of ``checkpoint`` in every engine that is installed.

    Args:
        checkpoint: float32 weights.
        folder: empty; gets the graphs.
        threads: CPU threads of each engine.
        precisions: fp32, int8 or both.
        calibration: pictures for int8.

    Raises:
        ExportError, EngineError: a graph cannot be converted or loaded.
        MissingDependencyError: a converter is not installed.
    """
    exported = export_onnx(checkpoint.model, folder)["detector"]
    for precision in precisions:
        source = folder / precision
        source.mkdir()
        graph = Path(shutil.copy(exported, source))
        if precision == "int8":
            equalise_file(graph, calibration)
        for engine, graph_format in FORMATS.items():
            if (problem := engine_problem(engine)) is not None:
                log.warning("%s is not measured: %s", engine, str(problem).splitlines()[0])
                continue
            log.info("converting to %s for %s ...", precision, engine)
            path = source / f"{engine}{SUFFIXES[graph_format]}"
            convert = converter(graph_format, checkpoint.spec)
            convert(graph, path, precision, calibration if precision == "int8" else None, frozenset())
            loaded = load_engine(engine, path, threads=threads, options={"precision": precision})
            yield Rival(
                engine=engine,
                precision=precision,
                detail=loaded.name,
                sparse=engine == "native",
                spec=checkpoint.spec,
                loaded=loaded,
            )


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """One of the drawings that int8 is calibrated on where nobody names pictures."""

    spec: DetectorSpec
    shift: int
    boxes_xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def read(self) -> NDArray[np.uint8]:
        return np.roll(drawn_scene(self.spec), self.shift, axis=(0, 1))


@dataclass(frozen=True, kw_only=True)
class _Drawings:
    samples: tuple[_Drawing, ...]


def drawn_calibration(spec: DetectorSpec) -> Calibration:
    """Calibration for graphs that are only timed: how long a multiplication takes does not depend on the numbers."""
    drawings = _Drawings(samples=tuple(_Drawing(spec=spec, shift=3 * index) for index in range(MIN_IMAGES)))
    return calibration_inputs(drawings, spec, MIN_IMAGES)
