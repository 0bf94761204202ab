#!/usr/bin/env python3
"""Measure detectors that learn from words: ``measure_label.py words/best.pt --data voc07 ...``.

Pictures of a labelled data set are labelled by ``edgekit label``, as if nobody had. The same detector is trained twice
on the same pictures, once on these labels and once on the true boxes, and both are evaluated on the true boxes of the
data set's split val, which neither has seen. The result is docs/results/label.json; ``scripts/readme_tables.py`` then
writes the table.

Every step leaves something in the folder ``--work``, and one whose result is there is not repeated: a run that was
stopped goes on where it was, in mid-training, too. ``--only truth`` (or another step) does one step.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure_default import RESULTS, percent

from edgekit.data.datasets import open_dataset
from edgekit.detections import Detections
from edgekit.metrics.detection import evaluate_detections
from edgekit.models.tcl.prompts import parse_classes

MODEL = "mobilenetv2-ssdlite-omg"
SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and where everything lies."""

    checkpoint: Path
    data: Path
    """With images/ and annotations/instances_{train,val}.json."""

    work: Path
    prompts: str
    pictures: int
    label_options: Sequence[str]
    train_options: Sequence[str]
    out: Path

    @property
    def classes(self) -> list[str]:
        """Names of what is looked for, which the data set knows them by."""
        return [name for name in parse_classes(self.prompts) if name != "background"]

    def annotations(self, split: str, of: Path | None = None) -> dict[str, Any]:
        """The annotation file of a split of the data set, or of another one."""
        path = (of or self.data) / "annotations" / f"instances_{split}.json"
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document


def pictures(plan: Plan) -> None:
    """Some pictures of the split train, as they come: many hold none of the classes, as anybody's pictures do."""
    folder = plan.work / "pictures"
    names = sorted(image["file_name"] for image in plan.annotations("train")["images"])
    chosen = np.random.default_rng(0).permutation(len(names))[: plan.pictures]
    folder.mkdir(parents=True, exist_ok=True)
    for name in (names[index] for index in chosen):
        if not (folder / name).exists():
            (folder / name).symlink_to((plan.data / "images" / name).resolve())


def labels(plan: Plan) -> None:
    """Their labels, by words."""
    if (plan.work / "labels").is_dir():
        return
    report = edgekit(
        "label", plan.checkpoint, "--prompts", plan.prompts, "--frames", plan.work / "pictures",
        "-o", plan.work / "labels", *plan.label_options,
    )  # fmt: skip
    keep(plan.work / "labels.json", report)


def truth(plan: Plan) -> None:
    """The same pictures in the same splits, with their true boxes."""
    known = plan.annotations("train")
    numbers = {category["id"]: category["name"] for category in known["categories"]}
    of_file = {image["file_name"]: image["id"] for image in known["images"]}
    categories = [{"id": number, "name": name} for number, name in enumerate(plan.classes, start=1)]
    new = {category["name"]: category["id"] for category in categories}
    (plan.work / "truth" / "annotations").mkdir(parents=True, exist_ok=True)
    images = plan.work / "truth" / "images"
    if not images.is_symlink():
        images.symlink_to(Path(os.pardir) / "labels" / "images")
    for split in SPLITS:
        labelled = plan.annotations(split, plan.work / "labels")["images"]
        image_of = {of_file[image["file_name"]]: image["id"] for image in labelled}
        boxes = [
            {**box, "image_id": image_of[box["image_id"]], "category_id": new[numbers[box["category_id"]]]}
            for box in known["annotations"]
            if box["image_id"] in image_of and numbers[box["category_id"]] in new
        ]
        keep(
            plan.work / "truth" / "annotations" / f"instances_{split}.json",
            {"images": labelled, "annotations": boxes, "categories": categories},
        )


def train_labels(plan: Plan) -> None:
    """A detector that learns from the labels."""
    train(plan, "labels")


def train_truth(plan: Plan) -> None:
    """Its twin that learns from true boxes."""
    train(plan, "truth")


def train(plan: Plan, name: str) -> None:
    """One of the two, to its end; its ``best.pt`` is chosen by its own split val."""
    run, report = plan.work / f"run-{name}", plan.work / f"run-{name}.json"
    if report.is_file():
        return
    resume = ("--resume",) if (run / "last.pt").is_file() else ()
    options = (*plan.train_options, *resume)
    keep(report, edgekit("train", MODEL, "--data", plan.work / name, "-o", run, *options, "--json"))


def evaluate(plan: Plan) -> None:
    """Both on pictures that neither has seen."""
    others = [one["name"] for one in plan.annotations("val")["categories"] if one["name"] not in plan.classes]
    dropped = ("--class-map", ",".join(f"{name}=" for name in others)) if others else ()
    for name in ("labels", "truth"):
        best = plan.work / f"run-{name}" / "best.pt"
        keep(plan.work / f"val-{name}.json", edgekit("val", best, "--data", plan.data, *dropped, "--json"))


def table(plan: Plan) -> None:
    """docs/results/label.json."""
    report, info = read(plan.work / "labels.json"), plan.annotations("train", plan.work / "labels")["info"]
    by_words, by_hand = (read(plan.work / f"val-{name}.json") for name in ("labels", "truth"))
    own = quality_of_labels(plan)
    true_boxes = count_true(plan)
    rows = [
        [name, true_boxes[name], report["boxes"][name]["sure"], report["boxes"][name]["unsure"],
         *(percent(score.get(name, 0.0)) for score in (own[1], by_words["ap50_per_class"], by_hand["ap50_per_class"]))]
        for name in plan.classes
    ]  # fmt: skip
    sums = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    rows.append(["all", *sums, *(percent(score) for score in (own[0], by_words["ap50"], by_hand["ap50"]))])
    config = read(plan.work / "run-labels" / "config.json")
    masks = " and ".join(
        f"{percent(one['mask_recall'])} at {percent(one['active_share'])}" for one in (by_words, by_hand)
    )
    note = (
        f"{MODEL}, {config['sizes'][0][1]} px, {config['epochs']} epochs on {report['train']} pictures of "
        f"{plan.data.resolve().name} train, {report['empty']} of {report['pictures']} without a label; AP50 on "
        f"{by_words['images']} pictures of {by_words['data']}, with masks, of which the recall and the active cells "
        f"are {masks}. Labels by {info['labelled_by']}, sure from {info['conf']:g}. The labels' own AP50 is that of "
        "the sure ones against the true boxes of the same pictures."
    )
    columns = ["class", "true boxes", "labels", "unsure", "labels' own AP50", "trained on labels", "on true boxes"]
    keep(plan.out, {"columns": columns, "rows": rows, "note": note})


def quality_of_labels(plan: Plan) -> tuple[float, dict[str, float]]:
    """AP50 of the sure labels against the true boxes of the same pictures: of all, and by class."""
    first, second = (open_dataset(plan.work / "truth", split, plan.classes) for split in SPLITS)
    true = replace(first, samples=first.samples + second.samples)
    made = [box for split in SPLITS for box in plan.annotations(split, plan.work / "labels")["annotations"]]
    found: dict[int, list[dict[str, Any]]] = {sample.image_id: [] for sample in true.samples}
    for box in sorted(made, key=lambda box: -float(box["score"])):
        if not box["ignore"]:
            found[box["image_id"]].append(box)
    metrics = evaluate_detections(true, {number: detections_of(boxes) for number, boxes in found.items()})
    return metrics.ap50, dict(metrics.ap50_per_class)


def detections_of(boxes: list[dict[str, Any]]) -> Detections:
    """Annotations of one picture, the best first, as if a detector had found them."""
    sides = np.array([box["bbox"] for box in boxes], np.float32).reshape(-1, 4)
    return Detections(
        boxes_xyxy=np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1),
        scores=np.array([box["score"] for box in boxes], np.float32),
        class_ids=np.array([box["category_id"] - 1 for box in boxes], np.int64),
    )


def count_true(plan: Plan) -> dict[str, int]:
    """Boxes of each class in the pictures that are learnt from, without those to be ignored."""
    boxes = [box for split in SPLITS for box in plan.annotations(split, plan.work / "truth")["annotations"]]
    counted = [box["category_id"] for box in boxes if not box.get("ignore", 0)]
    return {name: counted.count(number) for number, name in enumerate(plan.classes, start=1)}


def edgekit(*arguments: object) -> dict[str, Any]:
    """The JSON that ``edgekit ARGUMENTS`` prints; the command is shown first."""
    words = [str(argument) for argument in arguments]
    click.echo(f"edgekit {shlex.join(words)}", err=True)
    done = subprocess.run([sys.executable, "-m", "edgekit.cli", *words], check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def read(path: Path) -> dict[str, Any]:
    """What :func:`keep` wrote."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def keep(path: Path, document: dict[str, Any]) -> None:
    """Write a step's result, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


STEPS: dict[str, Callable[[Plan], None]] = {
    step.__name__.replace("_", "-"): step
    for step in (pictures, labels, truth, train_labels, train_truth, evaluate, table)
}


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True,
    help="A data set with images/ and annotations/instances_{train,val}.json.",
)  # fmt: skip
@click.option(
    "--weights", required=True,
    help="What both start from, e.g. an ImageNet MobileNetV2 .tflite. The shipped detector has seen true boxes.",
)  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the steps' results.")
@click.option(
    "--prompts", default="person,car,dog,cat,bird,horse", show_default=True, help="As in edgekit label; its classes."
)
@click.option("--pictures", "count", default=1000, show_default=True, help="Of the split train, drawn by lot.")
@click.option("--label-options", default="", help="More options of edgekit label, in one word: '--conf 0.7'.")
@click.option(
    "--train-options", default="--imgsz 192 --epochs 20", show_default=True, help="Options of edgekit train, likewise."
)
@click.option("--only", multiple=True, type=click.Choice(list(STEPS)), help="Do only these steps.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=RESULTS / "label.json", help="Where the table goes."
)
def main(
    checkpoint: Path,
    data: Path,
    weights: str,
    work: Path,
    prompts: str,
    count: int,
    label_options: str,
    train_options: str,
    only: tuple[str, ...],
    output: Path,
) -> None:
    """Fill docs/results/label.json with what CHECKPOINT, a TCL model, is worth as a labeller."""
    plan = Plan(
        checkpoint=checkpoint, data=data, work=work, prompts=prompts, pictures=count,
        label_options=shlex.split(label_options), out=output,
        train_options=("--weights", weights, *shlex.split(train_options)),
    )  # fmt: skip
    for name in only or STEPS:
        click.echo(f"step {name}", err=True)
        STEPS[name](plan)


if __name__ == "__main__":
    main()
