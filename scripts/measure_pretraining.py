#!/usr/bin/env python3
"""Measure what pretraining is worth: ``measure_pretraining.py RUNS... --data voc07`` fills docs/results/.

Each RUNS holds folders of runs: ``scrl`` and ``byol`` of ``edgekit pretrain``, and ``few-NAME`` of ``edgekit train`` on
the same few labels, from weights of that NAME (``random``, ``byol``, ``scrl``, ``imagenet``; those that are there). How
they are made:

    D="--data voc07 --data videos"
    edgekit pretrain mobilenetv2 $D -o RUNS/scrl
    edgekit pretrain mobilenetv2 $D --method byol -o RUNS/byol
    FEW="edgekit train mobilenetv2-ssdlite-omg --data voc07 --label-share 0.1
        --recipe training/recipes/few-labels/mobilenetv2-ssdlite-omg.toml"
    $FEW --weights none -o RUNS/few-random
    $FEW --weights RUNS/scrl/pretrained.pth -o RUNS/few-scrl          # and so on

Each detector is evaluated by ``edgekit val`` on the whole split val; ``scripts/readme_tables.py`` then writes the
table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from measure_default import RESULTS, edgekit, log_of, percent

STARTS = {
    "random": "random weights",
    "byol": "BYOL, no labels",
    "scrl": "SCRL, no labels",
    "imagenet": "ImageNet, 1.3 M labels",
}


def row(runs: Path, name: str, data: Path) -> list[Any]:
    """One start: how long it was pretrained, and what its detector is worth."""
    epochs = probe = None
    if (runs / name / "log.csv").is_file():
        log = log_of(runs / name)
        epochs, probe = len(log), percent(float(log[-1]["val_accuracy"]))
    run = runs / f"few-{name}"
    scores = edgekit("val", run / "best.pt", "--data", data, "--threads", 1)
    measured = [percent(value) for value in (scores["ap50"], scores["mask_off"]["ap50"], scores["map"])]
    seed = json.loads((run / "config.json").read_text())["seed"]
    return [STARTS[name], epochs, probe, seed, len(log_of(run)), *measured, percent(scores["mask_recall"])]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="With its split val.")
@click.option("--remark", default="", help="A sentence for the note under the table.")
def main(runs: tuple[Path, ...], data: Path, remark: str) -> None:
    """Fill docs/results/few_labels.json."""
    found = [(one, name) for name in STARTS for one in runs if (one / f"few-{name}" / "best.pt").is_file()]
    first = found[0][0] / f"few-{found[0][1]}"
    about = edgekit("info", first / "best.pt")["provenance"]["training_data"]
    config = json.loads((first / "config.json").read_text())
    note = (
        f"{config['model']} at {config['sizes'][0][1]} px on {about}, AP50 and mAP on {data.resolve().name} val with"
        " masks. The probe is a linear classifier of the pretrained features, for pictures of which one class covers"
        f" most. {remark}"
    )
    columns = ["starts from", "pretrained, epochs", "probe", "seed", "epochs", "AP50", "AP50 without masks", "mAP",
               "mask recall"]  # fmt: skip
    document = {"columns": columns, "rows": [row(one, name, data) for one, name in found], "note": note.strip()}
    (RESULTS / "few_labels.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
