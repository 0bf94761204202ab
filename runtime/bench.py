"""Benchmarks of edgekit against the engines that it runs beside: ``edgekit bench sparse``.

Rivals take turns in one process, on the machine as it is; ratios between rows of one run are worth more than the rows.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import ProgramGroup

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.exporters.calibration import Calibration
    from edgekit.models.checkpoint import Checkpoint
    from edgekit.profiling.share_curve import ShareCurve

log = logging.getLogger("edgekit")

SHARES = (1.0, 0.57, 0.33, 0.16, 0.07)
"""From every cell to a fixed camera's."""

BUNDLE_SHARES = (1.0, 0.8, 0.57, 0.33, 0.16, 0.07)
"""One more where engines tend to cross."""


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
    from edgekit.profiling.bundle_shares import measure_bundle
    from edgekit.profiling.gemm import ceilings_gmacs
    from edgekit.profiling.machine import describe_machine
    from edgekit.profiling.share_plot import write_svg

    path = resolve_model(model, engine="torch")
    if plot is not None and (plot.suffix != ".svg" or is_checkpoint(path)):
        raise UsageError(f"--plot draws the times of a bundle into an .svg file, got {plot} for {model}")
    curve, found = None, {}
    if is_checkpoint(path):
        threads = threads or 1
        rows = _checkpoint_rows(path, shares or SHARES, precisions, calib, threads=threads, iterations=iterations)
    else:
        if precisions or calib is not None:
            raise UsageError("a bundle is measured as it is: leave out --precision and --calib")
        bundle = open_bundle(path)
        threads = threads or default_threads(bundle)
        rows, curve = measure_bundle(bundle, shares or BUNDLE_SHARES, threads=threads, iterations=iterations)
        found = {"break_even": _break_even(bundle, curve, threads=threads, store=store)}
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
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(document, curve)


def _checkpoint_rows(
    path: Path,
    shares: tuple[float, ...],
    precisions: tuple[str, ...],
    calib: Path | None,
    *,
    threads: int,
    iterations: int,
) -> list[dict[str, Any]]:
    from edgekit.metrics.macs import count_macs
    from edgekit.models.checkpoint import load_checkpoint
    from edgekit.profiling.rivals import detectors
    from edgekit.profiling.shares import time_by_share

    checkpoint = load_checkpoint(path)
    layers = [layer for layer in count_macs(checkpoint.model) if layer.graph == "detector"]
    wanted: Any = precisions or ("fp32", "int8")
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        calibration = _calibration(calib, checkpoint)
        rivals = list(detectors(checkpoint, Path(folder), threads=threads, precisions=wanted, calibration=calibration))
        return time_by_share(rivals, layers, shares, threads=threads, iterations=iterations)


def _calibration(calib: Path | None, checkpoint: Checkpoint) -> Calibration:
    """Pictures of ``calib``, or drawings."""
    from edgekit.exporters.build import reference_pipeline
    from edgekit.exporters.calibration import MIN_IMAGES
    from edgekit.exporters.evidence import open_calibration
    from edgekit.exporters.pictures import mask_finder
    from edgekit.profiling.rivals import drawn_calibration

    if calib is None:
        return drawn_calibration(checkpoint.spec)
    reference = reference_pipeline(checkpoint, threads=1)
    calibration = open_calibration(calib, None, checkpoint.spec, MIN_IMAGES, mask_finder(reference))
    assert calibration is not None  # with a folder it is there, or an error
    return calibration


def _break_even(bundle: Bundle, curve: ShareCurve, *, threads: int, store: bool) -> dict[str, Any] | None:
    """What was found, and whether the bundle has it now; None where there is nothing to compare with."""
    from edgekit.backends.native import instruction_sets
    from edgekit.bundle.sparse_part import BreakEven
    from edgekit.bundle.updating import store_break_even
    from edgekit.errors import BundleError, StorageError
    from edgekit.profiling.machine import cpu_model

    if curve.break_even is None or curve.dense_engine is None:
        reason = "no dense engine of it is installed" if bundle.manifest.sparse else "it has no dense graphs"
        log.warning("the bundle gets no break-even: %s", reason)
        return None
    known = BreakEven(cpu=cpu_model(), threads=threads, engine=curve.dense_engine, share=round(curve.break_even, 4))
    stored = False
    isa = instruction_sets()
    if store and isa.chosen != isa.usable[-1]:
        log.warning("the break-even is not stored: it is for %s, and usually %s runs", isa.chosen, isa.usable[-1])
    elif store:
        try:
            store_break_even(bundle, known)
            stored = True
        except (StorageError, BundleError) as error:  # what was measured is worth printing all the same
            log.warning("the break-even is not stored: %s", error)
    return {**known.to_json(), "stored": stored}


def _print(document: dict[str, Any], curve: ShareCurve | None) -> None:
    """A table, with each row's time as a ratio to the best dense engine of its kind of numbers and share."""
    from edgekit.profiling.share_plot import text_plot

    peaks = {"fp32": document["gemm_peak_gmacs"], "int8": document["gemm_peak_gmacs_int8"]}
    click.echo(f"{document['machine']['cpu']}; peak {peaks['fp32']:.1f} GMAC/s in fp32, {peaks['int8']:.1f} in int8\n")
    click.echo(
        f"{'engine':<20}{'':<6}{'active':>7}{'min ms':>9}{'median':>9}{'to dense':>10}{'GMAC/s':>9}{'of peak':>9}"
    )
    rows = document["rows"]
    for row in rows:
        integer = row["precision"] == "int8"
        same = [o for o in rows if o["active"] == row["active"] and (o["precision"] == "int8") == integer]
        dense = (o["ms_min"] for o in same if o["engine"] != "native" and not o["engine"].endswith("-sparse"))
        best = min(dense, default=None)
        ratio = "" if best is None else f"{row['ms_min'] / best:.2f}"
        rate = row["gmacs_executed"]
        rates = "" if rate is None else f"{rate:>9.1f}{rate / peaks['int8' if integer else 'fp32']:>9.0%}"
        click.echo(
            f"{row['engine']:<20}{row['precision']:<6}{row['active']:>7.2f}{row['ms_min']:>9.2f}"
            f"{row['ms_median']:>9.2f}{ratio:>10}{rates}"
        )
    if curve is not None:
        click.echo("\n" + "\n".join(text_plot(curve)))


if __name__ == "__main__":
    main()
