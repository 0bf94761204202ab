"""What an export makes: format, precision, threads and engines, from a board file and from what the user insists on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from edgekit.boards import Board
from edgekit.bundle.golden_files import OUTPUT, SPARSE_OUTPUT
from edgekit.bundle.manifest import GRAPH_FORMATS, PRECISIONS
from edgekit.bundle.sparse_part import program_precision
from edgekit.errors import UsageError
from edgekit.exporters.conversion import Precision
from edgekit.spec import DetectorSpec

DEFAULT_FORMAT, DEFAULT_PRECISION = "onnx", "fp32"
"""Without a board: what runs anywhere and loses nothing."""

WITHOUT_HALF = frozenset({"sparse"})
"""Formats that have no fp16: the native engine computes in float32 and in integers."""

DEFAULT_THREADS = 4
"""Without a board: the number of cores of every small board on sale."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Both graphs in one format: the dense ones of a bundle, or the sparse programs beside them."""

    graph_format: str
    precision: Precision
    engines: tuple[str, ...]
    """Engines that can run it, best first."""

    sparse: bool
    """Whether it stands beside dense graphs."""

    @property
    def suffix(self) -> str:
        """Of the files."""
        return GRAPH_FORMATS[self.graph_format][0]

    @property
    def golden_output(self) -> str:
        """File with what it makes of the golden input."""
        return SPARSE_OUTPUT if self.sparse else OUTPUT

    @property
    def what(self) -> str:
        """For messages, e.g. ``int8 tflite model``."""
        return f"{self.precision} sparse program" if self.sparse else f"{self.precision} {self.graph_format} model"


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

    sparse: bool = False
    """Whether sparse programs go beside the graphs."""

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

        if self.sparse and self.graph_format == "sparse":
            raise UsageError(
                "--sparse puts sparse programs beside the graphs of another format, and those of --format sparse are "
                "sparse programs already.\nLeave one of the two out."
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the bundle gets, dense graphs first."""
        dense = cast(Precision, self.precision)  # checked above
        graphs = Part(graph_format=self.graph_format, precision=dense, engines=self.engines, sparse=False)
        if not self.sparse:
            return (graphs,)
        exact = cast(Precision, program_precision(dense))
        return graphs, Part(graph_format="sparse", precision=exact, engines=GRAPH_FORMATS["sparse"][1], sparse=True)

    @property
    def float_precision(self) -> str:
        """The smallest floating-point numbers that the format has: what to try where int8 does not do."""
        return "fp32" if self.graph_format in WITHOUT_HALF else "fp16"

    @property
    def suffix(self) -> str:
        """Of the graph files."""
        return self.parts[0].suffix


def plan_export(
    board: Board | None,
    *,
    graph_format: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    sparse: bool = False,
    calibrated: bool,
) -> ExportPlan:
    """The board's choices where the user made none.

    Args:
        board: the target, or ``None``.
        graph_format: overrides the board's.
        precision: overrides the board's; a board's fp16 becomes fp32 in a format that has no fp16.
        threads: overrides the board's.
        sparse: put sparse programs beside the graphs.
        calibrated: whether there are calibration pictures; without, a board's int8 becomes its
            ``uncalibrated_precision``.

    Raises:
        UsageError: int8 was asked for by name without calibration pictures, fp16 by name in a format that has none,
            programs beside programs, or a name is unknown.
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
            sparse=sparse,
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
        sparse=sparse,
        uncalibrated=uncalibrated,
    )


def one_precision(precision: str | None, *, half: bool, int8: bool) -> str | None:
    """What ``--precision``, ``--half`` and ``--int8`` ask for together; raises ``UsageError`` if for two things."""
    asked = {name for name, flag in ((precision, True), ("fp16", half), ("int8", int8)) if name and flag}
    if len(asked) > 1:
        raise UsageError(f"--precision, --half and --int8 contradict each other: {' and '.join(sorted(asked))}")
    return next(iter(asked), None)


def check_programs(spec: DetectorSpec, plan: ExportPlan) -> None:
    """Refuse a DETR in sparse programs alone, before anything is converted.

    Raises:
        UsageError: naming the formats that can hold all of it.
    """
    if plan.graph_format == "sparse" and spec.sparse_graphs != spec.graphs:
        raise UsageError(
            f"sparse programs alone cannot hold {spec.model}: they convolve, and have no attention.\n"
            "Put programs of its backbone beside graphs that have it: --sparse with --format onnx, --format openvino or"
            " --format tflite"
        )
