"""Does a bundle still give what it should? ``edgekit verify BUNDLE [--against CHECKPOINT --source VIDEO]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.bundle import AnyBundle, Bundle
    from edgekit.bundle.golden import VerifyReport
    from edgekit.bundle.segmentation_golden import SegmentationVerifyReport
    from edgekit.exporters.comparison import Comparison


@click.command(cls=Program)
@click.argument("bundle")
@click.option("--engine", default="auto", show_default=True, help="One that runs the bundle; auto is all installed.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option(
    "--against", metavar="CHECKPOINT", help="Compare with this model on --source instead of the golden input."
)
@click.option("--source", "sources", multiple=True, metavar="URI", help="Video, folder, glob or demo; may be repeated.")
@click.option(
    "--frames", type=click.IntRange(1), default=100, show_default=True, help="At most so many of each source."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def main(
    bundle: str, engine: str, threads: int, against: str | None, sources: tuple[str, ...], frames: int, as_json: bool
) -> None:
    """Check that BUNDLE computes on this machine what it computed where it was made.

    \b
    edgekit verify detector.edgekit
    edgekit verify detector.edgekit --against runs/x/best.pt --source yard.mp4 --frames 500

    BUNDLE is a folder, a zip file, or 'default'. All hashes are checked, then the recorded input runs through each
    engine, and objectness, mask, scores and boxes, or a segmenter's scores and labels, are compared with the recorded
    ones. With --against, each engine runs
    beside that model (a checkpoint, or another bundle) on every frame of --source, and must agree with it within the
    tolerances of the export gate. Exit code 5: they differ.
    """
    from edgekit.bundle import SegmentationBundle, open_any_bundle
    from edgekit.errors import UsageError
    from edgekit.pipeline import is_checkpoint, resolve_model

    path = resolve_model(bundle)
    if is_checkpoint(path):
        raise UsageError(
            f"{path} is a checkpoint, and only bundles carry a golden output.\n"
            f"Make a bundle with: edgekit export {path} -o NAME.edgekit"
        )
    if (against is None) != (not sources):
        raise UsageError(
            "--against says what to compare with and --source on which frames: give both, or neither.\n"
            "Try: edgekit verify BUNDLE --against CHECKPOINT --source VIDEO"
        )
    opened = open_any_bundle(path)
    verify = _verify_segmenter if isinstance(opened, SegmentationBundle) else _verify_detector
    verify(opened, against, sources, engine=engine, threads=threads, frames=frames, as_json=as_json)


def _verify_detector(
    bundle: AnyBundle,
    against: str | None,
    sources: tuple[str, ...],
    *,
    engine: str,
    threads: int,
    frames: int,
    as_json: bool,
) -> None:
    from edgekit.bundle import Bundle

    assert isinstance(bundle, Bundle)
    if against is None:
        _verify_golden(bundle, engine, threads, as_json)
    else:
        _verify_against(bundle, against, sources, engine=engine, threads=threads, frames=frames, as_json=as_json)


def _verify_golden(bundle: Bundle, engine: str, threads: int, as_json: bool) -> None:
    from edgekit.bundle.golden import verify_bundle

    report = verify_bundle(bundle, None if engine == "auto" else engine, threads=threads)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print_report(report)
    _refuse_failed(report, "detections")


def _verify_segmenter(
    bundle: AnyBundle,
    against: str | None,
    sources: tuple[str, ...],
    *,
    engine: str,
    threads: int,
    frames: int,
    as_json: bool,
) -> None:
    from edgekit.bundle import SegmentationBundle
    from edgekit.bundle.segmentation_golden import verify_segmentation
    from edgekit.exporters.tcl_comparison import compare_segmenters

    assert isinstance(bundle, SegmentationBundle)
    if against is None:
        report = verify_segmentation(bundle, None if engine == "auto" else engine, threads=threads)
        click.echo(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report.lines()))
        _refuse_failed(report, "labels")
        return
    compared = list(compare_segmenters(bundle, Path(against), sources, engine=engine, threads=threads, frames=frames))
    failures = [f"{one.engine} on {source}: {failure}" for source, one in compared for failure in one.failures]
    if as_json:
        rows = [{"source": source, **one.to_json()} for source, one in compared]
        document = {"bundle": str(bundle.path), "against": against, "passed": not failures, "rows": rows}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(f"{source}: {one.lines()[0]}" for source, one in compared))
    _refuse_differing(bundle, against, failures)


def _refuse_failed(report: VerifyReport | SegmentationVerifyReport, results: str) -> None:
    from edgekit.errors import GateError

    if not report.passed:
        bad = ", ".join(check.engine for check in report.checks if check.status in ("failed", "error"))
        raise GateError(
            f"{report.name} does not give its recorded output on {bad}.\n"
            f"Do not trust its {results} here. Try another engine with --engine, or export it again on this machine."
        )


def _refuse_differing(bundle: AnyBundle, against: str, failures: list[str]) -> None:
    from edgekit.errors import GateError

    if failures:
        raise GateError(
            "\n  ".join([f"{bundle.path} and {against} do not agree:", *failures])
            + "\nIf the bundle was made from that model, export it again, and its gate names the layers."
        )


def _verify_against(
    bundle: Bundle, against: str, sources: tuple[str, ...], *, engine: str, threads: int, frames: int, as_json: bool
) -> None:
    from edgekit.exporters.comparison import compare
    from edgekit.pipeline import open_pipeline

    # `default` is a bundle wherever an engine runs it; here its checkpoint is meant.
    reference = open_pipeline(against, engine="torch" if against == "default" else "auto", threads=threads)
    comparisons = list(compare(bundle, reference, sources, engine=engine, threads=threads, frames=frames))
    failures = [f"{one.engine} on {one.source}: {failure}" for one in comparisons for failure in one.failures]
    if as_json:
        rows = [one.to_json() for one in comparisons]
        document = {"bundle": str(bundle.path), "against": against, "passed": not failures, "rows": rows}
        click.echo(json.dumps(document, indent=2))
    else:
        _print_comparisons(comparisons)
    _refuse_differing(bundle, against, failures)


def _print_comparisons(comparisons: list[Comparison]) -> None:
    head = (
        f"{'engine':<34}{'frames':>8}{'detections':>12}{'unpaired':>10}{'candidates':>12}{'apart':>7}"
        f"{'box px':>9}{'score':>9}{'mask':>9}"
    )
    click.echo(f"{head}  source")
    for one in comparisons:
        parity = one.parity
        click.echo(
            f"{one.engine:<34}{parity.images:>8}{parity.detections:>12}{parity.unpaired:>10}"
            f"{parity.candidates:>12}{parity.disagreeing:>7}"
            f"{parity.box_error_px:>9.3f}{parity.score_error:>9.4f}{100 * parity.mask_share_differing:>7.2f} %"
            f"  {one.source}"
        )


def _print_report(report: VerifyReport) -> None:
    click.echo(f"{report.name}: hashes match, {report.detections} detections recorded\n")
    click.echo(
        f"{'engine':<20}{'result':<16}{'objectness':>11}{'mask cells':>11}{'score':>9}{'box px':>9}{'unmatched':>11}"
    )
    limits = None
    for check in report.checks:
        if limits != check.tolerance:  # float programs beside half-precision graphs have others
            limits = check.tolerance
            click.echo(
                f"{'allowed':<36}{limits.objectness:>11.4f}{limits.mask_cells:>11}{limits.score:>9.4f}"
                f"{limits.box_px:>9.3f}{0:>11}"
            )
        head = f"{check.engine:<20}{check.status:<16}"
        if check.status in ("passed", "failed"):
            click.echo(
                f"{head}{check.objectness:>11.4f}{check.mask_cells:>11}{check.score:>9.4f}{check.box_px:>9.3f}"
                f"{check.unmatched:>11}  {check.detail}"
            )
        else:
            click.echo(f"{head}{check.detail.splitlines()[0]}")


if __name__ == "__main__":
    main()
