"""A bundle beside the model it came from, on any footage: what ``edgekit verify --against`` measures.

The gate compares sixteen pictures when a bundle is made; here the same comparison, with the same tolerances, runs on
as many frames of the user's own camera as wanted, on each engine that is installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.backends import usable_engines
from edgekit.bundle import Bundle
from edgekit.cameras import open_source
from edgekit.errors import UsageError
from edgekit.exporters.parity import Parity, measure_parity
from edgekit.exporters.parity_limits import PARITY_LIMITS, ParityLimits, parity_failures
from edgekit.pipeline import Pipeline, pipeline_of


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One engine on one source."""

    engine: str
    source: str
    parity: Parity
    limits: ParityLimits

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each broken limit; none if the engine agrees with the reference."""
        return tuple(parity_failures(self.parity, self.limits))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return {
            "engine": self.engine,
            "source": self.source,
            "passed": not self.failures,
            "failures": list(self.failures),
            "parity": self.parity.to_json(),
            "limits": self.limits.to_json(),
        }


def compare(
    bundle: Bundle, reference: Pipeline, sources: Sequence[str], *, engine: str, threads: int, frames: int
) -> Iterator[Comparison]:
    """Run ``bundle`` and ``reference`` side by side.

    Args:
        bundle: the converted model; the precision of what an engine runs chooses the tolerances.
        reference: what it should agree with, usually the checkpoint on PyTorch.
        sources: texts that ``edgekit run --source`` accepts and that end: videos, folders, globs, ``demo``.
        engine: one that the bundle has graphs for; ``auto`` is each that is installed.
        threads: CPU threads.
        frames: at most so many of each source, from its start.

    Raises:
        UsageError: the two have different classes or input sizes, a source is live, or the engine is not the bundle's.
        MissingDependencyError: no engine of the bundle is installed.
        SourceError: a source cannot be read or is empty.
        EngineError: a graph fails or gives NaN.
    """
    spec = bundle.manifest.spec
    for what, own, other in (
        ("classes", spec.classes, reference.spec.classes),
        ("input size", (spec.height, spec.width), (reference.spec.height, reference.spec.width)),
    ):
        if own != other:
            raise UsageError(
                f"the bundle and the model it is compared with differ in {what}: {own} and {other}.\n"
                "Give --against the checkpoint that the bundle was exported from."
            )
    names = usable_engines(bundle.manifest.choices) if engine == "auto" else [engine]
    for name in names:
        candidate = pipeline_of(bundle, engine=name, threads=threads)
        limits = PARITY_LIMITS[bundle.manifest.precision_of(name)]
        for text in sources:
            with open_source(text) as source:
                if source.live:
                    raise UsageError(f"{text} is live, so nobody could repeat the comparison: give a recording of it")
                pictures = (frame.image for frame in itertools.islice(source, frames))
                parity = measure_parity(reference, candidate, pictures, box_px=limits.box_px, score=limits.score)
            yield Comparison(engine=candidate.engine_name, source=text, parity=parity, limits=limits)
