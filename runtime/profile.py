"""Where a frame's time and work go: ``edgekit profile BUNDLE|CHECKPOINT|default``.

MACs and parameters by layer, dense and under the masks seen; latency percentiles by stage, for every engine present.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.masks.pyramid import Mask

log = logging.getLogger("edgekit")

MAX_FRAMES = 32
"""Frames of a source that are kept in memory: 200 MB of full-HD video."""


@click.command(cls=Program)
@click.argument("model", metavar="BUNDLE|CHECKPOINT|default", default="default")
@click.option(
    "--engine", default="all", show_default=True,
    help="native, tflite, openvino, onnxruntime, tflite-sparse and so on, torch, or all present.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--mask", default="omg", show_default=True, help="omg, off, tracks, truth, FILE.json, a+b or a&b.")
@click.option(
    "--active", type=click.FloatRange(0, 1), metavar="SHARE", help="Instead of --mask: this share of cells is active."
)
@click.option(
    "--source", metavar="URI", help="demo, picture, folder, video or camera.  [default: the bundle's test picture]"
)
@click.option("--layers/--no-layers", default=True, show_default=True, help="List every layer, or totals only.")
@click.option("--warmup", type=click.IntRange(min=0), default=10, show_default=True, help="Frames not counted.")
@click.option("--iterations", type=click.IntRange(min=1), default=100, show_default=True, help="Frames that count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    model: str,
    engine: str,
    threads: int,
    mask: str,
    active: float | None,
    source: str | None,
    layers: bool,
    warmup: int,
    iterations: int,
    as_json: bool,
) -> None:
    """Show where the time and the work of one frame go.

    MACs are multiply-accumulates (two FLOPs each). Dense ones ignore the mask; executed ones are what an engine that
    skips inactive sites has to do under the masks seen. Latency is wall time of the whole way from the picture to its
    detections, in percentiles over the frames.
    """
    from edgekit.errors import UsageError
    from edgekit.metrics.evaluation import uses_omg
    from edgekit.pipeline import resolve_model
    from edgekit.profiling.engines import ShareMask, golden_frames, profile_engines, source_frames
    from edgekit.profiling.gemm import ceilings_gmacs
    from edgekit.profiling.machine import describe_machine

    if active is not None and mask != "omg":
        raise UsageError(f"two masks were given, --mask {mask} and --active {active:g}: leave one out")
    path = resolve_model(model, engine=engine)
    frames = source_frames(source, limit=min(iterations, MAX_FRAMES)) if source else golden_frames(path)
    log.info("%s: %d warm-up and %d measured frames an engine", model, warmup, iterations)
    profiles = profile_engines(
        path,
        frames,
        engine=engine,
        mask=mask if active is None else ShareMask(active),
        threads=threads,
        warmup=warmup,
        iterations=iterations,
    )
    masks = next(profile.masks for profile in profiles if profile.masks)
    document = {
        "model": model,
        "source": source or "test picture",
        "frames": len(frames),
        "warmup": warmup,
        "iterations": iterations,
        "threads": threads,
        "mask": mask if active is None else f"active {active:g}",
        "active_share": sum(float(one.mean()) for one in masks) / len(masks),
        **_work(path, masks, omg=active is None and uses_omg(mask)),
        "engines": [profile.to_json() for profile in profiles],
        "gemm_gmacs": ceilings_gmacs(threads=threads)["int8" if _is_int8(path) else "fp32"],
        "machine": describe_machine().to_json(),
    }
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    _print_work(document, every_layer=layers)
    _print_engines(document)


def _is_int8(path: Path) -> bool:
    from edgekit.bundle import open_bundle
    from edgekit.pipeline import is_checkpoint

    return not is_checkpoint(path) and open_bundle(path).manifest.precision == "int8"


def _work(path: Path, masks: tuple[Mask, ...], *, omg: bool) -> dict[str, Any]:
    """Parameters and MACs, dense and as the mean over ``masks``; empty if the model's layers cannot be known here."""
    from edgekit.errors import MissingDependencyError, UsageError
    from edgekit.metrics.layers import layer_table
    from edgekit.metrics.macs import executed_layer_macs, layers_to_json, total_macs

    try:
        table = layer_table(path)
    except (MissingDependencyError, UsageError) as error:
        log.warning("MACs are left out: %s", error)
        return {}
    by_mask = [executed_layer_macs(table, mask, omg=omg) for mask in masks]
    executed = [round(sum(layer) / len(masks)) for layer in zip(*by_mask, strict=True)]
    return {
        "parameters": sum(layer.parameters for layer in table),
        "macs": total_macs(table, "detector"),
        "macs_omg": total_macs(table, "omg"),
        "macs_executed": sum(executed),
        "layers": [
            {**layer, "macs_executed": share} for layer, share in zip(layers_to_json(table), executed, strict=True)
        ],
    }


def _print_work(document: dict[str, Any], *, every_layer: bool) -> None:
    click.echo(
        f"{document['model']} on {document['source']} ({document['frames']} different frames), "
        f"mask {document['mask']}: {100 * document['active_share']:.1f} % of the cells active\n"
    )
    if "layers" not in document:
        return
    rows = document["layers"]
    width = max(len(row["name"]) for row in rows) + 2
    click.echo(f"{'':<{width}}{'output':>10}{'parameters':>12}{'MMAC':>10}{'executed':>10}")
    for row in rows if every_layer else ():
        size = f"{row['rows']}x{row['columns']}"
        click.echo(f"{row['name']:<{width}}{size:>10}" + _counts(row))
    for graph in ("omg", "detector"):
        part = [row for row in rows if row["graph"] == graph]
        total = {key: sum(row[key] for row in part) for key in ("parameters", "macs", "macs_executed")}
        click.echo(f"{graph:<{width}}{'':>10}" + _counts(total))


def _counts(row: dict[str, Any]) -> str:
    return f"{row['parameters']:>12,}{row['macs'] / 1e6:>10.2f}{row['macs_executed'] / 1e6:>10.2f}"


def _print_engines(document: dict[str, Any]) -> None:
    click.echo(f"\nmilliseconds (threads: {document['threads']}, frames: {document['iterations']})")
    click.echo(f"{'':<14}{'p50':>9}{'p95':>9}{'p99':>9}{'min':>9}{'mean':>9}")
    for engine in document["engines"]:
        if not engine["ran"]:
            click.echo(f"{engine['engine']}: {engine['detail'].splitlines()[0]}")
            continue
        click.echo(f"{engine['detail']}, loaded in {engine['load_ms']:.0f} ms")
        for stage, latency in engine["stages"].items():
            cells = (latency[key] for key in ("p50_ms", "p95_ms", "p99_ms", "min_ms", "mean_ms"))
            click.echo(f"  {stage:<12}" + "".join(f"{cell:>9.2f}" for cell in cells))
        if "macs" in document and (milliseconds := engine["stages"]["detector"]["p50_ms"]):
            rate = document["macs"] / milliseconds / 1e6
            share = 100 * rate / document["gemm_gmacs"]
            click.echo(f"  {rate:.1f} dense GMAC/s in the detector, {share:.0f} % of the best rate here")


if __name__ == "__main__":
    main()
