"""The measured matrix product."""

from __future__ import annotations

import sys

import pytest

from edgekit.errors import EngineError
from edgekit.profiling.gemm import peak_gmacs


def test_a_cpu_multiplies() -> None:
    assert 0.1 < peak_gmacs(threads=1, size=128, seconds=0.02) < 10_000


@pytest.mark.parametrize(("threads", "size", "seconds"), [(0, 64, 1.0), (1, 0, 1.0), (1, 64, 0.0)])
def test_bad_arguments(threads: int, size: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="expected positive threads, size and seconds"):
        peak_gmacs(threads=threads, size=size, seconds=seconds)


def test_an_interpreter_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(EngineError, match="cannot be measured"):
        peak_gmacs(threads=1, size=64, seconds=0.01)
