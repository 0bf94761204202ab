"""Try an engine where its death does no harm.

A wheel built for a newer CPU does not raise: it kills the process with an illegal instruction (onnxruntime#23957 on a
Raspberry Pi 4). So every trial runs in a process of its own, and how that process ended is part of the answer.
"""

from __future__ import annotations

import base64
import multiprocessing
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from edgekit.errors import EdgekitError, EngineError, MissingDependencyError

TINY_ONNX = base64.b64decode(
    "CAg6VwoSCgVpbWFnZRIDb3V0IgRSZWx1EgFnWh8KBWltYWdlEhYKFAgBEhAKAggBCgIIAQoCCAIKAggCYh0KA291dBIWChQIARIQCgIIAQoCCAEK"
    "AggCCgIIAkIECgAQDQ=="
)
"""An ONNX graph, opset 13: ``out = relu(image)``, [1, 1, 2, 2]."""

TINY_TFLITE = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA7AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "PAAAAAQAAADY////CAAAAAwAAAADAAAAb3V0AAQAAAABAAAAAgAAAAIAAAABAAAADAAMAAgAAAAAAAQADAAAAAgAAAAQAAAABQAAAGltYWdlAAAA"
    "BAAAAAEAAAACAAAAAgAAAAEAAAABAAAAEAAAAAwADAALAAAAAAAEAAwAAAATAAAAAAAAEw=="
)
"""The same in TFLite, NHWC."""

TINY_GRAPHS = {"tflite": ("tiny.tflite", TINY_TFLITE), "openvino": ("tiny.onnx", TINY_ONNX)}
"""Engine -> (file name, content) of a graph that it reads; any other engine gets the ONNX one."""

TIMEOUT_S = 120.0
"""A Raspberry Pi with a cold SD card needs tens of seconds to import an engine."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How something that was tried in another process went."""

    outcome: Literal["ok", "absent", "failed"]
    """``absent``: it needs a package that is not installed."""

    text: str
    """What it returned, or why it failed."""


def run_tiny_graph(engine: str) -> str:
    """Load a graph of one operator into ``engine``, run it and check the result; returns the engine's full name.

    Raises:
        MissingDependencyError: the engine is not installed.
        EngineError: it does not load or run the graph, or computes something else.
    """
    import numpy as np

    from edgekit.backends import load_engine

    name, content = TINY_GRAPHS.get(engine, ("tiny.onnx", TINY_ONNX))
    image = np.array([[[[-1, 2], [3, -4]]]], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        loaded = load_engine(engine, path, threads=1)
        (output,) = loaded.run({"image": image}).values()
    if not np.array_equal(output, np.maximum(image, 0)):
        raise EngineError(f"{engine} computes relu({image.ravel().tolist()}) as {output.ravel().tolist()}")
    return loaded.name


def in_a_process(function: Callable[..., str], *arguments: str, timeout_s: float = TIMEOUT_S) -> Trial:
    """``function(*arguments)``, computed in a fresh process.

    Args:
        function: importable by its name, so that a fresh process finds it.
        arguments: what to call it with.
        timeout_s: how long to wait.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()  # ours: now the other process's death ends the pipe
    try:
        if not receiver.poll(timeout_s):
            return Trial(outcome="failed", text=f"it did not answer within {timeout_s:g} s")
        answer: Trial = receiver.recv()
        return answer
    except EOFError:
        process.join()
        return Trial(outcome="failed", text=_cause_of_death(process.exitcode or 0))
    finally:
        receiver.close()
        process.kill()
        process.join()


def _answer(sender: Connection, function: Callable[..., str], arguments: tuple[str, ...]) -> None:
    """Run in the other process: send back what came of it."""
    try:
        trial = Trial(outcome="ok", text=function(*arguments))
    except MissingDependencyError as error:
        trial = Trial(outcome="absent", text=str(error))
    except EdgekitError as error:
        trial = Trial(outcome="failed", text=str(error))
    except Exception as error:  # whatever it is, it is the answer to "does it work here?"
        trial = Trial(outcome="failed", text=f"{type(error).__name__}: {error}")
    sender.send(trial)


def _cause_of_death(exit_code: int) -> str:
    if exit_code == -signal.SIGILL:
        return "it dies of an illegal instruction: this build needs a newer CPU than this one"
    if exit_code < 0:
        return f"it dies with {signal.Signals(-exit_code).name}"
    return f"it ends with exit code {exit_code} and no answer"
