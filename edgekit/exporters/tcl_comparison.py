"""A segmenter's bundle beside the checkpoint it came from, on any footage: ``edgekit verify --against``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.backends import usable_engines
from edgekit.bundle import SegmentationBundle
from edgekit.cameras import open_source
from edgekit.errors import UsageError
from edgekit.exporters.tcl_gate import LIMITS, SegmentationReport, measure_segmentation_parity
from edgekit.segmentation.pipeline import own_prompts, segmenter_of


def compare_segmenters(
    bundle: SegmentationBundle, checkpoint: Path, sources: Sequence[str], *, engine: str, threads: int, frames: int
) -> Iterator[tuple[str, SegmentationReport]]:
    """(source, what was measured) for each engine and source, with the bundle's own prompts.

    Args:
        bundle: the converted model; its precision chooses the limits.
        checkpoint: what it was exported from.
        sources: texts that ``edgekit run --source`` accepts and that end: videos, folders, globs, ``demo``.
        engine: one that the bundle has graphs for; ``auto`` is each that is installed.
        threads: CPU threads.
        frames: at most so many of each source, from its start.

    Raises:
        UsageError: the checkpoint has another text encoder, a source is live, or the engine is not the bundle's.
        CheckpointError: the checkpoint cannot be used.
        MissingDependencyError: PyTorch, or every engine of the bundle, is not installed.
        SourceError: a source cannot be read or is empty.
    """
    from edgekit.exporters.tcl_reference import reference_segmenter
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.prompts import fingerprint

    manifest, model = bundle.manifest, load_tcl(checkpoint).model
    if fingerprint(model) != manifest.spec.text:
        raise UsageError(
            f"{checkpoint} reads text otherwise than the model that the bundle was exported from.\n"
            "Give --against the checkpoint that the bundle was exported from."
        )
    reference = reference_segmenter(model, manifest.spec, own_prompts(bundle), threads=threads)
    for name in usable_engines(manifest.engines) if engine == "auto" else [engine]:
        candidate = segmenter_of(bundle, engine=name, threads=threads)
        for text in sources:
            with open_source(text) as source:
                if source.live:
                    raise UsageError(f"{text} is live, so nobody could repeat the comparison: give a recording of it")
                pictures = (frame.image for frame in itertools.islice(source, frames))
                margin = LIMITS[manifest.precision].margin
                parity = measure_segmentation_parity(reference, candidate, pictures, margin=margin)
            yield (
                text,
                SegmentationReport(
                    precision=manifest.precision,
                    engine=candidate.engine_name,
                    parity=parity,
                    limits=LIMITS[manifest.precision],
                    accuracy=None,
                ),
            )
