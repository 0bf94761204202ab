"""Labels from words: ``edgekit label CHECKPOINT --prompts "person, car" --frames FOLDER -o labels``."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import click

from edgekit.cli import Program

log = logging.getLogger("edgekit")

SURE = 0.1
"""How far above the background's score a thing is sure, if nobody says otherwise."""


@click.command("label", cls=Program)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--prompts", required=True,
    help="Classes, separated by commas, some with several prompts: 'person, car=car|truck|van'. What "
    "'background=road|sky|tree' names is none of them.",
)  # fmt: skip
@click.option(
    "--frames", "--source", "frames", multiple=True, required=True, metavar="DIR|VIDEO|GLOB",
    help="A folder of pictures and videos, with its subfolders, a video, a glob or a picture; may be repeated.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("labels"), show_default=True,
    help="Folder of the data set, for edgekit train --data.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the labels of an earlier call.")
@click.option(
    "--conf", type=click.FloatRange(0, 1),
    help=f"Mean score from which a thing is an object; others are marked to be ignored  [default: {SURE:g} over the "
    "background's]",
)  # fmt: skip
@click.option(
    "--min-share", type=click.FloatRange(0, 1), default=0.005, show_default=True,
    help="Share of the picture below which a thing is left out.",
)  # fmt: skip
@click.option(
    "--join", type=click.FloatRange(0, 1), default=0.04, show_default=True,
    help="Share of the picture's shorter side; parts of a class that are no further apart are one thing.",
)  # fmt: skip
@click.option("--drop-empty", is_flag=True, help="Leave out pictures without a thing; they teach what is none.")
@click.option(
    "--val-share", type=click.FloatRange(0, 0.9, min_open=True), default=0.1, show_default=True,
    help="Share of the pictures in the split val, in blocks: neighbours in a video are nearly the same picture.",
)  # fmt: skip
@click.option(
    "--every", type=click.IntRange(min=1), default=25, show_default=True, metavar="N", help="Each N-th frame of videos."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N pictures and frames.")
@click.option("--copy", is_flag=True, help="Copy pictures; otherwise they are hard links where the disk can do that.")
@click.option("--clip", type=click.Path(path_type=Path), help="CLIP's ViT-B-16.pt, for the published tcl.pth.")
@click.option("--templates", help="Sentences that names are put into: custom, photo or none  [default: the model's]")
@click.option("--pamr/--no-pamr", default=None, help="Refine masks along colours  [default: yes]")
@click.option(
    "--background", type=click.FloatRange(0, 1),
    help="Score from which a name wins over the background  [default: the model's]",
)  # fmt: skip
@click.option("--clip-share", type=click.FloatRange(0, 1), help="Part of the encoder's own map  [default: the model's]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
def main(
    checkpoint: Path,
    prompts: str,
    frames: tuple[str, ...],
    output: Path,
    overwrite: bool,
    conf: float | None,
    min_share: float,
    join: float,
    drop_empty: bool,
    val_share: float,
    every: int,
    limit: int | None,
    copy: bool,
    clip: Path | None,
    templates: str | None,
    pamr: bool | None,
    background: float | None,
    clip_share: float | None,
    device: str,
    threads: int | None,
) -> None:
    """Write boxes and masks of what words name, as a data set to train a detector and its mask network from.

    CHECKPOINT is of `edgekit train tcl`, or the published tcl.pth with --clip. Each connected part of a mask is a
    thing: cars that touch become one, a person behind a broad post two. A thing whose mean score is below --conf is
    written with "ignore": training neither learns it nor takes it for background. Turned photographs and frames of
    videos become JPEGs. Prints one line of JSON.
    """
    from edgekit.models.torch_threads import use_threads
    from edgekit.opencv import require_opencv

    use_threads(threads)
    require_opencv("find the connected parts of a mask", extra="segment")
    from edgekit.data.coco_json import LABELLED_BY
    from edgekit.errors import UsageError
    from edgekit.exporters.tools import tool_versions
    from edgekit.labelling.classes import best_of_prompts
    from edgekit.labelling.dataset import LabelWriter
    from edgekit.labelling.footage import Footage, find_footage
    from edgekit.learning.distributed import choose_device
    from edgekit.models.tcl.checkpoint import load_tcl
    from edgekit.models.tcl.prompts import parse_classes
    from edgekit.models.tcl.segmenter import BACKGROUND, Segmenter, changed, options_for
    from edgekit.models.tcl.tokenizer import Tokenizer
    from edgekit.segmentation.things import find_things

    # 1. what to look for, where, and with what
    classes = parse_classes(prompts)
    if classes.get(BACKGROUND) == (BACKGROUND,):
        del classes[BACKGROUND]  # it is there anyway
    names = [name for name in classes if name != BACKGROUND]
    if not names:
        raise UsageError(f"--prompts {prompts!r} names nothing but the background; name something to look for, too")
    found = dict.fromkeys(file for source in frames for file in find_footage(source))
    # Labels of an earlier call may lie below the folder of pictures.
    others = [file for file in found if output.resolve() not in file.resolve().parents]
    footage = Footage(others, every=every, limit=limit)
    loaded = load_tcl(checkpoint, clip=clip)
    model = loaded.model.to(choose_device(device))
    options = changed(options_for(model), templates=templates, pamr=pamr, background=background, clip_share=clip_share)
    texts = tuple(text for of_class in classes.values() for text in of_class)
    segmenter = Segmenter(model, (BACKGROUND, *texts), options, Tokenizer())
    sure = min(1.0, options.background_score + SURE) if conf is None else conf
    # 2. every frame
    with LabelWriter(output, classes=names, sure=sure, overwrite=overwrite, copy=copy) as writer:
        with click.progressbar(footage, length=footage.count, file=sys.stderr, hidden=not sys.stderr.isatty()) as shown:
            for frame in shown:
                labels, confidence = best_of_prompts(segmenter.scores(frame.image), classes)
                smallest_px, join_px = min_share * labels.size, join * min(labels.shape)
                things = find_things(labels, confidence, smallest_px=smallest_px, join_px=join_px)
                if things or not drop_empty:
                    writer.add(frame, things)
        # 3. the data set, and where it comes from
        made_from = loaded.provenance.get("training_data", "unknown data")
        info = {
            "description": "boxes and masks made by edgekit label, not by hand",
            LABELLED_BY: f"{model.spec.name} {checkpoint.name} (trained on {made_from}) from the words {prompts!r}",
            "tool_versions": tool_versions(),
            "provenance": loaded.provenance,
            "prompts": classes,
            "options": {**asdict(options), "background": options.background_score},
            "conf": sure,
            "min_share": min_share,
            "join": join,
            "val_share": val_share,
            "every": every,
            "frames": [Path(source).name for source in frames],
        }
        report = writer.finish(val_share=val_share, info=info)
    log.info("edgekit train MODEL --data %s learns from these labels; edgekit val on true boxes tells how well", output)
    click.echo(json.dumps({"output": str(output), "conf": sure, "unreadable": len(footage.unreadable), **report}))


if __name__ == "__main__":
    main()
