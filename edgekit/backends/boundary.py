"""The border between edgekit and the engines: their exceptions become EngineError, and their results are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from edgekit.backends import Tensors
from edgekit.errors import EngineError, MissingDependencyError

ENGINE_EXTRAS = {"tflite": "tflite", "openvino": "openvino", "onnxruntime": "onnx", "torch": "train"}
"""Engine name -> the extra that installs it; the native engine needs none."""

LOADING = ("load", "The file is damaged, or was written for a newer {engine}.", "Check the bundle with: edgekit verify")
RUNNING = (
    "run",
    "The machine ran out of memory, or the graph needs other inputs.",
    "See what works with: edgekit doctor",
)


@contextmanager
def translated(
    engine: str, graph: str, doing: tuple[str, str, str], errors: tuple[type[Exception], ...]
) -> Iterator[None]:
    """Raise any of ``errors`` as :class:`EngineError` that says what failed, the likely cause and the next command.

    Args:
        engine: name of the engine, e.g. ``openvino``.
        graph: what it was working on, e.g. ``detector.xml``.
        doing: :data:`LOADING` or :data:`RUNNING`.
        errors: what this engine raises; anything else is a bug of ours and passes through.
    """
    verb, cause, command = doing
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise EngineError(
            f"{engine} could not {verb} {graph}: {reason}\n{cause.format(engine=engine)} {command}"
        ) from error


def broken_install(engine: str, package: str, error: BaseException) -> EngineError:
    """The error for a ``package`` that is installed but cannot be imported."""
    return EngineError(
        f"{package} is installed but cannot be imported: {error}\n"
        f'Repair it with: pip install --force-reinstall "edgekit-vision[{ENGINE_EXTRAS[engine]}]"'
    )


def absent(engine: str, package: str) -> MissingDependencyError:
    """The error for a ``package`` that is not installed."""
    return MissingDependencyError(package, ENGINE_EXTRAS[engine], f"run models with the {engine} engine")


def check_inputs(engine: str, graph: str, inputs: Tensors, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise :class:`EngineError` unless ``inputs`` has exactly the names and NCHW shapes that the graph expects."""
    if inputs.keys() != expected.keys():
        raise EngineError(
            f"{engine}: {graph} has the inputs {', '.join(sorted(expected))}, "
            f"got {', '.join(sorted(inputs)) or 'none'}.\n"
            "It was not exported by this edgekit; export it again with: edgekit export"
        )
    for name, shape in expected.items():
        if inputs[name].shape != shape:
            raise EngineError(
                f"{engine}: input {name!r} of {graph} has the shape {list(shape)}, got {list(inputs[name].shape)}.\n"
                "The graph and the bundle's input size do not belong together; export again with: edgekit export"
            )


def check_outputs(engine: str, graph: str, outputs: Tensors, expected: Mapping[str, tuple[int | None, ...]]) -> Tensors:
    """``outputs``, if it has the shapes ``expected``, in which None is any size; else raise :class:`EngineError`."""
    for name, shape in expected.items():
        got = outputs[name].shape if name in outputs else ()
        if len(got) != len(shape) or any(side not in (None, found) for side, found in zip(shape, got, strict=True)):
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            raise EngineError(
                f"{engine}: output {name!r} of {graph} should have the shape [{wanted}], got {list(got) or 'none'}.\n"
                "The graph and the bundle's specification do not belong together; export again with: edgekit export"
            )
    return outputs


def check_finite(engine: str, graph: str, outputs: Tensors) -> Tensors:
    """``outputs``, unless a value is NaN or infinite: then raise :class:`EngineError` naming tensor and graph."""
    for name, values in outputs.items():
        finite = np.isfinite(values)
        if not finite.all():
            bad = int(values.size - np.count_nonzero(finite))
            raise EngineError(
                f"{engine}: the output {name!r} of {graph} holds NaN or infinity ({bad} of {values.size} values).\n"
                "The weights are damaged, or overflow in half precision: "
                "look at the checkpoint's losses, or export with --precision fp32."
            )
    return outputs
