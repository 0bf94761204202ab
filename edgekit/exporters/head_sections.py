"""What an export writes into ``bundle.json`` whatever the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgekit.exporters.calibration import Calibration
from edgekit.exporters.plan import ExportPlan
from edgekit.exporters.tools import tool_versions


class Report(Protocol):
    """What a gate measured."""

    @property
    def precision(self) -> str:
        """Of the converted model."""
        ...

    @property
    def engine(self) -> str:
        """The engine that ran the converted model, with its version."""
        ...

    def lines(self) -> list[str]:
        """For people."""
        ...

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write, with ``parity`` and ``accuracy``."""
        ...


def head_sections(
    plan: ExportPlan,
    *,
    name: str,
    calibration: Calibration | None,
    kept: Sequence[str],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """The sections that follow from the plan and from where the model comes from.

    Args:
        plan: what is made.
        name: of the destination, with or without its suffix.
        calibration: pictures that were at hand; they count for int8 only.
        kept: layers that int8 left in float32.
        provenance: what the checkpoint says.
    """
    shown = calibration if plan.precision == "int8" else None
    return {
        "name": name.removesuffix(".edgekit"),
        "target": plan.target,
        "graph_format": plan.graph_format,
        "precision": plan.precision,
        "engines": list(plan.engines),
        "threads": plan.threads,
        "engine_options": {engine: dict(settings) for engine, settings in plan.engine_options.items()},
        "calibration": None if shown is None else {"images": shown.images, "sha256": shown.sha256},
        "kept_float": list(kept),
        "provenance": {
            "training_data": "unknown",
            "starting_weights": "unknown",
            **{key: str(value) for key, value in provenance.items()},
        },
        "tool_versions": tool_versions(),
    }


def measured(report: Report) -> dict[str, Any]:
    """The gate's verdict as a manifest holds it."""
    document = report.to_json()
    return {"accuracy": document["accuracy"], "parity": {"engine": report.engine, **document["parity"]}}
