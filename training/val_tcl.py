"""Measure text-grounded segmentation on pictures with masks: ``edgekit val tcl CHECKPOINT|BUNDLE --data DIR``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.data.segmentation import SegmentationDataset


@click.command("tcl", cls=Program)
@click.argument("model", metavar="CHECKPOINT|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), required=True,
    help="The data set in its published layout, or plain folders images/ and masks/.",
)  # fmt: skip
@click.option(
    "--protocol", default="voc", show_default=True,
    help="voc, context, coco-object (with a background), voc20, context59, coco-stuff, cityscapes or ade20k.",
)  # fmt: skip
@click.option("--split", default="val", show_default=True, help="Which part of the data.")
@click.option("--clip", type=click.Path(path_type=Path), help="CLIP's ViT-B-16.pt, for the published tcl.pth.")
@click.option("--templates", help="Sentences that names are put into: custom, photo or none  [default: the model's]")
@click.option("--pamr/--no-pamr", default=None, help="Refine masks along colours  [default: yes]")
@click.option("--background", type=click.FloatRange(0, 1), help="Score from which a name wins  [default: the model's]")
@click.option("--clip-share", type=click.FloatRange(0, 1), help="Part of the encoder's own map  [default: the model's]")
@click.option("--baseline/--no-baseline", default=True, show_default=True, help="Measure whole pictures of one class.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N pictures.")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE.json", help="Bundles: the classes' prompts.")
@click.option("--engine", default="auto", show_default=True, help="Bundles: onnxruntime, openvino or tflite.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; shares are 0..1.")
def main(
    model: Path,
    data: Path,
    protocol: str,
    split: str,
    clip: Path | None,
    templates: str | None,
    pamr: bool | None,
    background: float | None,
    clip_share: float | None,
    baseline: bool,
    limit: int | None,
    prompts: Path | None,
    engine: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a TCL model's masks by mean intersection over union (mIoU).

    The prompts are the data set's own class names; a bundle has no text encoder and takes their file, of
    `edgekit prompts CHECKPOINT --protocol voc`, unless it looks for them anyway. In protocols whose first class is the
    background, a pixel is of a class only where that scores more than the background. The baseline, for checkpoints,
    gives each picture wholly to one class, other than the background: that nearest to the picture's own embedding.
    """
    from edgekit.data.segmentation import open_segmentation
    from edgekit.pipeline import is_checkpoint

    dataset = open_segmentation(data, protocol, split)
    dataset = replace(dataset, pictures=dataset.pictures[:limit])
    given: dict[str, Any] = {"templates": templates, "clip_share": clip_share, "pamr": pamr, "background": background}
    if not (is_checkpoint(model) or model.suffix == ".pth"):
        _refuse(clip=clip, templates=templates, clip_share=clip_share)
        scored = _score_bundle(model, dataset, prompts, engine, threads, pamr=pamr, background=background)
    else:
        _refuse_for_checkpoints(prompts, engine)
        scored = _score_checkpoint(model, dataset, clip, threads, given, baseline=baseline)
    document: dict[str, Any] = {"model": str(model), "data": dataset.name, "images": len(dataset), **scored}
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    for name in ("data", "images", "engine", "miou", "pixel_accuracy", "whole_pictures_miou"):
        value = document.get(name)
        if value is not None:
            click.echo(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")
    for name, iou in document["iou_per_class"].items():
        click.echo(f"  {name:18} {'-' if iou is None else f'{iou:.4f}'}")


def _score_checkpoint(
    path: Path,
    dataset: SegmentationDataset,
    clip: Path | None,
    threads: int | None,
    given: dict[str, Any],
    *,
    baseline: bool,
) -> dict[str, Any]:
    from edgekit.metrics.segmentation import evaluate_segmentation, evaluate_whole_pictures
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.segmenter import Segmenter, changed, options_for
    from edgekit.models.tcl.tokenizer import Tokenizer
    from edgekit.models.torch_threads import use_threads

    use_threads(threads)
    model = load_tcl(path, clip=clip).model
    options = changed(options_for(model), **given)
    segmenter = Segmenter(model, dataset.classes, options, Tokenizer())
    with _bar(len(dataset) * (2 if baseline else 1)) as bar:
        metrics = evaluate_segmentation(dataset, segmenter.segment, seen=lambda: bar.update(1))
        whole = evaluate_whole_pictures(dataset, segmenter.whole, seen=lambda: bar.update(1)).miou if baseline else None
    background = options.background_score if segmenter.with_background else None
    known = {} if whole is None else {"whole_pictures_miou": whole}
    return {"background": background, **metrics.to_json(), **known}


def _score_bundle(
    path: Path,
    dataset: SegmentationDataset,
    prompts: Path | None,
    engine: str,
    threads: int | None,
    *,
    pamr: bool | None,
    background: float | None,
) -> dict[str, Any]:
    from edgekit.metrics.segmentation import evaluate_segmentation
    from edgekit.segmentation.of_dataset import looking_for, segment_with
    from edgekit.segmentation.pipeline import open_segmenter

    opened = open_segmenter(path, engine=engine, threads=threads, prompts=prompts)
    pipeline = looking_for(opened.with_options(pamr=pamr, background=background), dataset.classes, opened.prompts)
    with _bar(len(dataset)) as bar:
        segment = segment_with(pipeline, dataset.classes)
        metrics = evaluate_segmentation(dataset, segment, seen=lambda: bar.update(1))
    score = pipeline.spec.background
    return {"engine": pipeline.engine_name, "background": score or None, **metrics.to_json()}


def _bar(length: int) -> Any:
    return click.progressbar(length=length, file=sys.stderr, hidden=not sys.stderr.isatty())


def _refuse(**given: object) -> None:
    """Options that are in a bundle's graph or prompts already."""
    from edgekit.errors import UsageError

    if names := [name for name, value in given.items() if value is not None]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise UsageError(
            f"{options} cannot be changed in a bundle: its graph and prompts were made with it.\n"
            "Give it to edgekit export or edgekit prompts, or measure the checkpoint"
        )


def _refuse_for_checkpoints(prompts: Path | None, engine: str) -> None:
    from edgekit.errors import UsageError

    if prompts is not None or engine not in ("auto", "torch"):
        raise UsageError(
            "--prompts and --engine are for bundles: a checkpoint reads the names of classes itself, on torch.\n"
            'Make a bundle with: edgekit export CHECKPOINT --prompts "person, car" -o NAME.edgekit'
        )


if __name__ == "__main__":
    main()
