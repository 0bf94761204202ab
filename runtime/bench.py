"""Benchmarks of edgekit against the engines that it runs beside: ``edgekit bench sparse``.

Rivals take turns in one process, on the machine as it is; ratios between rows of one run are worth more than the rows.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import ProgramGroup

if TYPE_CHECKING:
    from edgekit.exporters.calibration import Calibration
    from edgekit.metrics.macs import LayerMacs
    from edgekit.models.checkpoint import Checkpoint
    from edgekit.profiling.rivals import Rival
    from edgekit.spec import DetectorSpec

log = logging.getLogger("edgekit")

MASKS = 4
"""Different masks of each share: sites at the rim cost more than those inside."""


@click.group(cls=ProgramGroup)
def main() -> None:
    """Measure edgekit against the engines that it runs beside."""


@main.command()
@click.argument("model", metavar="CHECKPOINT|default", default="default")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option(
    "--active", "shares", multiple=True, type=click.FloatRange(0, 1), metavar="SHARE",
    help="Share of active cells; may be repeated.  [default: 1 .57 .33 .16 .07]",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["fp32", "int8"]),
    help="May be repeated.  [default: both]",
)  # fmt: skip
@click.option(
    "--calib", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help="Pictures for int8; times do not depend on them.  [default: drawings]",
)  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), default=40, show_default=True, help="Runs that count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sparse(
    model: str,
    threads: int,
    shares: tuple[float, ...],
    precisions: tuple[str, ...],
    calib: Path | None,
    iterations: int,
    as_json: bool,
) -> None:
    """Time the detector in the native engine and in every dense one, by the share of active cells.

    Each run goes from a letterboxed picture to raw heads. Masks are blobs of the size that objects have. Executed
    GMAC/s count the multiply-accumulates at active sites, which a dense engine does not know of: it is given all of
    its own. Dense-equivalent ones count the whole network whatever was skipped.
    """
    from edgekit.metrics.macs import count_macs
    from edgekit.models.checkpoint import load_checkpoint
    from edgekit.pipeline import resolve_model
    from edgekit.profiling.gemm import ceilings_gmacs
    from edgekit.profiling.machine import describe_machine
    from edgekit.profiling.rivals import detectors

    checkpoint = load_checkpoint(resolve_model(model, engine="torch"))
    layers = [layer for layer in count_macs(checkpoint.model) if layer.graph == "detector"]
    wanted: Any = precisions or ("fp32", "int8")
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        rivals = list(
            detectors(
                checkpoint,
                Path(folder),
                threads=threads,
                precisions=wanted,
                calibration=_calibration(calib, checkpoint),
            )
        )
        rows = [
            row
            for share in shares or (1.0, 0.57, 0.33, 0.16, 0.07)
            for row in _rows(checkpoint.spec, layers, rivals, share, threads=threads, iterations=iterations)
        ]
    peaks = ceilings_gmacs(threads=threads)
    document = {
        "machine": describe_machine().to_json(),
        "model": model,
        "gemm_peak_gmacs": round(peaks["fp32"], 2),
        "gemm_peak_gmacs_int8": round(peaks["int8"], 2),
        "rows": rows,
    }
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(document)


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


def _rows(
    spec: DetectorSpec, layers: Sequence[LayerMacs], rivals: list[Rival], share: float, *, threads: int, iterations: int
) -> list[dict[str, Any]]:
    """One row an engine and precision."""
    import functools

    from edgekit.exporters.pictures import drawn_scene
    from edgekit.metrics.macs import executed_macs, total_macs
    from edgekit.profiling.blobs import blob_mask
    from edgekit.profiling.interleaved import interleave
    from edgekit.profiling.latency import summarise

    dense = total_macs(layers, "detector")
    picture = drawn_scene(spec)
    times: list[list[tuple[float, float]]] = [[] for _ in rivals]
    executed = 0.0
    masks = [blob_mask(share, grid=spec.mask_grid, seed=seed) for seed in range(MASKS if share < 1 else 1)]
    for mask in masks:
        log.info("%.0f %% active ...", 100 * mask.mean())
        executed += executed_macs(layers, mask, omg=False) / len(masks)
        calls = {str(index): functools.partial(rival.run, picture, mask) for index, rival in enumerate(rivals)}
        runs = max(1, iterations // len(masks))
        burst = min(5, runs)
        samples = interleave(calls, rounds=-(-runs // burst), burst=burst)
        for index, part in enumerate(times):
            latency = summarise(samples[str(index)])
            part.append((latency.min_ms, latency.p50_ms))
    rows = []
    for rival, part in zip(rivals, times, strict=True):
        least, median = (sum(values) / len(values) for values in zip(*part, strict=True))
        work = executed if rival.sparse else dense
        rows.append(
            {
                "engine": rival.engine,
                "precision": rival.precision,
                "active": share,
                "threads": threads,
                "ms_min": round(least, 4),
                "ms_median": round(median, 4),
                "gmacs_executed": round(work / least / 1e6, 2),
                "gmacs_dense_equivalent": round(dense / least / 1e6, 2),
                "detail": rival.detail,
            }
        )
    return rows


def _print(document: dict[str, Any]) -> None:
    """A table, with each row's time as a ratio to the best dense engine of its precision and share."""
    peaks = {"fp32": document["gemm_peak_gmacs"], "int8": document["gemm_peak_gmacs_int8"]}
    click.echo(f"{document['machine']['cpu']}; peak {peaks['fp32']:.1f} GMAC/s in fp32, {peaks['int8']:.1f} in int8\n")
    click.echo(
        f"{'engine':<13}{'':<6}{'active':>7}{'min ms':>9}{'median':>9}{'to dense':>10}{'GMAC/s':>9}{'of peak':>9}"
    )
    rows = document["rows"]
    for row in rows:
        same = [o for o in rows if (o["active"], o["precision"]) == (row["active"], row["precision"])]
        best = min((other["ms_min"] for other in same if other["engine"] != "native"), default=None)
        ratio = "" if best is None else f"{row['ms_min'] / best:.2f}"
        rate = row["gmacs_executed"]
        click.echo(
            f"{row['engine']:<13}{row['precision']:<6}{row['active']:>7.2f}{row['ms_min']:>9.2f}"
            f"{row['ms_median']:>9.2f}{ratio:>10}{rate:>9.1f}{rate / peaks[row['precision']]:>9.0%}"
        )


if __name__ == "__main__":
    main()
