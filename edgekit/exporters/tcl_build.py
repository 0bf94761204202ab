"""The way of a segmenter's export: checkpoint -> ONNX -> the target's format -> gate -> bundle.

Nothing is left at the destination unless everything succeeded, as for detectors (``edgekit.exporters.build``).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgekit.backends import load_engine, usable_engines
from edgekit.bundle import BundleWriter
from edgekit.bundle.segmentation_golden import write_segmentation_golden
from edgekit.bundle.segmentation_manifest import PROMPTS, TASK
from edgekit.errors import EngineError, ExportError, GateError, UsageError
from edgekit.exporters import CONVERTERS
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision
from edgekit.exporters.equalisation import equalise_file
from edgekit.exporters.export_result import ExportResult
from edgekit.exporters.full_disk import full_disk_named
from edgekit.exporters.gate import gate_error
from edgekit.exporters.graph_macs import graph_macs, graph_parameters
from edgekit.exporters.head_sections import head_sections, measured
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.pictures import Picture, spread_inputs
from edgekit.exporters.plan import ExportPlan
from edgekit.exporters.sensitivity import SAMPLES, KeepFloat, LayerError, by_graph, rank_layers
from edgekit.exporters.tcl_evidence import SegmentationEvidence
from edgekit.exporters.tcl_gate import run_segmentation_gate
from edgekit.exporters.tcl_onnx import export_tcl
from edgekit.profiling.machine import available_threads
from edgekit.segmentation.pipeline import SegmentationPipeline
from edgekit.segmentation.prompts import Prompts, encode_prompts
from edgekit.segmentation.spec import GRAPH, SegmenterSpec

if TYPE_CHECKING:
    from edgekit.models.tcl.checkpoint import TclCheckpoint

log = logging.getLogger("edgekit")

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, steps done, steps in all)."""


def export_segmenter(
    checkpoint: TclCheckpoint,
    spec: SegmenterSpec,
    prompts: Prompts,
    plan: ExportPlan,
    destination: Path,
    *,
    evidence: SegmentationEvidence,
    keep_float: KeepFloat | None = None,
    overwrite: bool = False,
    zipped: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Convert, measure, and write the bundle ``destination``.

    Args:
        checkpoint: finite weights and their provenance.
        spec: of ``edgekit.exporters.tcl_onnx.segmenter_spec``: the input's size and how scores are made.
        prompts: what the bundle looks for if nobody says otherwise.
        plan: what to make.
        destination: the folder, or with ``zipped`` the file, to write.
        evidence: what to measure with.
        keep_float: layers that int8 leaves in float32.
        overwrite: replace a bundle that is there.
        zipped: write one file.
        threads: CPU threads of the export itself; ``None`` is all.
        progress: called now and then.

    Raises:
        UsageError: something is at ``destination``, a layer name is none, or sparse programs were asked for.
        GateError: the converted model is worse than allowed, or its engine refuses it; the worst layers are named.
        EngineError: the checkpoint itself does not run, for instance because it overflows.
        ExportError: the graph cannot be converted.
        MissingDependencyError: a converter, or every engine of the format, is not installed.
        StorageError: writing failed.
    """
    from edgekit.exporters.tcl_reference import reference_segmenter

    if plan.sparse or plan.graph_format == "sparse":
        raise UsageError(
            "sparse programs skip what an objectness mask leaves out, and a segmenter looks everywhere.\n"
            "Choose --format onnx, openvino or tflite"
        )
    threads = threads or available_threads()
    writer = BundleWriter(destination, overwrite=overwrite, zipped=zipped)
    engine = next(usable_engines(plan.engines))
    reference = reference_segmenter(checkpoint.model, spec, prompts, threads=threads)
    needed_bytes = 8 * sum(parameter.numel() for parameter in checkpoint.model.masker.parameters())
    precision = cast(Precision, plan.precision)
    calibration = evidence.calibration if precision == "int8" else None
    with (
        writer,
        full_disk_named(writer, needed_bytes),
        tempfile.TemporaryDirectory(prefix="edgekit-export-") as scratch,
    ):
        # 1. the float graph; a reference that cannot run fails before any conversion
        onnx = Path(scratch) / f"{GRAPH}.onnx"
        export_tcl(checkpoint.model, onnx, spec)
        graph = read_graph(onnx)
        golden = evidence.golden if evidence.golden is not None else _fullest(reference, evidence.pictures)
        # 2. the target's
        if calibration is not None:
            equalise_file(onnx, calibration)
        kept, ranking = _choose_kept(onnx, keep_float or KeepFloat(), precision, calibration, threads, progress)
        file = f"{GRAPH}{plan.suffix}"
        what = f"{precision} {plan.graph_format} model"
        log.info("converting %s to %s %s ...", GRAPH, precision, plan.graph_format)
        names = by_graph(kept, (GRAPH,))[GRAPH]
        CONVERTERS[plan.graph_format](onnx, writer.path(file), precision, calibration, names)
        # 3. is it as good?
        try:
            loaded = load_engine(engine, writer.path(file), threads=threads, options={"precision": precision})
            candidate = SegmentationPipeline(spec, loaded, prompts)
            report = run_segmentation_gate(
                reference,
                candidate,
                precision=precision,
                pictures=evidence.pictures,
                dataset=evidence.dataset,
                dataset_prompts=evidence.dataset_prompts,
                max_drop=evidence.max_drop,
                progress=progress,
            )
            failures, cause = report.failures, None
        except EngineError as error:
            failures, cause = (f"it does not run. {error}",), error
        if failures:
            ranking = ranking or _rank(onnx, calibration, threads, progress)
            raise _refusal(failures, what, precision, ranking, kept) from cause
        # 4. the bundle
        writer.add_bytes(PROMPTS, encode_prompts(prompts))
        manifest = writer.finish(
            {
                **head_sections(
                    plan, name=destination.name, calibration=calibration, kept=kept, provenance=checkpoint.provenance
                ),
                "task": TASK,
                "spec": spec.to_json(),
                "graphs": {GRAPH: file},
                "prompts": PROMPTS,
                "macs": {"dense": graph_macs(graph)},
                "parameters": graph_parameters(graph),
                **measured(report),
                "golden": write_segmentation_golden(writer, candidate, golden, precision=precision),
            }
        )
    return ExportResult(path=destination, manifest=manifest, report=report, kept_float=kept, ranking=ranking)


def _fullest(reference: SegmentationPipeline, pictures: tuple[Picture, ...]) -> Picture:
    """The picture with the most that is not background: the more it shows, the more the self-test covers."""
    return max(pictures, key=lambda picture: float(reference.process(picture).shares.sum()))


def _choose_kept(
    onnx: Path,
    wanted: KeepFloat,
    precision: str,
    calibration: Calibration | None,
    threads: int,
    progress: Progress | None,
) -> tuple[tuple[str, ...], tuple[LayerError, ...]]:
    """The layers to keep in float32, and the ranking if it was needed to find them."""
    if wanted and precision != "int8":
        raise ExportError(f"--keep-float only makes sense for int8, but the precision is {precision}")
    if not wanted.worst:
        return wanted.names, ()
    ranking = _rank(onnx, calibration, threads, progress)
    kept = tuple(error.layer for error in ranking[: wanted.worst])
    log.info("kept in float32: %s", ", ".join(kept))
    return kept, ranking


def _rank(
    onnx: Path, calibration: Calibration | None, threads: int, progress: Progress | None
) -> tuple[LayerError, ...]:
    """Every layer by the error that int8 in it alone causes; none where nothing is int8."""
    if calibration is None:
        return ()
    log.info("ranking layers by their int8 error ...")

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("ranking layers", done, total)

    return rank_layers({GRAPH: onnx}, spread_inputs(calibration, SAMPLES), threads=threads, progress=told)


def _refusal(
    failures: tuple[str, ...], what: str, precision: str, ranking: tuple[LayerError, ...], kept: tuple[str, ...]
) -> GateError:
    return gate_error(failures, what=what, precision=precision, ranking=ranking, kept=kept)
