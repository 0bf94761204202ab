"""Convert a checkpoint into a bundle for one board, behind an accuracy gate: ``edgekit export CKPT --target BOARD``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

from edgekit.cli import ProgramWithParts
from edgekit.errors import UsageError

log = logging.getLogger("edgekit")

FORMATS = ("onnx", "tflite", "openvino", "sparse")
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(
    "export", cls=ProgramWithParts, parts={"tcl": "export_tcl"}, folder="export", asked_by={"--prompts": "tcl"}
)
@click.argument("checkpoint", metavar="CHECKPOINT|default", required=False)
@click.option("-m", "--model", metavar="CHECKPOINT", help="The same as the argument CHECKPOINT.")
@click.option("--target", metavar="BOARD", help="Choose format, precision and threads for a board (`edgekit boards`).")
@click.option("--format", "graph_format", type=click.Choice(FORMATS), help="sparse is for native.  [default: onnx]")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="sparse has no fp16.  [default: fp32]")
@click.option("--half", is_flag=True, help="The same as --precision fp16.")
@click.option("--int8", is_flag=True, help="The same as --precision int8.")
@click.option("--sparse", is_flag=True, help="Add sparse programs for native, beside the graphs of --format.")
@click.option(
    "--imgsz", "--input-size", "imgsz", metavar="N|HxW", help="Another input size, e.g. 640x1056.  [default: its own]"
)
@click.option("--compress-head", is_flag=True, help="PVANets: classify regions by a head in two halves (SVD).")
@click.option("--network", metavar="NAME", help="What a .caffemodel holds, e.g. pvanet-9.1-omg.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads on the board.  [default: 4]")
@click.option("--calib", type=FOLDER, metavar="DIR", help="Pictures, or a data set, that int8 ranges are measured on.")
@click.option("--calib-images", type=click.IntRange(min=1), metavar="N", help="At most so many.  [default: 200]")
@click.option("--data", type=FOLDER, metavar="DIR", help="Annotated data: AP50 on its val split before and after.")
@click.option("--max-drop", type=float, default=1.0, show_default=True, help="AP50 points that the export may cost.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Measure AP50 on N pictures of --data only.")
@click.option("--keep-float", metavar="worst:N|NAMES", default="", help="int8: layers to leave in float32.")
@click.option(
    "--golden",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PICTURE",
    help="Picture for the self-test; it travels in the bundle.  [default: one of --data or --calib, else a drawing]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT.edgekit", help="The bundle to write.")
@click.option("--zip", "zipped", is_flag=True, help="Write one file instead of a folder.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def main(
    checkpoint: str | None,
    model: str | None,
    target: str | None,
    graph_format: str | None,
    precision: str | None,
    half: bool,
    int8: bool,
    sparse: bool,
    imgsz: str | None,
    compress_head: bool,
    network: str | None,
    threads: int | None,
    calib: Path | None,
    calib_images: int | None,
    data: Path | None,
    max_drop: float,
    limit: int | None,
    keep_float: str,
    golden: Path | None,
    output: Path | None,
    zipped: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert CHECKPOINT, a `.pt` file of `edgekit train`, `default` or a PVANet's `.caffemodel`, into a bundle.

    \b
    edgekit export runs/x/best.pt --target raspberry-pi-4 --data voc07 -o x.edgekit
    edgekit export default --target jetson
    edgekit export default --format tflite --sparse
    edgekit export runs/x/best.pt --format openvino --int8 --calib photos/ --keep-float worst:3
    edgekit export original.caffemodel --network pvanet-9.1-omg --imgsz 640x1056 --compress-head --data voc07

    The gate: the converted model runs beside the PyTorch one through the whole pipeline, and boxes, scores, masks and
    raw outputs must agree within the precision's limits; with --data, AP50 may drop by --max-drop points at most.
    Otherwise nothing is written, the worst layers are named, and the exit code is 5; --keep-float worst:N leaves the
    N worst in float32.

    A TCL model, which segments by words, has options of its own: `edgekit export tcl --help`.

    With --sparse the bundle also carries sparse programs, whose time follows the active cells, for the native engine
    and for that of --format (`--engine tflite-sparse`). They pass the same gate; `edgekit bench sparse` tells the
    bundle above which share of active cells the dense graphs are faster here. --format sparse writes programs alone.

    int8 needs at least 100 pictures: of --calib, or else of the train split of --data. Where a board prefers int8
    and neither is given, it gets fp16, with a warning: `edgekit export default --target X` needs no pictures.
    """
    from edgekit.boards import load_board
    from edgekit.exporters.build import export_bundle, reference_pipeline
    from edgekit.exporters.evidence import (
        CALIBRATION_IMAGES,
        Evidence,
        calibration_samples,
        golden_picture,
        open_calibration,
        open_validation,
    )
    from edgekit.exporters.gate import PARITY_IMAGES
    from edgekit.exporters.pictures import mask_finder
    from edgekit.exporters.plan import one_precision, plan_export
    from edgekit.exporters.sensitivity import KeepFloat
    from edgekit.models.derived import at_size, compressed, open_checkpoint, parse_size
    from edgekit.profiling.machine import available_threads

    # 1. what to make
    name = _the_model(checkpoint, model)
    path = _checkpoint_path(name)
    keep = KeepFloat.parse(keep_float)
    plan = plan_export(
        load_board(target) if target else None,
        graph_format=graph_format,
        precision=one_precision(precision, half=half, int8=int8),
        threads=threads,
        sparse=sparse,
        calibrated=calib is not None or data is not None,
    )
    if plan.uncalibrated:
        log.warning(
            "%s is fastest in int8, which needs pictures to calibrate on; without any it gets %s."
            " For int8 add --calib DIR or --data DIR",
            plan.target,
            plan.precision,
        )
    if data is None:
        log.warning(
            "accuracy is not measured, because no annotated --data was given: only parity with PyTorch is checked,"
            " and the bundle says so"
        )
    loaded, original = open_checkpoint(path, network), None
    if imgsz is not None:
        height, width = parse_size(imgsz)
        loaded = at_size(loaded, height=height, width=width)
    if compress_head:
        loaded, original = compressed(loaded), loaded

    # 2. what to measure it with
    calibration = None
    if plan.precision == "int8":
        reference = reference_pipeline(loaded, threads=available_threads())
        count = CALIBRATION_IMAGES if calib_images is None else calib_images
        calibration = open_calibration(calib, data, loaded.spec, count, mask_finder(reference))
    evidence = Evidence(
        calibration=calibration,
        pictures=() if calib is None or calibration is not None else calibration_samples(calib, PARITY_IMAGES),
        dataset=None if data is None else open_validation(data, loaded.spec.classes, limit),
        max_drop=max_drop,
        golden=golden_picture(golden, name, loaded.spec, pictures_follow=data is not None or calib is not None),
    )

    # 3. convert, measure, write
    destination = output or Path(
        f"{_base_name(name, path)}-{plan.target or plan.graph_format}-{plan.precision}.edgekit"
    )
    result = export_bundle(
        loaded,
        plan,
        destination,
        evidence=evidence,
        keep_float=keep,
        overwrite=overwrite,
        zipped=zipped,
        original=original,
        progress=_progress if sys.stderr.isatty() else None,
    )
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        click.echo("\n".join(result.lines()))


def _the_model(checkpoint: str | None, model: str | None) -> str:
    if (checkpoint is None) == (model is None):
        raise UsageError("name one checkpoint to export, for example: edgekit export runs/x/best.pt --target desktop")
    return checkpoint or model or ""


def _checkpoint_path(name: str) -> Path:
    if name == "default":
        from edgekit.models.default import default_checkpoint

        return default_checkpoint()
    path = Path(name)
    if path.is_dir() or path.suffix == ".edgekit":
        raise UsageError(f"{path} is no checkpoint: expected a .pt file of `edgekit train`, a .caffemodel, or default")
    return path


def _base_name(name: str, path: Path) -> str:
    """``best.pt`` and ``last.pt`` say nothing; the run that they belong to does."""
    if name == "default":
        return name
    return path.resolve().parent.name if path.stem in ("best", "last") else path.stem


def _progress(what: str, done: int, total: int) -> None:
    click.echo(f"\r{what} {done}/{total} ", nl=done == total, err=True)


if __name__ == "__main__":
    main()
