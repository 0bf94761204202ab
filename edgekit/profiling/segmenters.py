"""A segmenter's bundle on every engine that can run it: the same pictures, one engine after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edgekit.bundle import SegmentationBundle, open_any_bundle
from edgekit.cameras import Frame
from edgekit.errors import EngineError, MissingDependencyError
from edgekit.pipeline import is_checkpoint
from edgekit.profiling.engines import EngineProfile, source_frames
from edgekit.profiling.gemm import ceilings_gmacs
from edgekit.profiling.machine import describe_machine
from edgekit.profiling.stages import stage_latencies
from edgekit.segmentation.pipeline import segmenter_of


def segmenter_at(path: Path) -> SegmentationBundle | None:
    """The bundle at ``path`` if it segments; ``None`` for one that detects, and for a checkpoint.

    Raises:
        BundleError: it is malformed.
    """
    bundle = None if is_checkpoint(path) else open_any_bundle(path)
    return bundle if isinstance(bundle, SegmentationBundle) else None


def work_line(bundle: SegmentationBundle) -> str:
    """What one picture costs, for people."""
    manifest = bundle.manifest
    return f"{manifest.parameters / 1e6:.2f} M parameters, {manifest.macs / 1e6:.0f} MMAC a picture"


def measure_segmenter(
    bundle: SegmentationBundle,
    source: str | None,
    *,
    engine: str,
    threads: int,
    warmup: int,
    iterations: int,
    most_frames: int,
) -> dict[str, Any]:
    """What ``edgekit profile --json`` prints; arguments and errors as :func:`profile_segmenter`.

    ``source`` is a text that ``edgekit run --source`` accepts, or ``None`` for the bundle's test picture, and at most
    ``most_frames`` of its pictures are kept in memory.
    """
    manifest = bundle.manifest
    text = source or str(bundle.file(manifest.golden.input))
    frames = source_frames(text, limit=min(iterations, most_frames))
    profiles = profile_segmenter(bundle, frames, engine=engine, threads=threads, warmup=warmup, iterations=iterations)
    return {
        "model": str(bundle.path),
        "source": source or "test picture",
        "frames": len(frames),
        "warmup": warmup,
        "iterations": iterations,
        "threads": threads,
        "parameters": manifest.parameters,
        "macs": manifest.macs,
        "engines": [profile.to_json() for profile in profiles],
        "gemm_gmacs": ceilings_gmacs(threads=threads)["int8" if manifest.precision == "int8" else "fp32"],
        "machine": describe_machine().to_json(),
    }


def profile_segmenter(
    bundle: SegmentationBundle,
    frames: Sequence[Frame],
    *,
    engine: str,
    threads: int,
    warmup: int,
    iterations: int,
) -> list[EngineProfile]:
    """Run ``frames``, over and over, through each engine, with the bundle's own prompts.

    Args:
        bundle: what to measure.
        frames: at least one.
        engine: an engine, or ``all`` that can run it; those that cannot be used here are listed with the reason.
        threads: CPU threads.
        warmup: frames whose time is thrown away.
        iterations: frames that count.

    Raises:
        MissingDependencyError, EngineError: ``engine``, or each of them, cannot be used.
        UsageError: no such engine.
    """
    profiles: list[EngineProfile] = []
    problems: list[MissingDependencyError | EngineError] = []
    for name in bundle.manifest.choices if engine == "all" else (engine,):
        try:
            start = time.perf_counter()
            pipeline = segmenter_of(bundle, engine=name, threads=threads)
            load_ms = (time.perf_counter() - start) * 1e3
            timings = [pipeline.process(frame.image).timings_ms for frame in islice(cycle(frames), warmup + iterations)]
            stages = stage_latencies(timings[warmup:])
            profiles.append(EngineProfile(engine=name, detail=pipeline.engine_name, load_ms=load_ms, stages=stages))
        except (MissingDependencyError, EngineError) as problem:
            problems.append(problem)
            profiles.append(EngineProfile(engine=name, detail=str(problem)))
    if len(problems) == len(profiles):
        raise problems[0]
    return profiles
