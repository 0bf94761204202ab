"""Trials in a process of their own; the functions tried are importable ones of the standard library."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.backends import ENGINES
from edgekit.errors import EngineError
from edgekit.profiling.probe import Trial, _cause_of_death, in_a_process, run_every_instruction_set, run_tiny_graph

MODULES = {
    "native": "edgekit.sparse._native",
    "tflite": "ai_edge_litert",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_installed_engine_runs_its_tiny_graph(engine: str) -> None:
    pytest.importorskip(MODULES[engine], reason=f"{engine} is not installed")
    trial = in_a_process(run_tiny_graph, engine)
    assert trial.outcome == "ok", trial.text
    assert trial.text.startswith(engine)


def test_every_instruction_set_runs_the_tiny_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_ISA", raising=False)
    native = pytest.importorskip("edgekit.sparse._native", reason="the native engine is not built")
    trial = in_a_process(run_every_instruction_set)
    assert trial.outcome == "ok", trial.text
    usable = native.instruction_sets()
    assert trial.text == f"{usable[-1]}, of {', '.join(usable)}"


def test_an_engine_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(name="x 1 CPU", run=lambda _inputs: {"out": np.zeros((1, 1, 2, 2), np.float32)})
    monkeypatch.setattr("edgekit.backends.load_engine", lambda *_arguments, **_options: engine)
    with pytest.raises(EngineError, match=r"x 1 CPU computes relu\(\[-1\.0, 2\.0, 3\.0, -4\.0\]\) as \[0\.0, 0\.0"):
        run_tiny_graph("native")


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
