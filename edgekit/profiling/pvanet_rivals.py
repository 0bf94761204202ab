"""A PVANet of random weights in every engine that can be had here: what the timing of its stages compares."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors, engine_problem, load_engine
from edgekit.errors import EngineError, ExportError, SparseProgramError
from edgekit.exporters import CONVERTERS, SUFFIXES
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Converter, Precision
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_sparse import to_sparse
from edgekit.exporters.pvanet_onnx import export_pvanet
from edgekit.models.pvanet_rois import POOLED, STRIDE
from edgekit.profiling.rivals import FORMATS

if TYPE_CHECKING:
    from edgekit.models.pvanet import PVANet

log = logging.getLogger("edgekit")

GRAPHS = ("trunk", "shared", "head")
"""``shared`` is ``trunk`` and the region proposal network; both take the picture."""

CALIBRATION_INPUTS = 2
"""How long a multiplication takes does not depend on the numbers."""

CHANNELS_LAST = frozenset({"native", "tflite"})
"""Engines that read a picture pixel by pixel; the others read it channel by channel."""


@dataclass(frozen=True, kw_only=True)
class PVANetRival:
    """One PVANet in one engine."""

    engine: str
    """Name as ``--engine`` takes it."""

    precision: str
    """``fp32`` or ``int8``."""

    sparse: bool
    """Whether it skips what the mask leaves out."""

    graphs: Mapping[str, Engine]
    """By name, those of :data:`GRAPHS`."""

    @property
    def detail(self) -> str:
        """The engine with its version and device."""
        return self.graphs["shared"].name

    def laid_out(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """``picture`` [1, 3, H, W] in the memory order that this engine reads without turning it around."""
        if self.engine in CHANNELS_LAST:
            return np.ascontiguousarray(picture.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(picture)


def random_picture(*, height: int, width: int, seed: int) -> NDArray[np.float32]:
    """[1, 3, height, width] any BGR numbers 0..255, minus the mean."""
    from edgekit.models.pvanet import MEAN_BGR

    pixels = np.random.default_rng(seed).integers(0, 256, (1, 3, height, width))
    return np.asarray(pixels - np.array(MEAN_BGR).reshape(1, 3, 1, 1), np.float32)


def export_graphs(network: PVANet, folder: Path, *, height: int, width: int, rois: int) -> dict[str, Path]:
    """:func:`edgekit.exporters.pvanet_onnx.export_pvanet`, and the trunk alone as a third graph.

    Raises:
        ExportError, MissingDependencyError, ValueError: as there.
    """
    onnx = load("onnx", package="onnx", purpose="export a model")
    paths = export_pvanet(network, folder, height=height, width=width, rois=rois)
    paths["trunk"] = folder / "trunk.onnx"
    onnx.utils.extract_model(str(paths["shared"]), str(paths["trunk"]), ["image", "mask"], ["features"])
    return {name: paths[name] for name in GRAPHS}


def pvanet_rivals(
    network: PVANet,
    folder: Path,
    *,
    height: int,
    width: int,
    rois: int,
    threads: int,
    engines: Sequence[str],
    precisions: Sequence[Precision],
) -> Iterator[PVANetRival]:
    """``network`` in each of ``engines`` that is installed; what cannot be converted or loaded is a warning.

    Args:
        network: of any weights.
        folder: empty; gets the graphs.
        height: of the input in pixels, a multiple of 32.
        width: likewise.
        rois: how many the head takes.
        threads: CPU threads of each engine.
        engines: of :data:`edgekit.profiling.rivals.FORMATS`.
        precisions: fp32, int8 or both.

    Raises:
        ExportError: the network cannot be exported at all.
        MissingDependencyError: a converter is not installed.
        ValueError: a side is no multiple of 32.
    """
    sources = export_graphs(network, folder, height=height, width=width, rois=rois)
    calibrations = {
        name: _calibration(name, height=height, width=width, rois=rois, channels=network.head.channels)
        for name in GRAPHS
    }
    for precision in precisions:
        for engine in engines:
            if (problem := engine_problem(engine)) is not None:
                log.warning("%s is not measured: %s", engine, str(problem).splitlines()[0])
                continue
            log.info("converting to %s for %s ...", precision, engine)
            graphs = {}
            try:
                for name, source in sources.items():
                    path = folder / f"{name}-{engine}-{precision}{SUFFIXES[FORMATS[engine]]}"
                    _converter(engine)(source, path, precision, calibrations[name] if precision == "int8" else None)
                    graphs[name] = load_engine(engine, path, threads=threads, options={"precision": precision})
            except (ExportError, EngineError, SparseProgramError) as error:
                log.warning("%s is not measured in %s: %s", engine, precision, str(error).splitlines()[0])
                continue
            yield PVANetRival(engine=engine, precision=precision, sparse=engine == "native", graphs=graphs)


def _converter(engine: str) -> Converter:
    if engine == "native":
        # The picture is normalised already, by a mean for each channel.
        return functools.partial(to_sparse, mean=0.0, std=1.0, float_predictions=True)
    return CONVERTERS[FORMATS[engine]]


def _calibration(graph: str, *, height: int, width: int, rois: int, channels: int) -> Calibration:
    """Random inputs of ``graph`` under open masks."""
    inputs: list[Tensors] = []
    for seed in range(CALIBRATION_INPUTS):
        if graph == "head":
            pooled = np.random.default_rng(seed).random((1, channels * POOLED * POOLED, rois, 1), np.float32)
            inputs.append({"image": pooled, "mask": np.ones((1, 1, rois, 1), np.float32)})
        else:
            picture = random_picture(height=height, width=width, seed=seed)
            inputs.append({"image": picture, "mask": np.ones((1, 1, height // STRIDE, width // STRIDE), np.float32)})
    return Calibration(inputs=inputs, images=len(inputs), sha256="")
