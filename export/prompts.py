"""Other words for a segmenter: ``edgekit prompts CHECKPOINT "person, red car" -o words.json``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgekit.cli import Program


@click.command(cls=Program)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("names", metavar="NAMES", required=False)
@click.option("--protocol", help="Instead of NAMES the classes of a data set: voc, coco-object, cityscapes, ...")
@click.option("--clip", type=click.Path(path_type=Path), help="CLIP's ViT-B-16.pt, for the published tcl.pth.")
@click.option("--templates", help="Sentences that names are put into: custom, photo or none  [default: the model's]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.json", help="The file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def main(
    checkpoint: Path,
    names: str | None,
    protocol: str | None,
    clip: Path | None,
    templates: str | None,
    output: Path,
    as_json: bool,
) -> None:
    """Put NAMES, separated by commas, into a file for every bundle that was exported from CHECKPOINT.

    \b
    edgekit prompts runs/words/best.pt "person, red car" -o words.json
    edgekit prompts runs/words/best.pt --protocol voc -o voc.json
    edgekit val tcl words.edgekit --prompts voc.json --data voc07

    A board needs no text encoder then, and no new export: the file, of one embedding for each name, replaces the
    bundle's own. Each name is one thing to look for; what none of them fits is background. A name may be of any script;
    one that is empty, too long for the text encoder or there twice is refused.
    """
    from edgekit.data.segmentation import classes_of
    from edgekit.errors import UsageError
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.prompts import make_prompts, parse_prompts
    from edgekit.models.tcl.segmenter import options_for
    from edgekit.models.tcl.tokenizer import Tokenizer
    from edgekit.segmentation.prompts import BACKGROUND, write_prompts

    if (names is None) == (protocol is None):
        raise UsageError(
            'say what to look for, as NAMES or by --protocol: edgekit prompts best.pt "person, red car" -o words.json'
        )
    wanted = parse_prompts(names) if names is not None else classes_of(protocol or "")
    model = load_tcl(checkpoint, clip=clip).model
    prompts = make_prompts(
        model,
        Tokenizer(),
        tuple(name for name in wanted if name != BACKGROUND),
        templates=templates or options_for(model).templates,
    )
    write_prompts(output, prompts)
    if as_json:
        click.echo(json.dumps({"prompts": str(output), "names": list(prompts.names), "text": prompts.text}, indent=2))
        return
    click.echo(f"{output}: {len(prompts)} prompts for {prompts.model}, {output.stat().st_size / 1e3:.1f} kB")
    click.echo(f"Look for them with: edgekit run BUNDLE --prompts {output} --camera 0")


if __name__ == "__main__":
    main()
