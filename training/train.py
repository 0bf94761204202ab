"""Train a masked detector: ``edgekit train MODEL --data DIR -o runs/x``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli import ProgramWithParts


@click.command("train", cls=ProgramWithParts, parts={"tcl": "train_tcl"}, folder="training")
@click.argument("model")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="A VOCdevkit year, or images/ with annotations/instances_{train,val}.json.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("runs/train"),
    show_default=True,
    help="Folder for checkpoints, log and plots.",
)
@click.option("--recipe", type=click.Path(path_type=Path), help="TOML settings [default: training/recipes/MODEL.toml].")
@click.option(
    "--weights",
    default="default",
    show_default=True,
    metavar="FILE|default|none",
    help="Start from a checkpoint .pt, pretrained.pth of `edgekit pretrain`, an ImageNet MobileNetV2 .tflite, a "
    "published PVANet .caffemodel, a published Sparse DETR or ResNet-50 .pth, the shipped detector (other models take "
    "its mask network, DETRs on MobileNetV2 its trunk too), or random weights.",
)
@click.option("--resume", is_flag=True, help="Go on from OUTPUT/last.pt, exactly where it was saved.")
@click.option("--epochs", type=int, help="Passes over the training pictures.")
@click.option("--batch-size", "--batch", "batch_size", type=int, help="Pictures in a step, over all processes.")
@click.option(
    "--imgsz", "--input-size", "imgsz", type=int, help="One input size for all epochs, instead of the recipe's sizes."
)
@click.option("--width-multiplier", type=float, help="Channels of a PVANet over those of the published network.")
@click.option(
    "--token-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the tokens that a DETR's encoder refines; 1 is a dense encoder.",
)
@click.option("--learning-rate", "--lr", "learning_rate", type=float, help="Peak learning rate.")
@click.option("--optimiser", type=click.Choice(["adamw", "sgd"]))
@click.option("--schedule", type=click.Choice(["cosine", "steps", "plateau", "plateau-loss"]))
@click.option(
    "--parts",
    type=click.Choice(["both", "omg", "detector", "head"]),
    help="Which networks learn, e.g. only the mask network (omg) for a new camera, or only a PVANet's RoI head.",
)
@click.option(
    "--masks",
    type=click.Choice(["joint", "apart"]),
    help="Whether the detector trains under the objectness network's masks.",
)
@click.option(
    "--teacher",
    metavar="FILE.param",
    help="A YOLOX in ncnn's format; both networks learn to predict its features, which helps when pictures are few.",
)
@click.option(
    "--label-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the training pictures to learn from, e.g. 0.1; the seed says which.",
)
@click.option("--footage", metavar="DIR", help="Labelled frames of fixed cameras, shown among the pictures of --data.")
@click.option("--cutouts", metavar="DIR", help="A COCO data set with outlines; its objects are pasted into --footage.")
@click.option("--seed", type=int)
@click.option("--workers", type=int, help="Processes that read pictures.")
@click.option("--evaluate-every", type=int, help="Epochs between evaluations.")
@click.option("--early-stop", type=int, help="Stop after this many evaluations without a better AP50; 0 never.")
@click.option("--amp/--no-amp", default=None, help="Mixed precision on a GPU.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=int, help="CPU threads of this process.")
@click.option("--limit", type=int, help="Use only the first N pictures of each split (to try things out).")
@click.option("--json", "as_json", is_flag=True, help="Print the final scores as JSON.")
def main(
    model: str,
    data: Path,
    output: Path,
    recipe: Path | None,
    weights: str,
    resume: bool,
    imgsz: int | None,
    device: str,
    threads: int | None,
    limit: int | None,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train MODEL (see `edgekit models`) on a data set.

    The same command runs under torchrun with many processes and gives the same result. `edgekit train tcl --help`
    explains how text-grounded segmentation is trained.
    """
    from edgekit.learning.config import load_config
    from edgekit.learning.distributed import rank
    from edgekit.learning.journal import report
    from edgekit.learning.start import open_run
    from edgekit.programs import find_folder

    if recipe is None:
        shipped = find_folder("training") / "recipes" / f"{model}.toml"
        recipe = shipped if shipped.is_file() else None
    if imgsz is not None:
        overrides |= {"sizes": ((0.0, imgsz),), "multi_scale": ()}
    config = load_config(recipe, {"model": model, **overrides})
    run = open_run(
        config, data=data, output=output, weights=weights, resume=resume, device=device, threads=threads, limit=limit
    )
    with run:
        while run.epoch < config.epochs and not run.stopped_early:
            run.start_epoch()
            for batch in run.batches():
                losses = run.forward(batch)
                run.step(losses)
            run.finish_epoch()
            if run.evaluation_due():
                run.evaluate()
            else:
                run.follow_masks()
            run.save()
        scores, first = run.finish(), rank() == 0
    if first:
        click.echo(report(scores, as_json=as_json))


if __name__ == "__main__":
    main()
