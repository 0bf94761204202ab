"""Several loaded graphs as the one detector that they are stages of."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.backends import Engine
from edgekit.backends.detr import DetrEngine
from edgekit.backends.two_stage import TwoStageEngine
from edgekit.spec import DetectorSpec


def join(graphs: Mapping[str, Engine], spec: DetectorSpec) -> Engine:
    """The detector of ``spec`` from its loaded graphs, by their names in ``spec.graphs``."""
    match spec.kind:
        case "one_stage":
            return graphs["detector"]
        case "two_stage":
            return TwoStageEngine(graphs["shared"], graphs["head"], spec)
        case "detr":
            return DetrEngine(graphs, spec)
