"""Benchmarks of edgekit against the engines that it runs beside: ``edgekit bench sparse``, ``pvanet``, ``sparse-detr``.

Rivals take turns in one process, on the machine as it is; ratios between rows of one run are worth more than the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekit.cli import ProgramGroup, load_program

SHARES = (1.0, 0.57, 0.33, 0.16, 0.07)
"""From every cell to a fixed camera's."""

BUNDLE_SHARES = (1.0, 0.8, 0.57, 0.33, 0.16, 0.07)
"""One more where engines tend to cross."""


ENGINES = ("native", "openvino", "onnxruntime", "tflite")

PVANET_SHARES = (1.0, 0.57, 0.16)


@click.group(cls=ProgramGroup)
def main() -> None:
    """Measure edgekit against the engines that it runs beside."""


@main.command()
@click.argument("model", metavar="BUNDLE|CHECKPOINT|default", default="default")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: as the bundle says, or 1]")
@click.option(
    "--active", "shares", multiple=True, type=click.FloatRange(0, 1), metavar="SHARE",
    help="Share of active cells; may be repeated.  [default: 1 .57 .33 .16 .07, for a bundle also .8]",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["fp32", "int8"]),
    help="Of a checkpoint's graphs; may be repeated.  [default: both]",
)  # fmt: skip
@click.option(
    "--calib", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help="Pictures for int8; times do not depend on them.  [default: drawings]",
)  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), default=40, show_default=True, help="Runs that count.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
    help="Draw a bundle's times into a file, too.",
)  # fmt: skip
@click.option("--store/--no-store", default=True, show_default=True, help="Write the break-even into the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sparse(
    model: str,
    threads: int | None,
    shares: tuple[float, ...],
    precisions: tuple[str, ...],
    calib: Path | None,
    iterations: int,
    plot: Path | None,
    store: bool,
    as_json: bool,
) -> None:
    """Time the detector in the native engine and in every dense one, by the share of active cells.

    Each run goes from a letterboxed picture to raw heads. Masks are blobs of the size that objects have. Executed
    GMAC/s count the multiply-accumulates at active sites, which a dense engine does not know of: it is given all of
    its own. Dense-equivalent ones count the whole network whatever was skipped.

    A checkpoint is converted for each engine. A bundle of `edgekit export --sparse` is measured as it is, on the board
    that is to run it: the result is the break-even, the share of active cells above which its fastest dense engine
    beats the native one. The bundle keeps it, and `--engine auto` gives frames above it to that engine.
    """
    from edgekit.backends.of_bundle import default_threads
    from edgekit.bundle import open_bundle
    from edgekit.errors import UsageError
    from edgekit.pipeline import is_checkpoint, resolve_model
    from edgekit.profiling.break_even import find_break_even
    from edgekit.profiling.bundle_shares import measure_bundle
    from edgekit.profiling.checkpoint_shares import measure_checkpoint
    from edgekit.profiling.gemm import ceilings_gmacs
    from edgekit.profiling.machine import describe_machine
    from edgekit.profiling.share_plot import write_svg
    from edgekit.profiling.share_table import share_lines

    path = resolve_model(model, engine="torch")
    if plot is not None and (plot.suffix != ".svg" or is_checkpoint(path)):
        raise UsageError(f"--plot draws the times of a bundle into an .svg file, got {plot} for {model}")
    curve, found = None, {}
    if is_checkpoint(path):
        threads = threads or 1
        wanted: Any = precisions or ("fp32", "int8")
        rows = measure_checkpoint(
            path, shares or SHARES, precisions=wanted, pictures=calib, threads=threads, iterations=iterations
        )
    else:
        if precisions or calib is not None:
            raise UsageError("a bundle is measured as it is: leave out --precision and --calib")
        bundle = open_bundle(path)
        threads = threads or default_threads(bundle)
        rows, curve = measure_bundle(bundle, shares or BUNDLE_SHARES, threads=threads, iterations=iterations)
        found = {"break_even": find_break_even(bundle, curve, threads=threads, store=store)}
    peaks = ceilings_gmacs(threads=threads)
    machine = describe_machine()
    document = {
        "machine": machine.to_json(),
        "model": model,
        "gemm_peak_gmacs": round(peaks["fp32"], 2),
        "gemm_peak_gmacs_int8": round(peaks["int8"], 2),
        "rows": rows,
        **found,
    }
    if plot is not None and curve is not None:
        write_svg(plot, curve, f"{path.name} on {machine.cpu}, threads: {threads}")
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(share_lines(document, curve)))


@main.command()
@click.option("--variant", type=click.Choice(["9.0", "9.1", "lite"]), default="9.0", show_default=True)
@click.option(
    "--compressed/--full", default=True, show_default=True, help="fc6 and fc7 in two halves each; lite has no other."
)
@click.option(
    "--imgsz", metavar="HxW", default="640x1056", show_default=True, help="Rows and columns, multiples of 32."
)
@click.option(
    "--width-multiplier", "multiplier", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Channels over those of the published network.",
)  # fmt: skip
@click.option("--rois", type=click.IntRange(min=1), default=200, show_default=True, help="That the head takes.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option(
    "--active", "shares", multiple=True, type=click.FloatRange(0, 1), metavar="SHARE", default=PVANET_SHARES,
    show_default=True, help="Share of active cells and RoIs; may be repeated.",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["fp32", "int8"]), default=("fp32", "int8"),
    show_default=True, help="May be repeated.",
)  # fmt: skip
@click.option(
    "--engine", "engines", multiple=True, type=click.Choice(ENGINES), default=ENGINES, show_default=True,
    help="May be repeated. All are loaded at once, some 400 MB each: name fewer on a small board.",
)  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), default=16, show_default=True, help="Runs that count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pvanet(
    variant: str,
    compressed: bool,
    imgsz: str,
    multiplier: float,
    rois: int,
    threads: int,
    shares: tuple[float, ...],
    precisions: tuple[str, ...],
    engines: tuple[str, ...],
    iterations: int,
    as_json: bool,
) -> None:
    """Time PVANet stage by stage, as arXiv 1608.08021 does: random weights, one core, 1056x640, 200 RoIs.

    \b
    trunk      convolutions up to the hyper feature
    rpn        the region proposal network
    proposals  boxes of anchors, the best of them, suppression
    pool       RoI max pooling
    head       fc6, fc7, classes and boxes
    post       boxes of each class, suppression, voting

    trunk, rpn and head run in the engine, the others in edgekit's kernels whatever the engine. trunk and rpn are one
    graph; in every engine the trunk is run once more by itself before each frame, and rpn is the difference. Total is
    the time of whole frames.

    RoIs are proposed from the maps that the engine computed: random ones, in which most anchors become boxes that are
    too small, so that more are looked at than in a trained network. Those that are pooled and classified are others,
    drawn once: sides from a twentieth of the picture's to all of it. At an active share below 1 cells are blobs of the
    size that objects have, and as large a share of the RoIs is left. A dense engine knows of neither.

    Executed GMAC/s count the multiply-accumulates at active sites and RoIs, for a dense engine all of them. What they
    are held against is the best matrix product that was measured here: over the time of frames, and as "layers" over
    that of trunk, rpn and head alone.
    """
    from edgekit.profiling.pvanet_bench import measure_pvanet, sides_of
    from edgekit.profiling.pvanet_table import stage_lines

    height, columns = sides_of(imgsz)
    wanted: Any = precisions
    document = measure_pvanet(
        variant,
        compressed=compressed,
        multiplier=multiplier,
        height=height,
        width=columns,
        rois=rois,
        threads=threads,
        engines=engines,
        precisions=wanted,
        shares=shares,
        iterations=iterations,
    )
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(stage_lines(document)))


main.add_command(load_program("bench_detr", folder="runtime"), "sparse-detr")


if __name__ == "__main__":
    main()
