"""Say what works on this machine and how to mend what does not: ``edgekit doctor [--json]``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.health import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(cls=Program)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(as_json: bool) -> int:
    """Say what works on this machine and how to mend what does not.

    The exit code is 1 if the built-in detector cannot run here, and 0 otherwise: what an extra would add is a
    warning.
    """
    from edgekit.health import run_checks
    from edgekit.profiling.machine import describe_machine

    findings = run_checks()
    works = all(finding.status != "fail" for finding in findings)
    if as_json:
        report = {
            "ok": works,
            "machine": describe_machine().to_json(),
            "kernels": _kernels(),
            "findings": [finding.to_json() for finding in findings],
        }
        click.echo(json.dumps(report, indent=2))
        return 0 if works else 1
    for finding in findings:
        _print(finding)
    click.echo(f"\nThe built-in detector {'runs' if works else 'does not run'} here.")
    return 0 if works else 1


def _kernels() -> dict[str, Any] | None:
    """The native engine's instruction sets; null where it does not work, which is among the findings."""
    from edgekit.backends.native import instruction_sets
    from edgekit.errors import EngineError

    try:
        return instruction_sets().to_json()
    except EngineError:
        return None


def _print(finding: Finding) -> None:
    status = f"{finding.status:<4}"
    if not os.environ.get("NO_COLOR"):  # click itself leaves colours out where stdout is no terminal
        status = click.style(status, fg=COLOURS[finding.status])
    first, *rest = finding.text.splitlines()
    click.echo(f"{status}  {finding.check:<18} {first}")
    for line in rest:
        click.echo(f"{'':<25}{line}")
    if finding.fix:
        click.echo(f"{'':<25}-> {finding.fix}")


if __name__ == "__main__":
    main()
