"""What an export made, for people and for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle import Head
from edgekit.exporters.head_sections import Report
from edgekit.exporters.sensitivity import LayerError


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A bundle that passed its gate."""

    path: Path
    manifest: Head
    report: Report
    kept_float: tuple[str, ...]
    """Layers left in float32."""

    sparse_report: Report | None = None
    """Of the sparse programs beside the graphs, if there are any."""

    ranking: tuple[LayerError, ...] = ()
    """Layers by int8 error, worst first, where they had to be ranked."""

    @property
    def size_bytes(self) -> int:
        """All files but the manifest."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def lines(self) -> list[str]:
        """What was made, how near it is, and what to do next."""
        manifest, sparse, kept = self.manifest, self.sparse_report, self.kept_float
        lines = [f"{self.path}: {manifest.precision} {manifest.graph_format}, {self.size_bytes / 1e6:.1f} MB"]
        lines += self.report.lines()
        if sparse is not None:
            lines += [f"beside it, {sparse.precision} sparse programs", *sparse.lines()]
        lines += [f"in float  {', '.join(kept)}"] if kept else []
        return [*lines, f"Check it on the board with: edgekit verify {self.path}"]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        manifest = self.manifest
        return {
            "bundle": str(self.path),
            "target": manifest.target,
            "format": manifest.graph_format,
            "precision": manifest.precision,
            "engines": list(manifest.engines),
            "threads": manifest.threads,
            "bytes": self.size_bytes,
            "kept_float": list(self.kept_float),
            "ranking": [{"layer": error.layer, "sqnr_db": round(error.sqnr_db, 2)} for error in self.ranking],
            "gate": self.report.to_json(),
            "sparse_gate": None if self.sparse_report is None else self.sparse_report.to_json(),
        }
