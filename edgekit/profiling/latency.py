"""Latency as a distribution: an average hides the frames that a user notices.

Percentiles are the linear-interpolation ones (numpy's default, Hyndman and Fan type 7): the p-th of n sorted samples
lies at position (n - 1) p / 100. Below 100 samples p99 is therefore mostly the maximum; take more to mean it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The distribution of one duration over repeated runs, in milliseconds of wall time."""

    iterations: int
    """Number of samples; warm-up runs are not among them."""

    min_ms: float
    """The least disturbed run: compare kernels by it."""

    mean_ms: float
    """For throughput only: one stall moves it."""

    p50_ms: float
    """The median: compare engines by it."""

    p95_ms: float
    """One run in twenty is slower."""

    p99_ms: float
    """One run in a hundred is slower: size a frame budget by it."""

    def to_json(self) -> dict[str, float]:
        """The fields as a dictionary that ``json`` can write."""
        return asdict(self)


def summarise(samples_ms: Sequence[float]) -> Latency:
    """The distribution of ``samples_ms``.

    Raises:
        ValueError: there is no sample.
    """
    if not samples_ms:
        raise ValueError("a latency needs at least one sample, got none")
    samples = np.asarray(samples_ms, np.float64)
    p50, p95, p99 = np.percentile(samples, (50, 95, 99))
    return Latency(
        iterations=len(samples),
        min_ms=float(samples.min()),
        mean_ms=float(samples.mean()),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
    )


def measure(call: Callable[[], object], *, warmup: int = 10, iterations: int = 100) -> Latency:
    """Time ``call`` with the monotonic clock.

    Args:
        call: what is timed, called ``warmup + iterations`` times.
        warmup: runs whose time is thrown away; caches, clocks and lazy initialisation settle in them.
        iterations: runs that count.

    Raises:
        ValueError: ``iterations`` < 1 or ``warmup`` < 0.
    """
    if iterations < 1 or warmup < 0:
        raise ValueError(f"expected iterations >= 1 and warmup >= 0, got {iterations} and {warmup}")
    for _ in range(warmup):
        call()
    samples_ms = []
    for _ in range(iterations):
        start = time.perf_counter_ns()
        call()
        samples_ms.append((time.perf_counter_ns() - start) / 1e6)
    return summarise(samples_ms)
