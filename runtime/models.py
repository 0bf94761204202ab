"""List the networks with their parameters and MACs: ``edgekit models [NAME] [--json]``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.models.facts import ModelFacts


@click.command(cls=Program)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for NAME, otherwise a list of them.")
def main(name: str | None, as_json: bool) -> None:
    """List the networks that `edgekit train` takes, or describe the one called NAME stage by stage.

    Counts are for the default input size and 20 classes. A MAC is one multiply-accumulate (two FLOPs), counted for
    convolutions at every position, that is without a mask.
    """
    from edgekit.models.facts import find_facts, load_facts

    chosen = find_facts(name) if name else None
    if as_json:
        document = chosen.to_json() if chosen else [facts.to_json() for facts in load_facts()]
        click.echo(json.dumps(document, indent=2))
    elif chosen:
        _print_one(chosen)
    else:
        for facts in load_facts():
            size = f"{facts.input_size}x{facts.input_size}"
            click.echo(f"{facts.name}  {size}  {facts.parameters / 1e6:.2f} M parameters  {facts.macs / 1e6:.0f} MMAC")
            click.echo(f"    {facts.summary}")


def _print_one(facts: ModelFacts) -> None:
    click.echo(f"{facts.name}: {facts.summary}")
    click.echo(f"input {facts.input_size}x{facts.input_size}, {facts.classes} classes\n")
    click.echo(f"{'stage':<14}{'parameters':>12}{'MMAC':>10}")
    for stage in facts.stages:
        click.echo(f"{stage.name:<14}{stage.parameters:>12,}{stage.macs / 1e6:>10.2f}")
    click.echo(f"{'total':<14}{facts.parameters:>12,}{facts.macs / 1e6:>10.2f}")


if __name__ == "__main__":
    main()
