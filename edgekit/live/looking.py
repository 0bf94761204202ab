"""Whatever looks at the frames of a run: a detector behind a mask, or a segmenter that is asked in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekit.bundle import Bundle, SegmentationBundle, open_any_bundle
from edgekit.errors import UsageError
from edgekit.metrics.layers import FrameMacs
from edgekit.pipeline import FrameResult, Pipeline, is_checkpoint, open_pipeline, pipeline_of, resolve_model
from edgekit.segmentation.detector import WordDetector
from edgekit.segmentation.pipeline import segmenter_of
from edgekit.segmentation.prompts import read_prompts

Macs = Callable[[FrameResult], int | None]
"""Executed multiply-adds of a frame; ``None`` where they are not known."""


def open_looking(
    model: str, *, engine: str, threads: int | None, prompts: Path | None
) -> tuple[Pipeline | WordDetector, Macs]:
    """Open a bundle of any task, a detector's checkpoint or ``default``.

    Args:
        model: what to open.
        engine: as of :func:`edgekit.pipeline.open_pipeline` and :func:`edgekit.segmentation.pipeline.open_segmenter`.
        threads: likewise.
        prompts: for a segmenter, a file of what to look for instead of the bundle's own.

    Raises:
        UsageError: nothing there, an engine that cannot run it, or prompts for a detector.
        PromptsError: the file of prompts is malformed.
        MissingDependencyError: no engine that can run it is installed.
        BundleError, CheckpointError, EngineError: it cannot be loaded.
    """
    path = None if model == "default" else resolve_model(model, engine=engine)
    bundle = None if path is None or is_checkpoint(path) else open_any_bundle(path)
    if isinstance(bundle, SegmentationBundle):
        macs = bundle.manifest.macs
        words = None if prompts is None else read_prompts(prompts).check_for(bundle.manifest.spec, str(prompts))
        return WordDetector(segmenter_of(bundle, engine=engine, threads=threads, prompts=words)), lambda _: macs
    if prompts is not None:
        raise UsageError(
            f"--prompts are for a bundle that segments by words, and {model} detects its own classes.\n"
            'Make one with: edgekit export tcl.pt --prompts "person, red car" -o words.edgekit'
        )
    counted = FrameMacs(resolve_model(model, engine=engine))
    if isinstance(bundle, Bundle):
        return pipeline_of(bundle, engine=engine, threads=threads), counted
    return open_pipeline(model, engine=engine, threads=threads), counted
