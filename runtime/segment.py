"""Colour pictures by words: ``edgekit segment CHECKPOINT --prompts "person, car" --source PICTURES``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgekit.cli import Program


@click.command(cls=Program)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--prompts", required=True, help="Names of things, separated by commas: 'person, red car'.")
@click.option("--source", required=True, help="A picture, a folder or a glob.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("segments"), show_default=True,
    help="Folder for the pictures.",
)  # fmt: skip
@click.option("--clip", type=click.Path(path_type=Path), help="CLIP's ViT-B-16.pt, for the published tcl.pth.")
@click.option("--templates", help="Sentences that names are put into: custom, photo or none  [default: the model's]")
@click.option("--pamr/--no-pamr", default=None, help="Refine masks along colours  [default: yes]")
@click.option(
    "--background", type=click.FloatRange(0, 1),
    help="Score from which a name wins over the background; 0 leaves none  [default: the model's]",
)  # fmt: skip
@click.option("--clip-share", type=click.FloatRange(0, 1), help="Part of the encoder's own map  [default: the model's]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Only the first N pictures.")
def main(
    checkpoint: Path,
    prompts: str,
    source: str,
    output: Path,
    clip: Path | None,
    templates: str | None,
    pamr: bool | None,
    background: float | None,
    clip_share: float | None,
    device: str,
    threads: int | None,
    max_frames: int | None,
) -> None:
    """Say which pixels are what, for things that nobody has drawn a mask of.

    CHECKPOINT is of `edgekit train tcl`, or the published tcl.pth with --clip. For each picture, OUTPUT gets
    NAME.segments.jpg, coloured, with a legend, and NAME.labels.png, whose pixels are numbers: 0 is the background, k
    the k-th prompt. A line of JSON tells the share of the pixels and the mean score of each prompt.
    """
    from edgekit.cameras.images import find_pictures, read_picture
    from edgekit.errors import UsageError
    from edgekit.learning.distributed import choose_device
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.prompts import parse_prompts
    from edgekit.models.tcl.segmenter import BACKGROUND, Segmenter, changed, options_for
    from edgekit.models.tcl.tokenizer import Tokenizer
    from edgekit.models.torch_threads import use_threads
    from edgekit.sinks.label_map import colours, write_segments

    # 1. what to look for, where, and with what
    if checkpoint.is_dir() or checkpoint.suffix == ".edgekit":
        raise UsageError(
            f"{checkpoint} is a bundle, and --prompts here may be any words, which takes a checkpoint.\n"
            f"Colour pictures with the bundle's own: edgekit run {checkpoint} --source {source} --save out.mp4"
        )
    use_threads(threads)
    names = tuple(name for name in parse_prompts(prompts) if name != BACKGROUND)
    pictures = find_pictures(source)[:max_frames]
    model = load_tcl(checkpoint, clip=clip).model.to(choose_device(device))
    options = changed(options_for(model), templates=templates, pamr=pamr, background=background, clip_share=clip_share)
    segmenter = Segmenter(model, (BACKGROUND, *names), options, Tokenizer())
    palette = colours(segmenter.names)
    # 2. every picture
    for path in pictures:
        image = read_picture(path)
        scores = segmenter.scores(image)
        labels = scores.argmax(dim=0).cpu().numpy()
        files = write_segments(output, path.stem, image, labels, names=segmenter.names, palette=palette)
        found = {
            name: {
                "share": float((labels == number).mean()),
                "score": float(scores[number][labels == number].mean()) if (labels == number).any() else None,
            }
            for number, name in enumerate(segmenter.names)
        }
        click.echo(json.dumps({"source": str(path), "found": found, **files}))


if __name__ == "__main__":
    main()
