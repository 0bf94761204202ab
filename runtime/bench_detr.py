"""Sparse DETR by the share of tokens that its encoder refines: ``edgekit bench sparse-detr``.

The networks of one engine take turns in one process, so that the machine's moods meet all of them alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekit.cli import Program

ENGINES = ("torch", "onnxruntime", "openvino", "tflite")

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Those of the paper."""


@click.command(cls=Program)
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--variant", type=click.Choice(["r50", "mobilenetv2"]), help="Without CHECKPOINT.  [default: r50]")
@click.option("--imgsz", metavar="HxW", help="Without CHECKPOINT.  [default: 800x1066, of mobilenetv2 320x320]")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Measure AP50 of CHECKPOINT on its val.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N pictures of --data.")
@click.option(
    "--share", "shares", multiple=True, type=click.FloatRange(0, 1, min_open=True), default=SHARES, show_default=True,
    help="Of tokens; may be repeated. A dense encoder is always measured.",
)  # fmt: skip
@click.option(
    "--engine", "engines", multiple=True, type=click.Choice(ENGINES), default=ENGINES, show_default=True,
    help="May be repeated.",
)  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--iterations", type=click.IntRange(min=1), default=5, show_default=True, help="Runs that count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    checkpoint: Path | None,
    variant: str | None,
    imgsz: str | None,
    data: Path | None,
    limit: int | None,
    shares: tuple[float, ...],
    engines: tuple[str, ...],
    precision: Any,
    threads: int,
    iterations: int,
    as_json: bool,
) -> None:
    """Time Sparse DETR (arXiv 2111.14330) by the share of tokens that its encoder refines, against a dense encoder.

    Of CHECKPOINT, of which any share can be asked, or with random weights: the time does not depend on them. "Whole"
    goes from a normalised picture to classes and boxes; "encoder" from tokens to tokens, with the network that scores
    them. Torch runs the same static network that the other engines get. GMACs count as in the paper: products, and
    norms and samples a little. AP50 is PyTorch's.
    """
    from edgekit.profiling.detr_bench import detr_lines, measure_detr, sides_of
    from edgekit.profiling.detr_subjects import random_subject, trained_subject

    if checkpoint is not None and (variant or imgsz):
        raise click.UsageError("a CHECKPOINT says itself what it is: leave out --variant and --imgsz")
    if checkpoint is None and (data or limit):
        raise click.UsageError("--data and --limit are for a trained network: name its CHECKPOINT")
    if checkpoint is None:
        variant = variant or "r50"
        height, width = sides_of(imgsz or ("800x1066" if variant == "r50" else "320x320"))
        subject = random_subject(variant, height=height, width=width)
    else:
        subject = trained_subject(checkpoint, data, limit=limit, threads=threads)
    document = measure_detr(
        subject,
        shares=shares,
        engines=engines,
        threads=threads,
        iterations=iterations,
        precision=precision,
    )
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(detr_lines(document)))


if __name__ == "__main__":
    main()
