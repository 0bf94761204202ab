"""One model on every engine that can run it: the same frames, one engine after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edgekit.bundle import Bundle, open_bundle
from edgekit.cameras import Frame, open_source
from edgekit.errors import EngineError, MissingDependencyError, SourceError
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource
from edgekit.pipeline import Pipeline, is_checkpoint, open_pipeline, pipeline_of
from edgekit.profiling.blobs import blob_mask
from edgekit.profiling.latency import Latency
from edgekit.profiling.stages import stage_latencies


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """One engine on the frames."""

    engine: str
    """Name as ``--engine`` takes it."""

    detail: str
    """The engine with its version and device; or why it did not run."""

    load_ms: float = 0.0
    """Wall time to load both graphs; importing the engine, and building one for TensorRT, are part of it."""

    stages: dict[str, Latency] | None = None
    """Stage -> latency, ``total`` last; None if the engine did not run."""

    masks: tuple[Mask, ...] = ()
    """The mask of each measured frame."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write, without the masks."""
        if self.stages is None:
            return {"engine": self.engine, "ran": False, "detail": self.detail}
        stages = {name: latency.to_json() for name, latency in self.stages.items()}
        return {"engine": self.engine, "ran": True, "detail": self.detail, "load_ms": self.load_ms, "stages": stages}


@dataclass(frozen=True)
class ShareMask:
    """A mask source for measuring: a given share of the grid is active."""

    share: float
    """0..1 of the cells; rounded to whole cells."""

    def __call__(self, frame: MaskInput) -> Mask:
        """The same mask for every frame."""
        return blob_mask(self.share, grid=frame.spec.mask_grid, seed=0)


def source_frames(text: str, *, limit: int) -> list[Frame]:
    """The first ``limit`` frames of a source (``edgekit.cameras``), kept in memory so that reading costs no time later.

    Raises:
        SourceError: the source is not there, or has no frame.
        UsageError, MissingDependencyError: as :func:`edgekit.cameras.open_source`.
    """
    frames = []
    with open_source(text) as source:
        for frame in source:
            frames.append(frame)
            if len(frames) == limit:
                break
    if not frames:
        raise SourceError(f"{text} has no frame to profile with")
    return frames


def golden_frames(path: Path) -> list[Frame]:
    """The picture that the bundle at ``path`` carries to test itself; for a checkpoint, the built-in bundle's.

    Raises:
        BundleError: the bundle is not there or malformed.
    """
    if is_checkpoint(path):
        from edgekit.models.default import default_bundle

        path = default_bundle()
    bundle = open_bundle(path)
    return source_frames(str(bundle.file(bundle.manifest.golden.input)), limit=1)


def profile_engines(
    path: Path,
    frames: Sequence[Frame],
    *,
    engine: str,
    mask: str | MaskSource,
    threads: int,
    warmup: int,
    iterations: int,
) -> list[EngineProfile]:
    """Run ``frames``, over and over, through each engine.

    Args:
        path: a bundle or a checkpoint.
        frames: at least one.
        engine: an engine, or ``all`` that can run it; those that cannot be used here are listed with the reason.
        mask: a mask source, or its text.
        threads: CPU threads.
        warmup: frames whose time is thrown away.
        iterations: frames that count.

    Raises:
        MissingDependencyError, EngineError: ``engine``, or each of them, cannot be used.
        UsageError: no such engine, mask, or truth for the mask.
    """
    bundle = None if is_checkpoint(path) else open_bundle(path)
    able = bundle.manifest.choices if bundle else ("torch",)
    profiles: list[EngineProfile] = []
    problems: list[MissingDependencyError | EngineError] = []
    for name in able if engine == "all" else (engine,):
        try:
            start = time.perf_counter()
            pipeline = _load(bundle or path, name, mask, threads)
            load_ms = (time.perf_counter() - start) * 1e3
            profiles.append(_profile(name, pipeline, frames, load_ms, warmup=warmup, iterations=iterations))
        except (MissingDependencyError, EngineError) as problem:
            problems.append(problem)
            profiles.append(EngineProfile(engine=name, detail=str(problem)))
    if len(problems) == len(profiles):
        raise problems[0]
    return profiles


def _load(model: Bundle | Path, engine: str, mask: str | MaskSource, threads: int) -> Pipeline:
    if isinstance(model, Bundle):
        return pipeline_of(model, engine=engine, mask=mask, threads=threads)
    return open_pipeline(model, engine=engine, mask=mask, threads=threads)


def _profile(
    engine: str, pipeline: Pipeline, frames: Sequence[Frame], load_ms: float, *, warmup: int, iterations: int
) -> EngineProfile:
    timings_ms, masks = [], []
    for index, frame in enumerate(islice(cycle(frames), warmup + iterations)):
        result = pipeline.process(frame.image, frame.truth_xyxy)
        if index >= warmup:
            timings_ms.append(result.timings_ms)
            masks.append(result.mask)
    return EngineProfile(
        engine=engine,
        detail=pipeline.engine_name,
        load_ms=load_ms,
        stages=stage_latencies(timings_ms),
        masks=tuple(masks),
    )


def engine_lines(document: dict[str, Any]) -> list[str]:
    """The latencies in what ``edgekit profile --json`` prints, for people."""
    lines = [
        f"\nmilliseconds (threads: {document['threads']}, frames: {document['iterations']})",
        f"{'':<14}{'p50':>9}{'p95':>9}{'p99':>9}{'min':>9}{'mean':>9}",
    ]
    for engine in document["engines"]:
        if not engine["ran"]:
            lines.append(f"{engine['engine']}: {engine['detail'].splitlines()[0]}")
            continue
        lines.append(f"{engine['detail']}, loaded in {engine['load_ms']:.0f} ms")
        for stage, latency in engine["stages"].items():
            cells = (latency[key] for key in ("p50_ms", "p95_ms", "p99_ms", "min_ms", "mean_ms"))
            lines.append(f"  {stage:<12}" + "".join(f"{cell:>9.2f}" for cell in cells))
        network = "detector" if "detector" in engine["stages"] else "graph"
        if "macs" in document and (milliseconds := engine["stages"][network]["p50_ms"]):
            rate = document["macs"] / milliseconds / 1e6
            share = 100 * rate / document["gemm_gmacs"]
            lines.append(f"  {rate:.1f} dense GMAC/s in the {network}, {share:.0f} % of the best rate here")
    return lines
