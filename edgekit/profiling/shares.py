"""The time of a detector by the share of active cells, for rivals that take turns."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

from edgekit.exporters.pictures import drawn_scene
from edgekit.metrics.macs import LayerMacs, executed_macs, total_macs
from edgekit.profiling.blobs import blob_mask
from edgekit.profiling.interleaved import interleave
from edgekit.profiling.latency import summarise
from edgekit.profiling.rival import Rival

log = logging.getLogger("edgekit")

MASKS = 4
"""Different masks of each share: sites at the rim cost more than those inside."""


def time_by_share(
    rivals: Sequence[Rival],
    layers: Sequence[LayerMacs] | None,
    shares: Sequence[float],
    *,
    threads: int,
    iterations: int,
) -> list[dict[str, Any]]:
    """Rows ``engine``, ``precision``, ``active``, ``threads``, ``ms_min``, ``ms_median``, ``gmacs_executed``,
    ``gmacs_dense_equivalent`` and ``detail``, one a share and rival.

    Args:
        rivals: detectors of one spec, at least one.
        layers: the detector's, for the rates; ``None``, where nobody knows them, leaves the rates ``None``.
        shares: of active cells, 0..1.
        threads: what the rivals were loaded with.
        iterations: runs that count, over all masks of a share.

    Raises:
        EngineError: a graph fails.
    """
    return [row for share in shares for row in _rows(rivals, layers, share, threads=threads, iterations=iterations)]


def _rows(
    rivals: Sequence[Rival], layers: Sequence[LayerMacs] | None, share: float, *, threads: int, iterations: int
) -> list[dict[str, Any]]:
    spec = rivals[0].spec
    picture = drawn_scene(spec)
    times: list[list[tuple[float, float]]] = [[] for _ in rivals]
    masks = [blob_mask(share, grid=spec.mask_grid, seed=seed) for seed in range(MASKS if share < 1 else 1)]
    for mask in masks:
        log.info("%.0f %% active ...", 100 * mask.mean())
        calls = {str(index): functools.partial(rival.run, picture, mask) for index, rival in enumerate(rivals)}
        runs = max(1, iterations // len(masks))
        burst = min(5, runs)
        samples = interleave(calls, rounds=-(-runs // burst), burst=burst)
        for index, part in enumerate(times):
            latency = summarise(samples[str(index)])
            part.append((latency.min_ms, latency.p50_ms))
    dense = executed = None
    if layers is not None:
        dense = float(total_macs(layers, "detector"))
        executed = sum(executed_macs(layers, mask, omg=False) for mask in masks) / len(masks)
    rows = []
    for rival, part in zip(rivals, times, strict=True):
        least, median = (sum(values) / len(values) for values in zip(*part, strict=True))
        rows.append(
            {
                "engine": rival.engine,
                "precision": rival.precision,
                "active": share,
                "threads": threads,
                "ms_min": round(least, 4),
                "ms_median": round(median, 4),
                "gmacs_executed": _rate(executed if rival.sparse else dense, least),
                "gmacs_dense_equivalent": _rate(dense, least),
                "detail": rival.detail,
            }
        )
    return rows


def _rate(macs: float | None, milliseconds: float) -> float | None:
    return None if macs is None else round(macs / milliseconds / 1e6, 2)
