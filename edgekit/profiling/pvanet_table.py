"""The stages of a PVANet in every engine as lines of text, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.profiling.pvanet_stages import STAGES

PUBLISHED = {
    "ms": 750.0,
    "cpu": "one core of an Intel Core i7-6700K",
    "network": "PVANet 9.0, compressed, 1056x640, 200 RoIs",
    "gmacs": 16.7,
    "of_peak": 0.25,
    "source": "https://arxiv.org/abs/1608.08021",
}
"""The time is the paper's; the rate is 12.5 GMAC over it, and the peak that of the core's two fused multiply-adds of
eight floats a cycle at 4.2 GHz."""


def stage_lines(document: Mapping[str, Any]) -> list[str]:
    """A table of what :func:`edgekit.profiling.pvanet_bench.measure_pvanet` gave."""
    titles = "".join(f"{name:>11}" for name in STAGES)
    lines = [
        f"{document['machine']['cpu']}; GEMM peak {document['gemm_peak_gmacs']:.1f} GMAC/s; a kernel on data in the "
        f"cache {document['kernel_peak_gmacs']:.1f}, in int8 {document['kernel_peak_gmacs_int8']:.1f}",
        "",
        f"{'least ms':<18}{'active':>7}{titles}{'total':>9}{'median':>9}{'to dense':>10}{'GMAC/s':>8}{'of GEMM':>9}"
        f"{'kernel':>8}{'layers':>8}",
    ]
    for row in document["rows"]:
        stages = "".join(f"{row['stages'][name]['ms_min']:>11.2f}" for name in STAGES)
        ratio = "" if row["to_dense"] is None else f"{row['to_dense']:.2f}"
        gemm = "" if row["of_gemm_peak"] is None else f"{row['of_gemm_peak']:.0%}"
        lines.append(
            f"{row['engine']:<12}{row['precision']:<6}{row['active']:>7.2f}{stages}{row['ms_min']:>9.1f}"
            f"{row['ms_median']:>9.1f}{ratio:>10}{row['gmacs_executed']:>8.1f}{gemm:>9}{row['of_kernel_peak']:>8.0%}"
            f"{row['of_kernel_peak_layers']:>8.0%}"
        )
    rates = f"{PUBLISHED['gmacs']:>8.1f}{'':>9}{PUBLISHED['of_peak']:>8.0%}"
    blank = " " * (11 * len(STAGES))
    lines.append(f"{'as published fp32':<18}{1:>7.2f}{blank}{PUBLISHED['ms']:>9.1f}{'':>19}{rates}{'':>8}")
    lines.append(f"  ({PUBLISHED['network']}; {PUBLISHED['cpu']}; {PUBLISHED['source']})")
    return lines
