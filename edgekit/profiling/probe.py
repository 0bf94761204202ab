"""Try an engine where its death does no harm.

A wheel built for a newer CPU does not raise: it kills the process with an illegal instruction (onnxruntime#23957 on a
Raspberry Pi 4). So every trial runs in a process of its own, and how that process ended is part of the answer.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
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
"""Engine -> (file name, content) of a graph that it reads; the native one gets :func:`tiny_program`, any other ONNX."""

TIMEOUT_S = 120.0
"""A Raspberry Pi with a cold SD card needs tens of seconds to import an engine."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How something that was tried in another process went."""

    outcome: Literal["ok", "absent", "failed"]
    """``absent``: it needs a package that is not installed."""

    text: str
    """What it returned, or why it failed."""


def tiny_program() -> bytes:
    """``relu(image)`` as a sparse program: a float and an integer convolution, because each has kernels of its own."""
    import numpy as np

    from edgekit.sparse.format import write_program
    from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor

    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    middle = 128  # stands for 0; results are exact, because 1/16 is
    real = Tensor(level=0, channels=1)
    integer = Tensor(level=0, channels=1, dtype=DType.UINT8, scale=1 / 16, zero_point=middle)
    operations = (
        Operation(kind=Kind.INPUT, output=0, weights=zero, bias=one),
        Operation(kind=Kind.CONV, input=0, output=1, weights=one.reshape(1, 1, 1, 1), bias=zero),
        Operation(kind=Kind.QUANTISE, input=1, output=2, low=0, high=255),
        Operation(
            kind=Kind.CONV,
            input=2,
            output=3,
            weights=np.ones((1, 1, 1, 1), np.int8),
            bias=np.zeros(1, np.int32),
            multipliers=one,
            low=middle,
            high=255,
        ),
        Operation(kind=Kind.OUTPUT, input=3, output=0, anchors=1),
    )
    program = Program(
        levels=(Level(rows=2, columns=2, masked=False),),
        tensors=(real, real, integer, integer),
        operations=operations,
        outputs=(Output(name="objectness", rows=4, columns=1),),
    )
    return write_program(program)


def run_tiny_graph(engine: str) -> str:
    """Load a graph of one operator into ``engine``, run it and check the result; returns the engine's full name.

    Raises:
        MissingDependencyError: the engine is not installed.
        EngineError: it does not load or run the graph, or computes something else.
    """
    import numpy as np

    from edgekit.backends import load_engine

    if engine == "native":
        name, content = "tiny.sparse", tiny_program()
    else:
        name, content = TINY_GRAPHS.get(engine, ("tiny.onnx", TINY_ONNX))
    image = np.array([[[[-1, 2], [3, -4]]]], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        loaded = load_engine(engine, path, threads=1)
        (output,) = loaded.run({"image": image}).values()
    if not np.array_equal(output, np.maximum(image, 0)):
        raise EngineError(f"{loaded.name} computes relu({image.ravel().tolist()}) as {output.ravel().tolist()}")
    return loaded.name


def run_every_instruction_set() -> str:
    """As :func:`run_tiny_graph` with each instruction set of the native engine that works here; returns their names.

    Only for a process of its own: it changes the environment.

    Raises:
        EngineError: one computes something else, or the kernels cannot be loaded.
    """
    from edgekit.backends.native import ISA_VARIABLE, instruction_sets

    found = instruction_sets()
    for name in found.usable:
        os.environ[ISA_VARIABLE] = name
        run_tiny_graph("native")
    return f"{found.chosen}, of {', '.join(found.usable)}"


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
