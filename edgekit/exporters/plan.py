"""What an export makes: format, precision, threads and engines, from a board file and from what the user insists on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.boards import Board
from edgekit.bundle.manifest import GRAPH_FORMATS, PRECISIONS
from edgekit.errors import UsageError

DEFAULT_FORMAT, DEFAULT_PRECISION = "onnx", "fp32"
"""Without a board: what runs anywhere and loses nothing."""

WITHOUT_HALF = frozenset({"sparse"})
"""Formats that have no fp16: the native engine computes in float32 and in integers."""

DEFAULT_THREADS = 4
"""Without a board: the number of cores of every small board on sale."""


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """The choices behind one bundle."""

    graph_format: str
    """``onnx``, ``tflite``, ``openvino`` or ``sparse``."""

    precision: str
    """``fp32``, ``fp16`` or ``int8``."""

    target: str | None = None
    """Name of the board, if one was given."""

    threads: int = DEFAULT_THREADS
    """CPU threads that the bundle asks its engine for."""

    engines: tuple[str, ...]
    """Engines that can run ``graph_format``, best first."""

    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """Engine name -> its settings on the board."""

    uncalibrated: bool = False
    """The board would have had int8, but there are no calibration pictures."""

    def __post_init__(self) -> None:
        if self.graph_format not in GRAPH_FORMATS:
            raise UsageError(f"--format: expected {', '.join(GRAPH_FORMATS)}, got {self.graph_format!r}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision: expected {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.precision == "fp16" and self.graph_format in WITHOUT_HALF:
            raise UsageError(
                f"--precision: the format {self.graph_format} has no half precision; expected fp32 or int8, got 'fp16'"
            )

    @property
    def float_precision(self) -> str:
        """The smallest floating-point numbers that the format has: what to try where int8 does not do."""
        return "fp32" if self.graph_format in WITHOUT_HALF else "fp16"

    @property
    def suffix(self) -> str:
        """Of the graph files."""
        return GRAPH_FORMATS[self.graph_format][0]

    def describe(self) -> str:
        """For messages, e.g. ``int8 tflite``."""
        return f"{self.precision} {self.graph_format}"


def plan_export(
    board: Board | None,
    *,
    graph_format: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    calibrated: bool,
) -> ExportPlan:
    """The board's choices where the user made none.

    Args:
        board: the target, or ``None``.
        graph_format: overrides the board's.
        precision: overrides the board's; a board's fp16 becomes fp32 in a format that has no fp16.
        threads: overrides the board's.
        calibrated: whether there are calibration pictures; without, a board's int8 becomes its
            ``uncalibrated_precision``.

    Raises:
        UsageError: int8 was asked for by name without calibration pictures, fp16 by name in a format that has none,
            or a name is unknown.
    """
    if precision == "int8" and not calibrated:
        raise UsageError(
            "int8 needs at least 100 pictures like the camera's to measure how large activations get, got none.\n"
            "Name them with: --calib DIR (pictures or a data set), or --data DIR (annotated; its train split is used)"
        )
    if board is None:
        chosen = graph_format or DEFAULT_FORMAT
        engines = GRAPH_FORMATS[chosen][1] if chosen in GRAPH_FORMATS else ()
        return ExportPlan(
            graph_format=chosen,
            precision=precision or DEFAULT_PRECISION,
            threads=threads or DEFAULT_THREADS,
            engines=engines,
        )
    chosen = graph_format or board.export.format
    uncalibrated = precision is None and board.export.precision == "int8" and not calibrated
    preferred = board.export.uncalibrated_precision if uncalibrated else board.export.precision
    if preferred == "fp16" and chosen in WITHOUT_HALF:
        preferred = "fp32"
    able = GRAPH_FORMATS[chosen][1] if chosen in GRAPH_FORMATS else ()
    # The board's order counts; an engine it does not list is better than none when another format was asked for.
    engines = tuple(name for name in board.export.engines if name in able) or able
    return ExportPlan(
        graph_format=chosen,
        precision=precision or preferred,
        target=board.name,
        threads=threads or board.export.threads,
        engines=engines,
        engine_options={
            name: board.export.engine_options[name] for name in engines if name in board.export.engine_options
        },
        uncalibrated=uncalibrated,
    )
