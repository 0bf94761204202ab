"""The times of a checkpoint's detector, converted for every engine, by the share of active cells."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.exporters.build import reference_pipeline
from edgekit.exporters.calibration import MIN_IMAGES, Calibration
from edgekit.exporters.conversion import Precision
from edgekit.exporters.evidence import open_calibration
from edgekit.exporters.pictures import mask_finder
from edgekit.metrics.macs import count_macs
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.profiling.rivals import detectors, drawn_calibration
from edgekit.profiling.shares import time_by_share


def measure_checkpoint(
    path: Path,
    shares: Sequence[float],
    *,
    precisions: tuple[Precision, ...],
    pictures: Path | None,
    threads: int,
    iterations: int,
) -> list[dict[str, Any]]:
    """Rows as :func:`edgekit.profiling.shares.time_by_share` gives them.

    Args:
        path: a checkpoint.
        shares: of active cells.
        precisions: fp32, int8 or both.
        pictures: a folder to calibrate int8 on; ``None`` is drawings.
        threads: CPU threads.
        iterations: runs that count, of each engine at each share.

    Raises:
        CheckpointError: the file is none.
        ExportError, DataError: a graph cannot be converted, or there are too few pictures or a broken one.
        EngineError: a graph cannot be loaded, or fails.
        MissingDependencyError: PyTorch or a converter is not installed.
    """
    checkpoint = load_checkpoint(path)
    layers = [layer for layer in count_macs(checkpoint.model) if layer.graph != "omg"]
    calibration = _calibration(pictures, checkpoint)
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        rivals = detectors(checkpoint, Path(folder), threads=threads, precisions=precisions, calibration=calibration)
        return time_by_share(list(rivals), layers, shares, threads=threads, iterations=iterations)


def _calibration(pictures: Path | None, checkpoint: Checkpoint) -> Calibration:
    if pictures is None:
        return drawn_calibration(checkpoint.spec)
    reference = reference_pipeline(checkpoint, threads=1)
    calibration = open_calibration(pictures, None, checkpoint.spec, MIN_IMAGES, mask_finder(reference))
    assert calibration is not None  # with a folder it is there, or an error
    return calibration
