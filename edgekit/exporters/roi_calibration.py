"""What the graph ``head`` of a two-stage detector sees: the features of regions that its graph ``shared`` proposes.

A converter calibrates one graph at a time, on inputs for it. Those of the head are made from the pictures when they are
wanted, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.backends import load_engine
from edgekit.backends.two_stage import TwoStageEngine
from edgekit.errors import EngineError
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.spec import DetectorSpec


def head_calibration(shared: Path, pictures: Calibration, spec: DetectorSpec, *, threads: int) -> Calibration:
    """Calibration of the graph ``head``.

    Args:
        shared: the float32 ONNX graph ``shared``.
        pictures: calibration of ``shared``.
        spec: the detector, with ``two_stage``.
        threads: of onnxruntime, which runs ``shared``.

    Raises:
        EngineError: ``shared`` does not run.
        MissingDependencyError: onnxruntime is not installed.
    """
    engine = load_engine("onnxruntime", shared, threads=threads, options={"precision": "fp32"})
    return Calibration(
        inputs=_Regions(pictures=pictures, detector=TwoStageEngine(engine, engine, spec), shared=shared),
        images=pictures.images,
        sha256=pictures.sha256,
    )


@dataclass(frozen=True, kw_only=True)
class _Regions:
    pictures: Calibration
    detector: TwoStageEngine
    shared: Path

    def __iter__(self) -> Iterator[Inputs]:
        found = False
        for inputs in self.pictures.inputs:
            regions = self.detector.regions(inputs)
            if regions is not None:
                found = True
                yield regions
        if not found:
            raise EngineError(f"{self.shared} proposes no region in any calibration picture: it has not been trained")
