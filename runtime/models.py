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
    """List the networks that can be built and say which `edgekit train` takes, or describe the one called NAME.

    Counts are for the default input size, and 20 classes unless said otherwise. Parameters include biases and batch
    norms, weights do not. A MAC is one multiply-accumulate (two FLOPs), counted for convolutions at every position,
    that is without a mask, and for a head that reads regions (RoIs) as often as a picture has them.
    """
    from edgekit.models.facts import find_facts, load_facts

    chosen = find_facts(name) if name else None
    if as_json:
        document = chosen.to_json() if chosen else [facts.to_json() for facts in load_facts()]
        click.echo(json.dumps(document, indent=2))
    elif chosen:
        click.echo("\n".join([f"{chosen.name}: {chosen.summary}", _training(chosen), *chosen.lines()]))
    else:
        for facts in load_facts():
            size, rois = f"{facts.width}x{facts.height}", f" with {facts.rois} RoIs" if facts.rois else ""
            counts = f"{facts.parameters / 1e6:.2f} M parameters  {facts.macs / 1e6:.0f} MMAC{rois}"
            click.echo(f"{facts.name}  {size}  {counts}")
            click.echo(f"    {facts.summary}; {_training(facts)}")


def _training(facts: ModelFacts) -> str:
    if facts.trained_as is None:
        return "cannot be trained yet"
    return "can be trained" if facts.trainable else f"trained as {facts.trained_as}"


if __name__ == "__main__":
    main()
