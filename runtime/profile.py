"""Where a frame's time and work go: ``edgekit profile BUNDLE|CHECKPOINT|default``, ``edgekit profile NETWORK --macs``.

MACs and parameters by layer, dense and under the masks seen; latency percentiles by stage, for every engine present.
With ``--macs`` nothing runs: MACs by layer of a bundle or checkpoint, by stage of a published network.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.bundle import SegmentationBundle
    from edgekit.masks.pyramid import Mask

log = logging.getLogger("edgekit")

MAX_FRAMES = 32
"""Frames of a source that are kept in memory: 200 MB of full-HD video."""

RUNNING = ("engine", "threads", "mask", "active", "source", "warmup", "iterations")
"""Options that say how frames run, and so say nothing beside --macs."""


MASKS = ("mask", "active")
"""Options about objectness masks."""


@click.command(cls=Program)
@click.argument("model", metavar="BUNDLE|CHECKPOINT|default|NETWORK", default="default")
@click.option("--macs", "macs_alone", is_flag=True, help="Run nothing: dense MACs only, also of a NETWORK by its name.")
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
@click.option(
    "--layers/--no-layers", default=True, show_default=True, help="List every layer or stage, or totals only."
)
@click.option("--warmup", type=click.IntRange(min=0), default=10, show_default=True, help="Frames not counted.")
@click.option("--iterations", type=click.IntRange(min=1), default=100, show_default=True, help="Frames that count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    model: str,
    macs_alone: bool,
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
    detections, in percentiles over the frames. The networks that --macs knows by name: edgekit models.
    """
    from edgekit.blas import one_blas_thread

    one_blas_thread()
    if macs_alone:
        _print_macs(model, every_row=layers, as_json=as_json)
        return

    from edgekit.errors import UsageError
    from edgekit.metrics.evaluation import uses_omg
    from edgekit.pipeline import resolve_model
    from edgekit.profiling.engines import ShareMask, engine_lines, golden_frames, profile_engines, source_frames
    from edgekit.profiling.gemm import ceilings_gmacs
    from edgekit.profiling.machine import describe_machine
    from edgekit.profiling.segmenters import segmenter_at
    from edgekit.profiling.work import work_lines

    if active is not None and mask != "omg":
        raise UsageError(f"two masks were given, --mask {mask} and --active {active:g}: leave one out")
    if _is_network(model):
        raise UsageError(f"{model} is a network's name, and without weights nothing is timed; add --macs for its MACs")
    path = resolve_model(model, engine=engine)
    segmenter = segmenter_at(path)
    if segmenter is not None:
        runs = {"engine": engine, "threads": threads, "warmup": warmup, "iterations": iterations}
        _profile_segmenter(segmenter, source, runs, as_json=as_json)
        return
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
    click.echo(
        f"{document['model']} on {document['source']} ({document['frames']} different frames), "
        f"mask {document['mask']}: {100 * document['active_share']:.1f} % of the cells active\n"
    )
    if "layers" in document:
        click.echo("\n".join(work_lines(document, every_layer=layers)))
    click.echo("\n".join(engine_lines(document)))


def _profile_segmenter(bundle: SegmentationBundle, source: str | None, runs: dict[str, Any], *, as_json: bool) -> None:
    from edgekit.errors import UsageError
    from edgekit.profiling.engines import engine_lines
    from edgekit.profiling.segmenters import measure_segmenter, work_line

    context = click.get_current_context()
    given = [f"--{name}" for name in MASKS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(f"a segmenter looks everywhere and has no objectness mask; leave out {', '.join(given)}")
    document = measure_segmenter(bundle, source, **runs, most_frames=MAX_FRAMES)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{bundle.path} on {document['source']} ({document['frames']} different frames)\n{work_line(bundle)}")
    click.echo("\n".join(engine_lines(document)))


def _print_macs(model: str, *, every_row: bool, as_json: bool) -> None:
    from edgekit.errors import UsageError

    context = click.get_current_context()
    given = [f"--{name}" for name in RUNNING if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(f"--macs runs nothing, so it goes without {', '.join(given)}")
    if _is_network(model) or not (model == "default" or Path(model).exists()):
        from edgekit.models.facts import find_facts

        try:
            facts = find_facts(model)
        except UsageError as error:
            raise UsageError(f"{error}\nThere is no bundle or checkpoint {model!r} either.") from error
        document, lines = facts.to_json(), [f"{facts.name}: {facts.summary}", *facts.lines(every_stage=every_row)]
    else:
        from edgekit.metrics.layers import layer_table
        from edgekit.pipeline import resolve_model
        from edgekit.profiling.segmenters import segmenter_at, work_line
        from edgekit.profiling.work import dense_work, work_lines

        path = resolve_model(model)
        if (segmenter := segmenter_at(path)) is not None:
            work = {"parameters": segmenter.manifest.parameters, "macs": segmenter.manifest.macs}
            click.echo(json.dumps({"model": model, **work}, indent=2) if as_json else work_line(segmenter))
            return
        document = {"model": model, **dense_work(layer_table(path))}
        lines = work_lines(document, every_layer=every_row)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))


def _is_network(model: str) -> bool:
    """Whether ``model`` is the name of a network; a file or folder that is called so comes first."""
    from edgekit.models.registry import NETWORKS

    return model in NETWORKS and not Path(model).exists()


def _is_int8(path: Path) -> bool:
    from edgekit.bundle import open_bundle
    from edgekit.pipeline import is_checkpoint

    return not is_checkpoint(path) and open_bundle(path).manifest.precision == "int8"


def _work(path: Path, masks: tuple[Mask, ...], *, omg: bool) -> dict[str, Any]:
    """Parameters and MACs, dense and as the mean over ``masks``; empty if the model's layers cannot be known here."""
    from edgekit.errors import MissingDependencyError, UsageError
    from edgekit.metrics.layers import layer_table
    from edgekit.profiling.work import masked_work

    try:
        return masked_work(layer_table(path), masks, omg=omg)
    except (MissingDependencyError, UsageError) as error:
        log.warning("MACs are left out: %s", error)
        return {}


if __name__ == "__main__":
    main()
