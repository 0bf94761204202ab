#!/usr/bin/env python3
"""Measure segmentation by words: ``measure_tcl.py --shared ../shared --run runs/words --untrained runs/start``.

``runs/words`` is of ``edgekit train tcl`` with ``--val``; ``runs/start`` is the same after no training
(``--align-steps 0 --steps 1 --lr 1e-9``). Every figure is read from the ``--json`` of edgekit's own commands or from
the log of the run; ``scripts/readme_tables.py`` then writes the tables. ``--only tcl_bundles`` repeats one.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from measure_default import PRECISIONS, RESULTS, edgekit, log_of, percent

FORMATS = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",), "tflite": ("tflite",)}
"""Format -> the engines that are timed with it."""

PROMPTS = "person, car, dog, cat, bird, horse"

REFUSED = 5
"""Exit code of a gate."""


def tcl_training(data: Path, run: Path, untrained: Path, device: str) -> dict[str, Any]:
    """The run at each of its evaluations, and how good its best weights are beside none and beside no masks."""
    lines = log_of(run)
    log = [line for line in lines if line["miou"]]
    config = json.loads((run / "config.json").read_text())
    before, after = ({split: evaluate(one, data, split) for split in ("val", "train")} for one in (untrained, run))
    rows: list[list[Any]] = [["untrained", 0, *[None] * 3, *scores(before)]]
    for line in log:
        losses = [f"{float(line[key]):.3f}" for key in ("tcl_v", "tcl_f", "area")]
        rows.append([line["phase"], int(line["step"]), *losses, *(percent(float(line[key])) for key in SCORES), None])
    rows.append(["best of these", None, *[None] * 3, *scores(after)])
    whole = [percent(report["whole_pictures_miou"]) for report in after.values()]
    rows.append(["whole pictures", None, *[None] * 3, whole[0], None, whole[1]])
    minutes = sum(float(line["seconds"]) for line in lines) / 60
    note = (
        f"{config['model']} from ImageNet's MobileNetV2, on captions of coco_mini and of class names of voc07 train:"
        f" {config['align_steps']} steps in which the encoders meet and {config['steps']} of the masker,"
        f" {config['batch_size']} pairs each, {minutes:.0f} minutes{f' on {device}' if device else ''}. No mask was"
        " learnt from. mIoU over 20 classes and the background on the masks of 30 pictures of voc07 val, by which the"
        " best step was chosen, and of 80 of voc07 train, whose masks chose nothing. Whole pictures: each is wholly of"
        " the class that its embedding is nearest to."
    )
    columns = ["phase", "step", "TCL_v", "TCL_f", "area", "mIoU", "pixels right", "mIoU on the other masks"]
    return {"columns": columns, "rows": rows, "note": note}


SCORES = ("miou", "pixel_accuracy")


def evaluate(run: Path, data: Path, split: str) -> dict[str, Any]:
    """What ``edgekit val tcl`` says of a run's best weights."""
    report: dict[str, Any] = edgekit("val", "tcl", run / "best.pt", "--data", data / "voc07", "--split", split)
    return report


def scores(reports: dict[str, dict[str, Any]]) -> list[str]:
    """mIoU and the share of the pixels that are right, and mIoU on the masks of train."""
    return [*(percent(reports["val"][key]) for key in SCORES), percent(reports["train"]["miou"])]


def tcl_bundles(data: Path, run: Path, _: Path, __: str) -> dict[str, Any]:
    """Every conversion: its gate, and what a frame takes."""
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for form, engines in FORMATS.items():
            for precision in PRECISIONS:
                out = Path(folder) / f"{form}-{precision}.edgekit"
                pictures = ("--calib", data / "voc07", "--data", data / "voc07")
                kind = ("--format", form, "--precision", precision, "--prompts", PROMPTS)
                try:
                    report = edgekit("export", "tcl", run / "best.pt", *kind, *pictures, "-o", out)
                except subprocess.CalledProcessError as error:
                    if error.returncode != REFUSED:
                        raise
                    rows.append([form, precision, "refused", *[None] * 7])
                    continue
                gate = report["gate"]
                scores = [percent(gate["accuracy"][f"miou_{when}"]) for when in ("before", "after")]
                for engine in engines:
                    (row,) = edgekit("profile", out, "--engine", engine, "--threads", 1)["engines"]
                    stages = [f"{row['stages'][stage]['min_ms']:.1f} / {row['stages'][stage]['p50_ms']:.1f}"
                              for stage in ("graph", "masks", "total")]  # fmt: skip
                    rows.append([form, precision, "passed", f"{gate['parity']['iou']:.4f}", *scores, engine, *stages])
    columns = ["format", "precision", "gate", "IoU with PyTorch", "mIoU before", "after", "engine", "graph ms",
               "masks ms", "whole ms"]  # fmt: skip
    note = (
        f"Input 224x304, one thread, least / median ms, prompts {PROMPTS!r}. IoU of label maps with PyTorch's,"
        " mean over labels, on calibration pictures; mIoU on the masks of 30 pictures of voc07 val, as the gate has"
        " them. Masks: cosines and refinement along colours (PAMR), which `--no-pamr` leaves out."
    )
    return {"columns": columns, "rows": rows, "note": note}


TABLES: dict[str, Callable[[Path, Path, Path, str], dict[str, Any]]] = {
    function.__name__: function for function in (tcl_training, tcl_bundles)
}


@click.command()
@click.option("--shared", type=click.Path(exists=True, path_type=Path), required=True, help="Folder that holds data/.")
@click.option("--run", type=click.Path(exists=True, path_type=Path), required=True, help="Of edgekit train tcl.")
@click.option("--untrained", type=click.Path(exists=True, path_type=Path), required=True, help="The same, untrained.")
@click.option("--device", default="", help="What the run was trained on, for the note: 'one H200'.")
@click.option("--only", multiple=True, type=click.Choice(list(TABLES)), help="Measure only these tables.")
def main(shared: Path, run: Path, untrained: Path, device: str, only: tuple[str, ...]) -> None:
    """Fill docs/results/."""
    for name in only or TABLES:
        click.echo(f"measuring {name}", err=True)
        document = TABLES[name](shared / "data", run, untrained, device)
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
