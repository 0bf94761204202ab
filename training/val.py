"""Measure a detector on labelled pictures: ``edgekit val BUNDLE|CHECKPOINT|default --data DIR``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import ProgramWithParts, Share

if TYPE_CHECKING:
    from edgekit.metrics.evaluation import Evaluation
    from edgekit.metrics.zeros import ActivationStatistics
    from edgekit.pipeline import Pipeline


@click.command("val", cls=ProgramWithParts, parts={"tcl": "val_tcl"}, folder="training")
@click.argument("model", metavar="BUNDLE|CHECKPOINT|default")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="A VOCdevkit year, images/ with annotations/instances_{train,val}.json, or one instances.json.",
)
@click.option("--split", default="val", show_default=True, help="Which part of the data.")
@click.option(
    "--engine", default="auto", show_default=True,
    help="native, tflite, openvino, onnxruntime, tflite-sparse and so on, or torch.",
)  # fmt: skip
@click.option(
    "--mask", default="omg", show_default=True, help="omg, off, tracks, truth, tcl(WORDS.edgekit), FILE.json, a|b, a&b."
)
@click.option(
    "--mask-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Keep a mask for up to N frames, for frames of one camera in order.",
)  # fmt: skip
@click.option(
    "--mask-hold", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Keep a cell active for N more frames of one camera.",
)  # fmt: skip
@click.option("--budget", type=Share(), metavar="SHARE", help="Most cells to look at, 0.3 or 30%: the likeliest.")
@click.option(
    "--conf", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Lowest score of a detection."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N pictures.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads [default: the bundle's, or 1].")
@click.option(
    "--class-map",
    multiple=True,
    metavar="OLD=NEW,...",
    help="Rename classes of the data to the model's; an empty NEW drops their boxes.",
)
@click.option("--compare-off/--no-compare-off", default=True, show_default=True, help="Measure without a mask too.")
@click.option("--zeros", is_flag=True, help="Count zero activations and non-zero MACs by layer (checkpoints only).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; shares and precisions are 0..1.")
def main(
    model: str,
    data: Path,
    split: str,
    engine: str,
    mask: str,
    mask_every: int,
    mask_hold: int,
    budget: float | None,
    conf: float,
    limit: int | None,
    threads: int | None,
    class_map: tuple[str, ...],
    compare_off: bool,
    zeros: bool,
    as_json: bool,
) -> None:
    """Measure accuracy, masks and MACs of a checkpoint or a bundle on labelled pictures.

    The pictures take the same way as in `edgekit run`. AP50 and mAP come from pycocotools, VOC's difficult boxes being
    ignored. Mask recall is the share of boxes that keep 70 % of their area active. MACs are multiply-adds of
    convolutions: dense is the detector without a mask, executed is what remains at active sites, with the mask network.
    """
    from edgekit.data.class_map import parse_class_map
    from edgekit.data.datasets import open_dataset
    from edgekit.masks.reuse import video_mask
    from edgekit.metrics.detection import require_pycocotools
    from edgekit.metrics.evaluation import Evaluator
    from edgekit.metrics.layers import layer_table
    from edgekit.pipeline import open_pipeline, resolve_model

    mapping = parse_class_map(class_map)
    require_pycocotools()
    path = resolve_model(model, engine=engine)
    pipeline = open_pipeline(path, engine=engine, mask=mask, threads=threads)
    dataset = open_dataset(data, split, pipeline.classes, class_map=mapping)
    dataset = replace(dataset, samples=dataset.samples[:limit])
    layers = layer_table(path)
    masks = [mask, "off"] if compare_off and mask != "off" else [mask]
    counters: list[ActivationStatistics | None] = [None, None]
    if zeros:
        pipeline, counters = _with_counters(path, pipeline, threads or 1)
    sources = {text: pipeline.with_mask(text).mask_source for text in masks}
    sources[mask] = video_mask(mask, pipeline.spec, every=mask_every, hold=mask_hold, budget=budget)
    evaluators = {
        text: Evaluator(pipeline.with_mask(source), layers, score_threshold=conf, zeros=counter)
        for (text, source), counter in zip(sources.items(), counters, strict=False)
    }
    # 1. every picture is decoded once and goes through each pipeline
    with click.progressbar(dataset.samples, file=sys.stderr, hidden=not sys.stderr.isatty()) as samples:
        for sample in samples:
            image = sample.read()
            for evaluator in evaluators.values():
                evaluator.add(sample, image)
    # 2. count
    evaluations = {text: evaluator.result(dataset) for text, evaluator in evaluators.items()}
    first = evaluations[mask]
    head: dict[str, Any] = {
        "model": model,
        "data": dataset.name,
        "images": len(dataset),
        "objects": first.detection.objects,
        "ignored": first.detection.ignored,
        "engine": pipeline.engine_name,
        "mask": mask,
    }
    # 3. print
    if not as_json:
        _print_tables(head, evaluations)
        return
    document = {**head, **first.to_json()}
    if len(evaluations) > 1:
        document["mask_off"] = evaluations["off"].to_json()
    click.echo(json.dumps(document, indent=2))


def _with_counters(path: Path, pipeline: Pipeline, threads: int) -> tuple[Pipeline, list[ActivationStatistics | None]]:
    """The pipeline on a model that two counters watch, one for each mask."""
    from edgekit.errors import UsageError
    from edgekit.pipeline import Pipeline, is_checkpoint

    if not is_checkpoint(path):
        raise UsageError(
            f"--zeros looks inside the PyTorch model, and {path} is a bundle, whose engine shows only its outputs.\n"
            "Give it the checkpoint, or for the default model: edgekit val default --engine torch --zeros ..."
        )
    from edgekit.backends.torch import load_pair
    from edgekit.metrics.zeros import ActivationStatistics
    from edgekit.models.checkpoint import load_checkpoint

    watched = load_checkpoint(path).model
    if watched.spec.kind != "one_stage":
        raise UsageError(f"--zeros counts what one-stage detectors compute, and {path} is a {watched.spec.model}")
    omg, detector = load_pair(watched, threads=threads)
    counters: list[ActivationStatistics | None] = [ActivationStatistics(watched), ActivationStatistics(watched)]
    return Pipeline(pipeline.spec, omg, detector, pipeline.mask_source), counters


def _print_tables(head: dict[str, Any], evaluations: dict[str, Evaluation]) -> None:
    click.echo(
        f"{head['model']} on {head['data']}: {head['images']} images, {head['objects']} objects"
        f" ({head['ignored']} ignored), {head['engine']}\n"
    )
    documents = {f"mask {mask}": evaluation.to_json() for mask, evaluation in evaluations.items()}
    columns = list(documents.values())
    _print_row("", [f"{title:>14}" for title in documents])
    for label, key in (("AP50", "ap50"), ("mAP .50:.95", "map"), ("active share", "active_share")):
        _print_row(label, [_percent(column[key]) for column in columns])
    _print_row("mask recall", [_percent(column["mask_recall"]) for column in columns])
    _print_row("dense MMAC", [_millions(column["macs"]) for column in columns])
    _print_row("executed MMAC", [_millions(column["macs_executed"]) for column in columns])
    if "zeros" in columns[0]:
        _print_row("non-zero MMAC", [_millions(column["zeros"]["macs_nonzero"]) for column in columns])
        _print_row("zero activations", [_percent(column["zeros"]["zero_share"]) for column in columns])
    click.echo("\nAP50 by class")
    for name in columns[0]["ap50_per_class"]:
        _print_row(name, [_percent(column["ap50_per_class"][name]) for column in columns])
    if "zeros" in columns[0]:
        click.echo("\nzero share of each convolution's input")
        by_name = [{layer["name"]: layer["zero_share"] for layer in column["zeros"]["layers"]} for column in columns]
        for name in by_name[0]:
            _print_row(name, [_percent(column[name]) if name in column else f"{'-':>14}" for column in by_name], 48)


def _print_row(label: str, cells: list[str], width: int = 20) -> None:
    click.echo(f"{label:<{width}}" + "".join(cells))


def _percent(value: float) -> str:
    return f"{100 * value:>12.2f} %"


def _millions(value: float) -> str:
    return f"{value / 1e6:>14.1f}"


if __name__ == "__main__":
    main()
