"""The way of an export: checkpoint -> ONNX -> the target's format -> gate -> bundle.

Nothing is left at the destination unless everything succeeded: files are made in a folder that ``BundleWriter`` removes
on any failure, a refusal by the gate, a full disk and Ctrl-C included.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.backends import Engine, load_engine, usable_engines
from edgekit.backends.joining import join
from edgekit.bundle import BundleWriter
from edgekit.bundle.golden import write_golden
from edgekit.bundle.sparse_part import region_suffix
from edgekit.errors import EngineError, ExportError, GateError
from edgekit.exporters import converter, takes_picture
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision
from edgekit.exporters.equalisation import equalise_file
from edgekit.exporters.evidence import Evidence
from edgekit.exporters.export_result import ExportResult
from edgekit.exporters.full_disk import full_disk_named
from edgekit.exporters.gate import PARITY_IMAGES, GateReport, gate_error, measure_ap50, run_gate
from edgekit.exporters.head_sections import head_sections, measured
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.pictures import (
    Picture,
    calibration_pictures,
    choose_golden,
    dataset_pictures,
    drawn_scene,
    spread_inputs,
)
from edgekit.exporters.plan import ExportPlan, Part, check_programs
from edgekit.exporters.relu_equalisation import equalise_relus
from edgekit.exporters.roi_calibration import head_calibration
from edgekit.exporters.sensitivity import SAMPLES, KeepFloat, LayerError, by_graph, rank_layers
from edgekit.exporters.sparse_region import to_region
from edgekit.masks.sources import omg
from edgekit.pipeline import Pipeline
from edgekit.profiling.machine import available_threads
from edgekit.spec import graph_precision

if TYPE_CHECKING:
    from edgekit.models.checkpoint import Checkpoint

log = logging.getLogger("edgekit")

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, steps done, steps in all)."""


def reference_pipeline(checkpoint: Checkpoint, *, threads: int) -> Pipeline:
    """The PyTorch model behind the OMG mask: what every conversion is compared with."""
    from edgekit.backends.torch import load_pair

    return Pipeline(checkpoint.spec, *load_pair(checkpoint.model, threads=threads), omg)


def export_bundle(
    checkpoint: Checkpoint,
    plan: ExportPlan,
    destination: Path,
    *,
    evidence: Evidence,
    keep_float: KeepFloat | None = None,
    overwrite: bool = False,
    zipped: bool = False,
    original: Checkpoint | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Convert, measure, and write the bundle ``destination``.

    Args:
        checkpoint: finite weights and their provenance.
        plan: what to make of them.
        destination: the folder, or with ``zipped`` the file, to write.
        evidence: what to measure with.
        keep_float: layers that int8 leaves in float32.
        overwrite: replace a bundle that is there.
        zipped: write one file.
        original: what ``checkpoint`` was made from, if that may cost accuracy, too; the gate then compares with it.
        threads: CPU threads of the export itself; ``None`` is all.
        progress: called now and then.

    Raises:
        UsageError: something is at ``destination``, a layer name is none, or a DETR is to become sparse programs alone.
        GateError: the converted model, or its sparse program, is worse than allowed, or its engine refuses it; the
            worst layers are named.
        EngineError: the checkpoint itself does not run, for instance because it overflows; or sparse programs were
            asked for, and the native engine does not work here.
        ExportError: a graph cannot be converted.
        MissingDependencyError: a converter, or every engine of the format, is not installed.
        StorageError: writing failed.
    """
    from edgekit.exporters.torch_onnx import export_onnx

    check_programs(checkpoint.spec, plan)
    threads = threads or available_threads()
    writer = BundleWriter(destination, overwrite=overwrite, zipped=zipped)
    engines = {part: next(usable_engines(part.engines)) for part in plan.parts}  # the best that works here
    reference = reference_pipeline(checkpoint, threads=threads)
    copies = 3 if plan.sparse else 1  # the dense graphs, the programs, and the graphs around these
    needed_bytes = 4 * copies * sum(parameter.numel() for parameter in checkpoint.model.parameters())
    with (
        writer,
        full_disk_named(writer, needed_bytes),
        tempfile.TemporaryDirectory(prefix="edgekit-export-") as scratch,
    ):
        build = _Build(
            checkpoint=checkpoint,
            plan=plan,
            evidence=evidence,
            writer=writer,
            onnx=export_onnx(checkpoint.model, Path(scratch)),
            engines=engines,
            threads=threads,
            progress=progress,
        )
        pictures = build.pictures()
        found = choose_golden(reference, pictures)  # a reference that cannot run fails here, before any conversion
        golden = found if evidence.golden is None else evidence.golden
        build.equalise()
        kept, ranking = build.choose_kept(keep_float or KeepFloat())
        reports: list[GateReport] = []
        sections: dict[str, Any] = {}
        known = None
        if original is not None and evidence.dataset is not None:
            known = measure_ap50(
                reference_pipeline(original, threads=threads), evidence.dataset, "AP50 before", progress
            )
        for part in plan.parts:
            candidate, report = build.passing(part, kept, ranking, reference, pictures, ap50_before=known)
            reports.append(report)
            known = report.accuracy.ap50_before if report.accuracy else known
            recorded = write_golden(writer, candidate, golden, precision=part.precision, output=part.golden_output)
            if part.sparse:
                sections["sparse"] = build.sparse_section(part, report, recorded)
            else:
                sections |= {**build.manifest(part, report, kept), "golden": recorded}
        manifest = writer.finish(sections)
    return ExportResult(
        path=destination,
        manifest=manifest,
        report=reports[0],
        sparse_report=reports[1] if plan.sparse else None,
        kept_float=kept,
        ranking=ranking,
    )


@dataclass(frozen=True, kw_only=True)
class _Build:
    """The steps of one export, which share its inputs."""

    checkpoint: Checkpoint
    plan: ExportPlan
    evidence: Evidence
    writer: BundleWriter
    onnx: Mapping[str, Path]
    """Graph name -> float32 ONNX file."""

    engines: Mapping[Part, str]
    """What runs each part for the gate."""

    threads: int
    progress: Progress | None

    def files(self, part: Part) -> dict[str, str]:
        """Graph name -> file in the bundle, of the graphs that ``part`` has."""
        return {name: f"{name}{part.suffix}" for name in self.graphs(part)}

    def graphs(self, part: Part) -> tuple[str, ...]:
        """Names of the graphs that ``part`` has: programs there are not of all."""
        spec = self.checkpoint.spec
        return spec.sparse_graphs if part.sparse else spec.graphs

    def precision(self, graph: str, part: Part) -> Precision:
        """Of ``graph`` in ``part``."""
        return cast(Precision, graph_precision(graph, part.precision))

    def pictures(self) -> list[Picture]:
        """What parity is measured on: annotated pictures, else calibration pictures, else what there is."""
        spec, evidence = self.checkpoint.spec, self.evidence
        if evidence.dataset is not None:
            return list(dataset_pictures(evidence.dataset, PARITY_IMAGES))
        if evidence.calibration is not None:
            return list(calibration_pictures(evidence.calibration, spec, PARITY_IMAGES))
        if evidence.pictures:
            return list(evidence.pictures[:PARITY_IMAGES])
        return [drawn_scene(spec) if evidence.golden is None else evidence.golden]

    def calibration(self, graph: str) -> Calibration | None:
        """What shows the range of the activations of ``graph``, if there are pictures."""
        pictures = self.evidence.calibration
        if pictures is None or takes_picture(graph):
            return pictures
        return head_calibration(self.onnx["shared"], pictures, self.checkpoint.spec, threads=self.threads)

    @property
    def convolving(self) -> dict[str, Path]:
        """Those of the float graphs that have convolutions: what int8 is for."""
        return {name: self.onnx[name] for name in self.checkpoint.spec.sparse_graphs}

    def equalise(self) -> None:
        """Even out the channels of the float graphs that are to become int8."""
        for name, path in self.convolving.items():
            calibration = self.calibration(name) if self.plan.precision == "int8" else None
            if calibration is not None:
                equalise_file(path, calibration)
                equalise_relus(path, calibration)

    def choose_kept(self, wanted: KeepFloat) -> tuple[tuple[str, ...], tuple[LayerError, ...]]:
        """The layers to keep in float32, and the ranking if it was needed to find them."""
        if wanted and self.plan.precision != "int8":
            raise ExportError(f"--keep-float only makes sense for int8, but the precision is {self.plan.precision}")
        if not wanted.worst:
            return wanted.names, ()
        ranking = self.rank()
        kept = tuple(error.layer for error in ranking[: wanted.worst])
        log.info("kept in float32: %s", ", ".join(kept))
        return kept, ranking

    def rank(self) -> tuple[LayerError, ...]:
        """Every layer by the error that int8 in it alone causes."""
        log.info("ranking layers by their int8 error ...")
        total = sum(len(read_graph(path).convolutions()) for path in self.convolving.values())
        ranking = list[LayerError]()

        def told(done: int, _: int) -> None:
            if self.progress is not None:
                self.progress("ranking layers", len(ranking) + done, total)

        for name, path in self.convolving.items():
            calibration = self.calibration(name)
            assert calibration is not None  # int8 cannot come this far without
            samples = spread_inputs(calibration, SAMPLES)
            ranking += rank_layers({name: path}, samples, threads=self.threads, progress=told)
        return tuple(sorted(ranking, key=lambda error: -error.noise))

    def passing(
        self,
        part: Part,
        kept: tuple[str, ...],
        ranking: tuple[LayerError, ...],
        reference: Pipeline,
        pictures: list[Picture],
        *,
        ap50_before: float | None,
    ) -> tuple[Pipeline, GateReport]:
        """Convert one part and measure it beside ``reference``; raises :class:`GateError` if it is not good enough."""
        try:
            candidate = self.convert(part, kept)
            report = run_gate(
                reference,
                candidate,
                precision=part.precision,
                pictures=pictures,
                dataset=self.evidence.dataset,
                max_drop=self.evidence.max_drop,
                ap50_before=ap50_before,
                progress=self.progress,
            )
        except EngineError as error:
            raise self.refusal(part, (f"it does not run. {error}",), kept, ranking) from error
        if not report.passed:
            raise self.refusal(part, report.failures, kept, ranking)
        return candidate, report

    def refusal(
        self, part: Part, failures: tuple[str, ...], kept: tuple[str, ...], ranking: tuple[LayerError, ...]
    ) -> GateError:
        """The error that names what failed and, for int8, the worst layers."""
        if part.precision == "int8" and not ranking:
            ranking = self.rank()
        return gate_error(
            failures,
            what=part.what,
            precision=part.precision,
            ranking=ranking,
            kept=kept,
            float_precision=self.plan.float_precision,
            optional="--sparse" if part.sparse else None,
        )

    def convert(self, part: Part, kept: tuple[str, ...]) -> Pipeline:
        """Write graphs into the new bundle, and load them as the board will."""
        spec, split = self.checkpoint.spec, by_graph(kept, self.convolving)
        files = self.files(part)
        for name, file in files.items():
            precision = self.precision(name, part)
            log.info("converting %s to %s %s ...", name, precision, part.graph_format)
            convert = converter(part.graph_format, spec, name)
            calibration = self.calibration(name) if precision == "int8" else None
            convert(self.onnx[name], self.writer.path(file), precision, calibration, split.get(name, frozenset()))
        load = {name: self.load(name, part if name in files else self.plan.parts[0]) for name in spec.graphs}
        return Pipeline(spec, load["omg"], join(load, spec), omg)

    def load(self, graph: str, part: Part) -> Engine:
        """``graph`` as ``part`` has it, in the engine that runs this part here."""
        # The board's providers are not on this machine; precision is a property of the graphs.
        options = {"precision": self.precision(graph, part)}
        file = self.writer.path(self.files(part)[graph])
        return load_engine(self.engines[part], file, threads=self.threads, options=options)

    def sparse_section(self, part: Part, report: GateReport, golden: dict[str, Any]) -> dict[str, Any]:
        """Put the programs into graphs of the bundle's own format; the section ``sparse`` of ``bundle.json``."""
        programs = self.files(part)
        regions = {name: f"{name}{region_suffix(self.plan.suffix)}" for name in programs}
        for name, file in programs.items():
            to_region(self.writer.path(file), self.writer.path(regions[name]), pixels=takes_picture(name))
        verdict = measured(report)
        return {"programs": programs, "regions": regions, "golden": golden, "break_even": None, **verdict}

    def manifest(self, part: Part, report: GateReport, kept: tuple[str, ...]) -> dict[str, Any]:
        """``bundle.json`` but for the golden files and what may stand beside the graphs."""
        from edgekit.metrics.macs import count_macs, layers_to_json, total_macs

        layers = count_macs(self.checkpoint.model)
        return {
            **head_sections(
                self.plan,
                name=self.writer.destination.name,
                calibration=self.evidence.calibration,
                kept=kept,
                provenance=self.checkpoint.provenance,
            ),
            "task": "detection",
            "spec": self.checkpoint.spec.to_json(),
            "graphs": self.files(part),
            "macs": {"dense": total_macs(layers, "detector"), "omg": total_macs(layers, "omg")},
            "layers": layers_to_json(layers),
            "parameters": sum(layer.parameters for layer in layers),
            **measured(report),
        }
