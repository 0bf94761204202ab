"""Sparse DETR by the share of tokens that its encoder refines: ``edgekit bench sparse-detr``.

The networks of one engine take turns in one process, so that the machine's moods meet all of them alike.
"""

from __future__ import annotations

import json
from typing import Any

import click

from edgekit.cli import Program

ENGINES = ("torch", "onnxruntime", "openvino", "tflite")

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Those of the paper."""


@click.command(cls=Program)
@click.option("--variant", type=click.Choice(["r50", "mobilenetv2"]), default="r50", show_default=True)
@click.option("--imgsz", metavar="HxW", help="Rows and columns.  [default: 800x1066, of mobilenetv2 320x320]")
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
    variant: str,
    imgsz: str | None,
    shares: tuple[float, ...],
    engines: tuple[str, ...],
    precision: Any,
    threads: int,
    iterations: int,
    as_json: bool,
) -> None:
    """Time Sparse DETR (arXiv 2111.14330) by the share of tokens that its encoder refines, against a dense encoder.

    Weights are random, and the time does not depend on them. "Whole" goes from a normalised picture to classes and
    boxes; "encoder" from tokens to tokens, with the network that scores them. Torch runs the same static network that
    the other engines get. GMACs count as in the paper: products, and norms and samples a little. Accuracy is measured
    by `edgekit val`.
    """
    from edgekit.profiling.detr_bench import detr_lines, measure_detr, sides_of

    height, width = sides_of(imgsz or ("800x1066" if variant == "r50" else "320x320"))
    document = measure_detr(
        variant,
        height=height,
        width=width,
        shares=shares,
        engines=engines,
        threads=threads,
        iterations=iterations,
        precision=precision,
    )
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(detr_lines(document)))


if __name__ == "__main__":
    main()
