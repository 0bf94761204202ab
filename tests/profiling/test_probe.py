"""Trials in a process of their own; the functions tried are importable ones of the standard library."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import time

import pytest

from edgekit.backends import ENGINES
from edgekit.profiling.probe import Trial, _cause_of_death, in_a_process, run_tiny_graph

MODULES = {"tflite": "ai_edge_litert", "openvino": "openvino", "onnxruntime": "onnxruntime"}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_installed_engine_runs_its_tiny_graph(engine: str) -> None:
    pytest.importorskip(MODULES[engine], reason=f"{engine} is not installed")
    trial = in_a_process(run_tiny_graph, engine)
    assert trial.outcome == "ok", trial.text
    assert trial.text.startswith(engine)


def test_an_answer() -> None:
    assert in_a_process(os.path.basename, "/a/b") == Trial(outcome="ok", text="b")


def test_an_error_of_ours() -> None:
    trial = in_a_process(run_tiny_graph, "ncnn")
    assert trial.outcome == "failed"
    assert "no engine is called 'ncnn'" in trial.text


def test_an_error_of_others() -> None:
    trial = in_a_process(builtins.open, "/nonexistent")  # type: ignore[arg-type]
    assert trial == Trial(
        outcome="failed", text="FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent'"
    )


def test_a_death() -> None:
    trial = in_a_process(signal.raise_signal, signal.SIGILL)  # type: ignore[arg-type]
    assert trial.outcome == "failed"
    assert "it dies of an illegal instruction" in trial.text


def test_an_answer_that_never_comes() -> None:
    start = time.monotonic()
    trial = in_a_process(subprocess.getoutput, "sleep 60", timeout_s=0.5)
    assert trial == Trial(outcome="failed", text="it did not answer within 0.5 s")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("exit_code", "message"),
    [
        (-4, "illegal instruction: this build needs a newer CPU"),
        (-11, "dies with SIGSEGV"),
        (3, "ends with exit code 3"),
    ],
)
def test_causes_of_death(exit_code: int, message: str) -> None:
    assert message in _cause_of_death(exit_code)
