"""Percentiles against hand-computed ones, and what is and is not timed."""

from __future__ import annotations

import time

import pytest

from edgekit.profiling.latency import measure, summarise
from edgekit.profiling.stages import stage_latencies


def test_percentiles_of_a_ramp() -> None:
    latency = summarise([float(value) for value in range(101)])  # 0..100: the p-th percentile is p
    assert (latency.min_ms, latency.p50_ms, latency.p95_ms, latency.p99_ms) == (0, 50, 95, 99)
    assert latency.mean_ms == 50
    assert latency.iterations == 101


def test_percentiles_ignore_order_and_interpolate() -> None:
    assert summarise([3.0, 1.0, 2.0, 4.0]).p50_ms == 2.5


def test_one_sample_is_every_percentile() -> None:
    latency = summarise([7.0])
    assert {latency.min_ms, latency.mean_ms, latency.p50_ms, latency.p95_ms, latency.p99_ms} == {7.0}


def test_no_sample() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        summarise([])


def test_warmup_is_called_but_not_timed() -> None:
    calls = []

    def call() -> None:
        calls.append(None)
        if len(calls) <= 2:
            time.sleep(0.02)

    latency = measure(call, warmup=2, iterations=5)
    assert len(calls) == 7
    assert latency.iterations == 5
    assert latency.min_ms < 10  # the slow calls were the first two


def test_time_is_in_milliseconds() -> None:
    assert 5 <= measure(lambda: time.sleep(0.005), warmup=0, iterations=2).min_ms < 500


@pytest.mark.parametrize(("warmup", "iterations"), [(0, 0), (-1, 1)])
def test_bad_counts(warmup: int, iterations: int) -> None:
    with pytest.raises(ValueError, match="expected iterations >= 1 and warmup >= 0"):
        measure(lambda: None, warmup=warmup, iterations=iterations)


def test_stages_keep_their_order() -> None:
    stages = stage_latencies([{"letterbox": 1.0, "mask": 4.0}, {"mask": 2.0, "letterbox": 3.0}])
    assert list(stages) == ["letterbox", "mask"]
    assert stages["letterbox"].mean_ms == 2
    assert stages["mask"].mean_ms == 3


def test_stages_without_frames() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        stage_latencies([])


def test_stages_must_agree() -> None:
    with pytest.raises(ValueError, match=r"must have the stages \['mask'\], got \['decode'\]"):
        stage_latencies([{"mask": 1.0}, {"decode": 1.0}])
