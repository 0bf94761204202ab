"""Measure text-grounded segmentation on pictures with masks: ``edgekit val tcl CHECKPOINT --data DIR``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgekit.cli import Program


@click.command("tcl", cls=Program)
@click.argument("checkpoint", type=click.Path(path_type=Path))
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
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; shares are 0..1.")
def main(
    checkpoint: Path,
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
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a TCL model's masks by mean intersection over union (mIoU).

    The prompts are the data set's own class names. In protocols whose first class is the background, a pixel is of a
    class only where that scores more than the background. The baseline gives each picture wholly to one class, other
    than the background: that nearest to the picture's own embedding.
    """
    from edgekit.data.segmentation import open_segmentation
    from edgekit.metrics.segmentation import evaluate_segmentation, evaluate_whole_pictures
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.segmenter import Segmenter, options_for
    from edgekit.models.tcl.tokenizer import Tokenizer
    from edgekit.models.torch_threads import use_threads

    use_threads(threads)
    dataset = open_segmentation(data, protocol, split)
    dataset = replace(dataset, pictures=dataset.pictures[:limit])
    model = load_tcl(checkpoint, clip=clip).model
    given: dict[str, Any] = {"templates": templates, "pamr": pamr, "background": background, "clip_share": clip_share}
    options = replace(options_for(model), **{name: value for name, value in given.items() if value is not None})
    segmenter = Segmenter(model, dataset.classes, options, Tokenizer())
    passes = 2 if baseline else 1
    with click.progressbar(length=passes * len(dataset), file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        metrics = evaluate_segmentation(dataset, segmenter.segment, seen=lambda: bar.update(1))
        document: dict[str, Any] = {
            "model": str(checkpoint),
            "data": dataset.name,
            "images": len(dataset),
            "background": options.background_score if segmenter.with_background else None,
            **metrics.to_json(),
        }
        if baseline:
            whole = evaluate_whole_pictures(dataset, segmenter.whole, seen=lambda: bar.update(1))
            document["whole_pictures_miou"] = whole.miou
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    for name in ("data", "images", "miou", "pixel_accuracy", "whole_pictures_miou"):
        value = document.get(name)
        if value is not None:
            click.echo(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")
    for name, iou in document["iou_per_class"].items():
        click.echo(f"  {name:18} {'-' if iou is None else f'{iou:.4f}'}")


if __name__ == "__main__":
    main()
