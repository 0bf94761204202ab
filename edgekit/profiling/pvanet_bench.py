"""From the name of a PVANet to the times of its stages in every engine that can be had here, as one document."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.errors import EngineError, UsageError
from edgekit.exporters.conversion import Precision
from edgekit.exporters.dependencies import load
from edgekit.profiling.gemm import Ceilings
from edgekit.profiling.machine import describe_machine
from edgekit.profiling.pvanet_rivals import pvanet_rivals
from edgekit.profiling.pvanet_stages import count_work, time_stages
from edgekit.profiling.pvanet_table import PUBLISHED
from edgekit.profiling.sides import read_sides


def measure_pvanet(
    variant: str,
    *,
    compressed: bool,
    multiplier: float,
    height: int,
    width: int,
    rois: int,
    threads: int,
    engines: Sequence[str],
    precisions: Sequence[Precision],
    shares: Sequence[float],
    iterations: int,
) -> dict[str, Any]:
    """Make a network of random weights, convert it and time it.

    Args:
        variant: a key of :data:`edgekit.models.pvanet.VARIANTS`.
        compressed: whether fc6 and fc7 are in two halves.
        multiplier: channels over those of the published network.
        height: of the input in pixels, a multiple of 32.
        width: likewise.
        rois: how many the head takes.
        threads: CPU threads of each engine.
        engines: of :data:`edgekit.profiling.rivals.FORMATS`.
        precisions: fp32, int8 or both.
        shares: of active cells and RoIs, 0..1.
        iterations: runs that count, over all masks of a share.

    Returns:
        ``machine``, ``model``, ``input``, ``published``, ``rows`` (those of
        :func:`edgekit.profiling.pvanet_stages.time_stages`) and two peaks that the executed GMAC/s of a row are held
        against. ``gemm_peak_gmacs`` is the best product of fp32 matrices in numpy or PyTorch (``of_gemm_peak``; absent
        in int8, which neither multiplies). ``kernel_peak_gmacs`` and ``kernel_peak_gmacs_int8`` are stricter: a native
        kernel on data that is in the cache, which no product of real matrices reaches (``of_kernel_peak``; of the
        layers alone ``of_kernel_peak_layers``).

    Raises:
        EngineError: a graph fails, or none could be made for any engine.
        ExportError: the network cannot be exported.
        MissingDependencyError: torch or a converter is not installed.
        UsageError: there is no such PVANet.
        ValueError: a side is no multiple of 32.
    """
    torch = load("torch", package="torch", purpose="make a PVANet of random weights")
    from edgekit.models.pvanet import PVANet

    if variant == "lite" and not compressed:
        raise UsageError("lite has no full form: leave out --full")
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network = PVANet(variant, compressed=compressed, width=multiplier).eval()
    size = {"height": height, "width": width, "rois": rois, "threads": threads}
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        rivals = list(pvanet_rivals(network, Path(folder), **size, engines=engines, precisions=precisions))
        if not rivals:
            raise EngineError(
                f"PVANet could not be made for any of {', '.join(engines)}; the warnings say why.\n"
                "See what works with: edgekit doctor"
            )
        work, ceilings = count_work(network, height=height, width=width), Ceilings(threads=threads)

        def between() -> None:
            ceilings.measure(product=partial(_product_gmacs, torch))

        rows = time_stages(rivals, network.variant, work, shares, **size, iterations=iterations, between=between)
    kernels = ceilings.kernel_gmacs()
    return {
        "machine": describe_machine().to_json(),
        "model": {"variant": variant, "compressed": compressed, "width": multiplier, "rois": rois},
        "input": {"height": height, "width": width},
        "gemm_peak_gmacs": round(ceilings.library_gmacs(), 2),
        "kernel_peak_gmacs": round(kernels["fp32"], 2),
        "kernel_peak_gmacs_int8": round(kernels["int8"], 2),
        "rows": [{**row, **_of_peaks(row, kernels[row["precision"]], ceilings.library_gmacs())} for row in rows],
        "published": PUBLISHED,
    }


def _of_peaks(row: Mapping[str, Any], kernel: float, gemm: float) -> dict[str, float | None]:
    return {
        "of_gemm_peak": round(row["gmacs_executed"] / gemm, 4) if row["precision"] == "fp32" else None,
        "of_kernel_peak": round(row["gmacs_executed"] / kernel, 4),
        "of_kernel_peak_layers": round(row["gmacs_layers"] / kernel, 4),
    }


def _product_gmacs(torch: Any, size: int = 1024) -> float:
    """The better of two products of square matrices in PyTorch, in 10^9 multiply-accumulates a second."""
    a, b, c = (torch.rand(size, size) for _ in range(3))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        torch.mm(a, b, out=c)
        seconds.append(time.perf_counter() - start)
    return float(size**3 / min(seconds) / 1e9)


def sides_of(text: str) -> tuple[int, int]:
    """Height and width of ``HxW``.

    Raises:
        UsageError: these are not two multiples of 32.
    """
    return read_sides(text, lambda side: side > 0 and not side % 32, wanted=", multiples of 32, as in 640x1056")
