"""The times of a bundle's own graphs by the share of active cells."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from edgekit.bundle import Bundle
from edgekit.errors import MissingDependencyError, UsageError
from edgekit.metrics.layers import layer_table
from edgekit.metrics.macs import LayerMacs
from edgekit.profiling.rival import detectors_of
from edgekit.profiling.share_curve import ShareCurve, share_curve
from edgekit.profiling.shares import time_by_share

log = logging.getLogger("edgekit")


def measure_bundle(
    bundle: Bundle, shares: Sequence[float], *, threads: int, iterations: int
) -> tuple[list[dict[str, Any]], ShareCurve]:
    """Rows as :func:`edgekit.profiling.shares.time_by_share` gives them, and what they say of native and dense.

    Args:
        bundle: with sparse programs, as its graphs or beside them.
        shares: of active cells; 1 is measured in any case, because if anywhere dense engines win there.
        threads: CPU threads.
        iterations: runs that count, of each engine at each share.

    Raises:
        UsageError: the bundle has no sparse programs.
        EngineError: the native engine does not work here, or a graph fails.
        SparseProgramError: a program is damaged.
    """
    if bundle.manifest.sparse is None and bundle.manifest.graph_format != "sparse":
        raise UsageError(
            f"{bundle.path} has no sparse programs to measure.\n"
            "Make a bundle that has, with: edgekit export CHECKPOINT --sparse"
        )
    rivals = list(detectors_of(bundle, threads=threads))
    wanted = sorted({*shares, 1.0}, reverse=True)
    rows = time_by_share(rivals, _layers(bundle), wanted, threads=threads, iterations=iterations)
    return rows, share_curve(rows, [rival.engine for rival in rivals if not rival.sparse])


def _layers(bundle: Bundle) -> list[LayerMacs] | None:
    try:
        return [layer for layer in layer_table(bundle.path) if layer.graph != "omg"]
    except (MissingDependencyError, UsageError) as error:
        log.warning("MACs are left out: %s", error)
        return None
