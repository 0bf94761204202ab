"""Re-run a bundle's golden input here and compare: ``edgekit verify BUNDLE [--engine E] [--json]``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.bundle.golden import VerifyReport


@click.command(cls=Program)
@click.argument("bundle")
@click.option("--engine", default="auto", show_default=True, help="One of the bundle's engines; auto is all installed.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def main(bundle: str, engine: str, threads: int, as_json: bool) -> None:
    """Check that BUNDLE computes on this machine what it computed where it was made.

    BUNDLE is a folder, a zip file, or 'default'. All hashes are checked, then the recorded input runs through each
    engine, and objectness, mask, scores and boxes are compared with the recorded ones. Exit code 5: they differ.
    """
    from edgekit.bundle.golden import verify_bundle
    from edgekit.errors import GateError, UsageError
    from edgekit.pipeline import is_checkpoint, resolve_model

    path = resolve_model(bundle)
    if is_checkpoint(path):
        raise UsageError(
            f"{path} is a checkpoint, and only bundles carry a golden output.\n"
            f"Make a bundle with: edgekit export {path} -o NAME.edgekit"
        )
    report = verify_bundle(path, None if engine == "auto" else engine, threads=threads)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print_report(report)
    if not report.passed:
        bad = ", ".join(check.engine for check in report.checks if check.status in ("failed", "error"))
        raise GateError(
            f"{report.name} does not give its recorded output on {bad}.\n"
            "Do not trust its detections here. Try another engine with --engine, or export it again on this machine."
        )


def _print_report(report: VerifyReport) -> None:
    limits = report.tolerance
    click.echo(f"{report.name}: hashes match, {report.detections} detections recorded\n")
    click.echo(
        f"{'engine':<14}{'result':<16}{'objectness':>11}{'mask cells':>11}{'score':>9}{'box px':>9}{'unmatched':>11}"
    )
    click.echo(
        f"{'allowed':<30}{limits.objectness:>11.4f}{limits.mask_cells:>11}{limits.score:>9.4f}{limits.box_px:>9.3f}{0:>11}"
    )
    for check in report.checks:
        head = f"{check.engine:<14}{check.status:<16}"
        if check.status in ("passed", "failed"):
            click.echo(
                f"{head}{check.objectness:>11.4f}{check.mask_cells:>11}{check.score:>9.4f}{check.box_px:>9.3f}"
                f"{check.unmatched:>11}  {check.detail}"
            )
        else:
            click.echo(f"{head}{check.detail.splitlines()[0]}")


if __name__ == "__main__":
    main()
