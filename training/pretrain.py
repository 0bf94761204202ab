"""Pretrain a backbone without labels: ``edgekit pretrain BACKBONE --data FOLDER -o runs/pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli import Program


@click.command("pretrain", cls=Program)
@click.argument("backbone")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="Pictures: a folder of pictures or videos, a video, a glob, a folder of one folder a class, or a data set of "
    "`edgekit train`, of which the labels are left alone. May be given several times.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("runs/pretrain"),
    show_default=True,
    help="Folder for checkpoints, log, curves and frames of videos.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="TOML settings [default: training/recipes/pretrain/BACKBONE.toml].",
)
@click.option(
    "--method",
    type=click.Choice(["scrl", "byol"]),
    help="SCRL compares boxes that two views share, BYOL whole views.",
)
@click.option(
    "--weights",
    default="none",
    show_default=True,
    metavar="FILE|none",
    help="Go on from a pretraining: pretrained.pth of a run, or a published one of SCRL for resnet50.",
)
@click.option("--resume", is_flag=True, help="Go on from OUTPUT/last.pt, exactly where it was saved.")
@click.option("--epochs", type=int, help="Passes over the pictures.")
@click.option("--batch-size", "--batch", "batch_size", type=int, help="Pictures in a step, over all processes.")
@click.option("--imgsz", "--input-size", "input_size", type=int, help="Side of the views, a multiple of 32.")
@click.option("--width-multiplier", type=float, help="Channels of a PVANet over those of the published network.")
@click.option("--optimiser", type=click.Choice(["lars", "sgd", "adamw"]))
@click.option(
    "--published-quirks/--no-published-quirks",
    default=None,
    help="LARS: with or without the two mistakes that the published results were reached with.",
)
@click.option("--learning-rate", "--lr", "learning_rate", type=float, help="Peak, for 256 pictures in a step.")
@click.option("--warmup-epochs", type=float, help="Epochs in which the rate rises.")
@click.option("--target-momentum", type=float, help="How slowly the target follows at the start, 0 to 1.")
@click.option("--frame-interval", "frame_interval_s", type=float, help="Seconds between the frames taken of a video.")
@click.option("--seed", type=int)
@click.option("--workers", type=int, help="Processes that read pictures.")
@click.option("--evaluate-every", type=int, help="Epochs between evaluations of the linear probe.")
@click.option("--amp/--no-amp", default=None, help="Mixed precision on a GPU.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=int, help="CPU threads of this process.")
@click.option("--limit", type=int, help="Use only the first N pictures (to try things out).")
@click.option("--json", "as_json", is_flag=True, help="Print the final figures as JSON.")
def main(
    backbone: str,
    data: tuple[Path, ...],
    output: Path,
    recipe: Path | None,
    weights: str,
    resume: bool,
    device: str,
    threads: int | None,
    limit: int | None,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Teach BACKBONE to see, from pictures without labels (SCRL, arXiv 2103.06122; or BYOL).

    BACKBONE is mobilenetv2, resnet50, pvanet-9.0, pvanet-9.1 or pvanet-lite. A detector on it then starts from the
    result: edgekit train MODEL --weights OUTPUT/pretrained.pth. The same command runs under torchrun with many
    processes and gives the same result.
    """
    from edgekit.learning.distributed import rank
    from edgekit.learning.journal import report
    from edgekit.pretraining.backbones import find_backbone
    from edgekit.pretraining.config import load_pretrain_config
    from edgekit.pretraining.start import open_pretraining
    from edgekit.programs import find_folder

    find_backbone(backbone)
    if recipe is None:
        shipped = find_folder("training") / "recipes" / "pretrain" / f"{backbone}.toml"
        recipe = shipped if shipped.is_file() else None
    config = load_pretrain_config(recipe, {"backbone": backbone, **overrides})
    run = open_pretraining(
        config, data=data, output=output, weights=weights, resume=resume, device=device, threads=threads, limit=limit
    )
    with run:
        while run.epoch < run.config.epochs:
            run.start_epoch()
            for batch in run.batches():
                losses = run.forward(batch)
                run.step(losses)
            run.finish_epoch()
            if run.evaluation_due():
                run.evaluate()
            run.save()
        figures, first = run.finish(), rank() == 0
    if first:
        click.echo(report(figures, as_json=as_json))


if __name__ == "__main__":
    main()
