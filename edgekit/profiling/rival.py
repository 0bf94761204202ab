"""A detector in one engine, to be timed beside others; those of a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, engine_problem
from edgekit.backends.of_bundle import load_graphs
from edgekit.bundle import Bundle
from edgekit.bundle.sparse_part import NATIVE
from edgekit.data.letterbox import normalise
from edgekit.masks.pyramid import Mask
from edgekit.spec import DetectorSpec

log = logging.getLogger("edgekit")


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The detector graph in one engine."""

    engine: str
    """Name as ``--engine`` takes it."""

    precision: str
    """``fp32``, ``fp16`` or ``int8``."""

    detail: str
    """The engine with its version and device."""

    sparse: bool
    """Whether it skips what the mask leaves out."""

    spec: DetectorSpec
    loaded: Engine

    def run(self, picture: NDArray[np.uint8], mask: Mask) -> None:
        """From a letterboxed picture [H, W, 3] to raw heads; what the engine does not normalise itself is included."""
        image: NDArray[np.uint8] | NDArray[np.float32] = picture
        if not self.loaded.takes_pixels:
            image = normalise(picture, self.spec)
        inputs = {"image": image.transpose(2, 0, 1)[None], "mask": mask[None, None].astype(np.float32)}
        if self.spec.two_stage is not None:
            inputs["scale"] = np.array(1, np.float32)
        self.loaded.run(inputs)


def detectors_of(bundle: Bundle, *, threads: int) -> Iterator[Rival]:
    """The detectors of ``bundle`` in every engine that works here, the native one first.

    Args:
        bundle: with sparse programs, as its graphs or beside them.
        threads: CPU threads of each engine.

    Raises:
        EngineError: the native engine does not work here, or an engine refuses its file.
        SparseProgramError: a program is damaged.
    """
    manifest = bundle.manifest
    for engine in manifest.choices:
        if (problem := engine_problem(engine)) is not None:
            if engine == NATIVE:
                raise problem
            log.warning("%s is not measured: %s", engine, str(problem).splitlines()[0])
            continue
        _, loaded = load_graphs(bundle, engine=engine, threads=threads)
        yield Rival(
            engine=engine,
            precision=manifest.precision_of(engine),
            detail=loaded.name,
            sparse=engine == NATIVE or engine not in manifest.engines,
            spec=manifest.spec,
            loaded=loaded,
        )
