"""What every converter takes: one graph as ONNX, a precision, and for int8 the pictures that show its ranges."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Literal, Protocol, get_args

from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Converter(Protocol):
    """Turns one ONNX graph into the files of one engine."""

    def __call__(
        self,
        onnx_path: Path,
        out_path: Path,
        precision: Precision,
        calibration: Calibration | None = None,
        keep_float: frozenset[str] = frozenset(),
    ) -> None:
        """Write ``out_path`` (and whatever must lie beside it).

        Args:
            onnx_path: a graph as :func:`edgekit.exporters.torch_onnx.export_onnx` writes it.
            out_path: the file to write, with the suffix that the engine expects.
            precision: of weights and arithmetic; inputs and outputs keep their meaning.
            calibration: pictures and masks; needed for int8, unused otherwise.
            keep_float: names of convolutions that int8 leaves in float32.

        Raises:
            ExportError: the graph holds something that the engine cannot express, or the request contradicts itself.
            MissingDependencyError: the engine's tools are not installed.
        """
        ...


def check_request(precision: Precision, calibration: Calibration | None, keep_float: frozenset[str]) -> None:
    """Refuse a request that no converter can serve.

    Raises:
        ExportError: an unknown precision, int8 without calibration, or layers to keep in float without int8.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision == "int8" and calibration is None:
        raise ExportError(
            "int8 needs calibration pictures to measure the range of every activation, got none.\n"
            "Name a folder of them with: edgekit export ... --precision int8 --calib DIR"
        )
    if precision != "int8" and keep_float:
        raise ExportError(
            f"keeping {len(keep_float)} layer(s) in float32 only makes sense for int8, but the precision is {precision}"
        )


def check_kept_layers(keep_float: frozenset[str], convolutions: Collection[str]) -> None:
    """Refuse names in ``keep_float`` that are no convolution of the graph.

    Raises:
        ExportError: naming the unknown layer and the nearest known one.
    """
    for name in sorted(keep_float - set(convolutions)):
        near = difflib.get_close_matches(name, convolutions, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ExportError(
            f"cannot keep {name!r} in float32: the graph has no such convolution{hint}"
            f" It has {len(convolutions)}: {', '.join(sorted(convolutions)[:5])}, ..."
        )
