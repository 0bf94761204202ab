"""Train text-grounded segmentation: ``edgekit train tcl --data PAIRS -o runs/x`` (arXiv 2212.00785)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli import Program


@click.command("tcl", cls=Program)
@click.option(
    "--data", multiple=True, required=True, metavar="PAIRS",
    help="Pictures with captions; may be repeated. A COCO data set or captions .json, a folder of pictures with .txt "
    "files, .tar shards (webdataset), or classes:DIR, which makes captions of the classes of labelled pictures.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("runs/tcl"), show_default=True,
    help="Folder for checkpoints, log and plots.",
)  # fmt: skip
@click.option("--model", default="tcl-mobilenetv2", show_default=True, help="tcl-mobilenetv2 or tcl-vit-b16.")
@click.option("--recipe", type=click.Path(path_type=Path), help="TOML settings  [default: the model's]")
@click.option(
    "--weights", metavar="FILE|none",
    help="What encoders start from: an ImageNet MobileNetV2 .tflite; for tcl-vit-b16 CLIP's ViT-B-16.pt; or a TCL "
    "checkpoint; none is random weights.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from OUTPUT/last.pt, exactly where it was saved.")
@click.option("--val", "validation", type=click.Path(path_type=Path), help="Pictures with masks, to evaluate on.")
@click.option("--protocol", default="voc", show_default=True, help="What their masks number; see edgekit val tcl.")
@click.option("--split", default="val", show_default=True, help="Which part of them.")
@click.option("--align-steps", type=int, help="Steps in which a small model's encoders learn to meet.")
@click.option("--steps", type=int, help="Steps after those.")
@click.option("--decoder-steps", type=int, help="So many of them in which only the decoder learns.")
@click.option("--batch-size", "--batch", "batch_size", type=int, help="Pairs in a step, over all processes.")
@click.option("--learning-rate", "--lr", "learning_rate", type=float, help="Peak, for 4096 pairs in a step.")
@click.option("--align-rate", type=float, help="Peak in the steps of --align-steps.")
@click.option("--evaluate-every", type=int, help="Steps between evaluations.")
@click.option("--log-every", type=int, help="Steps in a row of the log.")
@click.option("--seed", type=int)
@click.option("--workers", type=int, help="Processes that read pictures.")
@click.option("--amp/--no-amp", default=None, help="bfloat16 on a GPU that has it.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=int, help="CPU threads of this process.")
@click.option("--limit", type=int, help="Use only the first N pairs, and the first N pictures of --val.")
@click.option("--json", "as_json", is_flag=True, help="Print the final scores as JSON.")
def main(
    data: tuple[str, ...],
    output: Path,
    model: str,
    recipe: Path | None,
    weights: str | None,
    resume: bool,
    validation: Path | None,
    protocol: str,
    split: str,
    device: str,
    threads: int | None,
    limit: int | None,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train a TCL model, which segments pictures by any words, from pictures with captions alone.

    Without CLIP, a small model's encoders first learn to meet (--align-steps); then its masker learns, from the
    contrast of masked pictures with all texts of a batch. The same command runs under torchrun.
    """
    from edgekit.learning.journal import report
    from edgekit.learning.tcl_config import load_tcl_config
    from edgekit.learning.tcl_start import open_tcl_run
    from edgekit.programs import find_folder

    if recipe is None:
        shipped = find_folder("training") / "recipes" / "tcl" / f"{model}.toml"
        recipe = shipped if shipped.is_file() else None
    config = load_tcl_config(recipe, {"model": model, **overrides})
    run = open_tcl_run(
        config, data=data, output=output, weights=weights, resume=resume, validation=validation, protocol=protocol,
        split=split, device=device, threads=threads, limit=limit,
    )  # fmt: skip
    with run:
        for batch in run.batches():
            losses = run.forward(batch)
            run.step(losses)
            if run.evaluation_due():
                run.evaluate()
        scores = run.finish()
    if run.journal.talks:
        click.echo(report(scores, as_json=as_json))


if __name__ == "__main__":
    main()
