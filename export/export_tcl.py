"""Convert a TCL checkpoint into a bundle that segments by words: ``edgekit export tcl.pt --prompts "person, car"``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

from edgekit.cli import Program

log = logging.getLogger("edgekit")

FORMATS = ("onnx", "tflite", "openvino")
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("tcl", cls=Program)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--prompts", metavar="NAMES|FILE.json", required=True, help="'person, red car', or a file of such.")
@click.option("--target", metavar="BOARD", help="Choose format, precision and threads for a board (`edgekit boards`).")
@click.option("--format", "graph_format", type=click.Choice(FORMATS), help="[default: the board's, or onnx]")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="[default: the board's, or fp32]")
@click.option("--half", is_flag=True, help="The same as --precision fp16.")
@click.option("--int8", is_flag=True, help="The same as --precision int8.")
@click.option("--imgsz", "--input-size", "imgsz", metavar="N|HxW", help="Input size.  [default: for 4:3]")
@click.option("--clip", type=click.Path(path_type=Path), help="CLIP's ViT-B-16.pt, for the published tcl.pth.")
@click.option("--templates", help="Sentences that names are put into: custom, photo or none  [default: the model's]")
@click.option("--pamr/--no-pamr", default=None, help="Refine masks along colours  [default: the model's]")
@click.option("--background", type=click.FloatRange(0, 1), help="Score from which a name wins  [default: the model's]")
@click.option("--clip-share", type=click.FloatRange(0, 1), help="Part of the encoder's own map  [default: the model's]")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads on the board.  [default: 4]")
@click.option("--calib", type=FOLDER, metavar="DIR", help="Pictures that int8 ranges are measured on.")
@click.option("--calib-images", type=click.IntRange(min=1), metavar="N", help="At most so many.  [default: 200]")
@click.option("--data", type=FOLDER, metavar="DIR", help="Pictures with masks: mIoU on the val split before and after.")
@click.option("--protocol", default="voc", show_default=True, help="Whose classes --data has, as in `edgekit val tcl`.")
@click.option("--max-drop", type=float, default=1.0, show_default=True, help="mIoU points that the export may cost.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Measure mIoU on N pictures of --data only.")
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
    checkpoint: Path,
    prompts: str,
    target: str | None,
    graph_format: str | None,
    precision: str | None,
    half: bool,
    int8: bool,
    imgsz: str | None,
    clip: Path | None,
    templates: str | None,
    pamr: bool | None,
    background: float | None,
    clip_share: float | None,
    threads: int | None,
    calib: Path | None,
    calib_images: int | None,
    data: Path | None,
    protocol: str,
    max_drop: float,
    limit: int | None,
    keep_float: str,
    golden: Path | None,
    output: Path | None,
    zipped: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert CHECKPOINT, of `edgekit train tcl` or the published tcl.pth with --clip, into a bundle.

    \b
    edgekit export tcl.pt --prompts "person, red car" --target raspberry-pi-5 -o words.edgekit
    edgekit export tcl.pt --prompts "person, car" --format tflite --int8 --calib photos/ --data voc07
    edgekit export tcl.pt --prompts words.json --imgsz 304x224 --format openvino

    The graph sees and the prompts stay outside it, in a file: `edgekit prompts` makes others, for the same bundle.
    Pictures fill the input of --imgsz, stretched by up to 4/3, as in training; give an upright camera its own, 304x224.

    The gate: label maps of the converted model must agree with PyTorch's (mean IoU of .99, of .75 in int8),
    and with --data, whose class names are the prompts then, mIoU may drop by --max-drop points at most. If not,
    nothing is written, the worst layers are named, and the exit code is 5. int8 needs at least 100 pictures, of --calib
    or of the train split of --data.
    """
    from edgekit.boards import load_board
    from edgekit.exporters.pictures import read_picture
    from edgekit.exporters.plan import one_precision, plan_export
    from edgekit.exporters.sensitivity import KeepFloat
    from edgekit.exporters.tcl_build import export_segmenter
    from edgekit.exporters.tcl_evidence import collect_evidence
    from edgekit.exporters.tcl_onnx import default_size, segmenter_spec
    from edgekit.models.derived import parse_size
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.prompts import prompts_from
    from edgekit.models.tcl.segmenter import changed, options_for

    # 1. what to make
    keep = KeepFloat.parse(keep_float)
    plan = plan_export(
        load_board(target) if target else None,
        graph_format=graph_format,
        precision=one_precision(precision, half=half, int8=int8),
        threads=threads,
        calibrated=calib is not None or data is not None,
    )
    if plan.uncalibrated:
        log.warning(
            "%s is fastest in int8, which needs pictures to calibrate on; without any it gets %s."
            " For int8 add --calib DIR or --data DIR",
            plan.target,
            plan.precision,
        )
    loaded = load_tcl(checkpoint, clip=clip)
    options = changed(
        options_for(loaded.model), templates=templates, pamr=pamr, background=background, clip_share=clip_share
    )
    height, width = default_size(loaded.model, options) if imgsz is None else parse_size(imgsz)
    spec = segmenter_spec(loaded.model, options, height=height, width=width)
    wanted = prompts_from(prompts, loaded.model, templates=options.templates)

    # 2. what to measure it with
    if data is None:
        log.warning(
            "accuracy is not measured, because no --data with masks was given: only agreement with PyTorch is checked,"
            " and the bundle says so"
        )
    evidence = collect_evidence(
        loaded.model,
        spec,
        calibrated=plan.precision == "int8",
        calib=calib,
        images=calib_images,
        data=data,
        protocol=protocol,
        limit=limit,
        max_drop=max_drop,
        golden=None if golden is None else read_picture(golden),
    )

    # 3. convert, measure, write
    base = checkpoint.resolve().parent.name if checkpoint.stem in ("best", "last") else checkpoint.stem
    result = export_segmenter(
        loaded,
        spec,
        wanted,
        plan,
        output or Path(f"{base}-{plan.target or plan.graph_format}-{plan.precision}.edgekit"),
        evidence=evidence,
        keep_float=keep,
        overwrite=overwrite,
        zipped=zipped,
        progress=_progress if sys.stderr.isatty() else None,
    )
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else "\n".join(result.lines()))


def _progress(what: str, done: int, total: int) -> None:
    click.echo(f"\r{what} {done}/{total} ", nl=done == total, err=True)


if __name__ == "__main__":
    main()
