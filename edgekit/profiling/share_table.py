"""The times of engines by the share of active cells as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.profiling.share_curve import ShareCurve
from edgekit.profiling.share_plot import text_plot


def share_lines(document: Mapping[str, Any], curve: ShareCurve | None) -> list[str]:
    """A table, with each row's time as a ratio to the best dense engine of its kind of numbers and share.

    Args:
        document: ``machine``, ``gemm_peak_gmacs``, ``gemm_peak_gmacs_int8`` and ``rows``, those of
            :func:`edgekit.profiling.shares.time_by_share`.
        curve: drawn below it, if there is one.
    """
    peaks = {"fp32": document["gemm_peak_gmacs"], "int8": document["gemm_peak_gmacs_int8"]}
    lines = [
        f"{document['machine']['cpu']}; peak {peaks['fp32']:.1f} GMAC/s in fp32, {peaks['int8']:.1f} in int8",
        "",
        f"{'engine':<20}{'':<6}{'active':>7}{'min ms':>9}{'median':>9}{'to dense':>10}{'GMAC/s':>9}{'of peak':>9}",
    ]
    rows = document["rows"]
    for row in rows:
        integer = row["precision"] == "int8"
        same = [o for o in rows if o["active"] == row["active"] and (o["precision"] == "int8") == integer]
        dense = (o["ms_min"] for o in same if o["engine"] != "native" and not o["engine"].endswith("-sparse"))
        best = min(dense, default=None)
        ratio = "" if best is None else f"{row['ms_min'] / best:.2f}"
        rate = row["gmacs_executed"]
        rates = "" if rate is None else f"{rate:>9.1f}{rate / peaks['int8' if integer else 'fp32']:>9.0%}"
        lines.append(
            f"{row['engine']:<20}{row['precision']:<6}{row['active']:>7.2f}{row['ms_min']:>9.2f}"
            f"{row['ms_median']:>9.2f}{ratio:>10}{rates}"
        )
    return lines if curve is None else [*lines, "", *text_plot(curve)]
