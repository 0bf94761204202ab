#!/usr/bin/env python3
"""Measure Sparse DETR: ``measure_detr.py --shared ../shared --sparse runs/a --dense runs/b`` fills docs/results/.

The two runs are of one recipe, one with a share of tokens and one with all of them. Every figure is read from the
``--json`` of edgekit's own commands, or from the log of a run; ``scripts/readme_tables.py`` then writes the tables.
``--only detr_training`` (or another table) repeats one.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from measure_default import PRECISIONS, RESULTS, edgekit, log_of, percent

from edgekit.cameras import open_source
from edgekit.masks.reuse import video_mask
from edgekit.pipeline import FrameResult, Pipeline, open_pipeline

PHOTOGRAPHS = 50
ACCURACY = 100
"""Pictures on which the gate of each conversion measures AP50."""

FORMATS = ("onnx", "openvino", "tflite")

CLIP = Path("videos") / "intel_one_by_one_person_768x432.mp4"
FRAMES = 150

PASSES = 2
"""How often each setting goes over the clip, in turns: of each frame the best time counts, as other programs on the
machine only ever add to it."""

WARM_UP = 10
"""Frames that do not count."""

MASKS = (("off", None), ("omg", None), ("omg", 0.1), ("motion", None), ("motion & omg", None))
"""Masks, and the budgets beside them."""

REFUSED = 5
"""Exit code of a gate."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Folders of training runs."""

    sparse: Path
    dense: Path
    early: Path | None
    """Of the first steps, in short epochs, where there is one."""


def detr_training(_: Path, runs: Runs) -> dict[str, Any]:
    """Both runs, epoch by epoch, and how soon the scoring network learns."""
    sparse, dense = runs.sparse, runs.dense
    rows, hours = [], []
    for run in (sparse, dense):
        about = edgekit("info", run / "best.pt")["spec"]["detr"]["token_share"]
        log = log_of(run)
        for row in log:
            losses = [f"{float(row[key]):.3f}" for key in ("class", "box", "giou")]
            correlation = f"{float(row['correlation']):.3f}" if row.get("correlation") else None
            scores = [percent(float(row[key])) if row[key] else None for key in ("ap50_mask_off", "ap50", "map")]
            rows.append([f"share {about:g}" if about else "dense", row["epoch"], *losses, correlation, *scores])
        hours.append(sum(float(row["seconds"]) for row in log) / 3600)
    config = json.loads((sparse / "config.json").read_text())
    note = (
        f"{config['model']} at {config['sizes'][0][1]} px on voc07 train from `--weights default`, one thread each of a"
        f" busy CPU, {hours[0]:.1f} and {hours[1]:.1f} hours; AP50 and mAP on voc07 val. The correlation is the"
        " share of the decoder's attention (DAM) that the best-scored tokens get."
    )
    if runs.early is not None:
        log = log_of(runs.early)
        rising = ", ".join(f"{float(row['correlation']):.3f}" for row in log)
        note += (
            f" It rises at once: in another run of the share, the means of {log[0]['steps']} steps each are {rising}."
        )
    columns = ["encoder", "epoch", "class", "box", "GIoU", "correlation", "AP50", "AP50 with masks", "mAP with masks"]
    return {"columns": columns, "rows": rows, "note": note}


def detr_bundles(data: Path, runs: Runs) -> dict[str, Any]:
    """Every conversion: its gate, and how near PyTorch its engines are."""
    sparse = runs.sparse
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            for precision in PRECISIONS:
                out = Path(folder) / f"{form}-{precision}.edgekit"
                pictures = ("--calib", data / "voc07", "--data", data / "voc07", "--limit", ACCURACY)
                kind = ("--format", form, "--precision", precision, "--sparse")
                try:
                    edgekit("export", sparse / "best.pt", *kind, *pictures, "-o", out)
                except subprocess.CalledProcessError as error:
                    if error.returncode != REFUSED:
                        raise
                    rows.append([form, precision, "refused", *[None] * 5])
                    continue
                about = edgekit("info", out)["accuracy"]
                photographs = ("--source", data / "voc07" / "images", "--frames", PHOTOGRAPHS)
                for found in beside(out, sparse / "best.pt", *photographs)["rows"]:
                    parity = found["parity"]
                    rows.append(
                        [found["engine"], precision, "passed", *(percent(about[f"ap50_{when}"])
                                                                 for when in ("before", "after")),
                         f"{parity['unpaired']} of {parity['detections']}", round(parity["box_error_px"], 3),
                         round(parity["score_error"], 4)]
                    )  # fmt: skip
    return {
        "columns": ["engine", "precision", "gate", "AP50 before", "after", "unpaired", "box px", "score"],
        "rows": rows,
        "note": f"AP50 on {ACCURACY} pictures of voc07 val through the gate, with masks. Beside it the worst of "
        f"{PHOTOGRAPHS} photographs against PyTorch: detections that only one has, and how far boxes and scores of the "
        "others are apart. The native engine and those that end in -sparse skip what is masked in mask network and "
        "backbone; in half precision these programs are fp32. Tokens are float in all of them.",
    }


def beside(bundle: Path, checkpoint: Path, *options: object) -> dict[str, Any]:
    """What ``edgekit verify --against`` reports, also where it finds that they differ."""
    command = [sys.executable, "-m", "edgekit.cli", "verify", bundle, "--against", checkpoint, *options, "--json"]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, REFUSED):
        done.check_returncode()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def detr_budget(data: Path, runs: Runs) -> dict[str, Any]:
    """The share of tokens against its cost and its accuracy."""
    report = edgekit("bench", "sparse-detr", runs.sparse / "best.pt", "--data", data / "voc07", "--iterations", 30)
    rows = [
        [row["engine"], "dense" if row["share"] is None else f"{row['share']:g}", row["tokens"],
         f"{row['whole']['gmacs']:.2f}", f"{row['encoder']['gmacs']:.2f}",
         *(f"{row[part]['ms_min']:.1f} / {row[part]['ms_median']:.1f}" for part in ("whole", "encoder")),
         *(f"{row[part]['to_dense']:.2f}" for part in ("whole", "encoder")), percent(row["ap50"])]
        for row in report["rows"]
    ]  # fmt: skip
    model, sides = report["model"], report["input"]
    note = (
        f"{model['variant']}, trained with a share of {model['token_share']:g}, fp32, {sides['height']}x"
        f"{sides['width']}, one thread, {report['machine']['cpu']}; milliseconds least / median, the whole without a "
        f"mask and its encoder alone. GMACs as in the paper. AP50 on {model['images']} pictures of {model['data']}, by "
        "PyTorch: any share can be asked of one network."
    )
    columns = ["engine", "share", "tokens", "GMAC", "encoder", "ms", "encoder ms", "to dense", "encoder to dense",
               "AP50"]  # fmt: skip
    return {"columns": columns, "rows": rows, "note": note}


def detr_video(data: Path, runs: Runs) -> dict[str, Any]:
    """Masks on a clip: active cells, tokens and time."""
    settings = [(engine, *masked) for engine in ("openvino", "native") for masked in MASKS]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "detr.edgekit"
        exported = ("--format", "openvino", "--precision", "int8", "--sparse", "--calib", data / "voc07")
        edgekit("export", runs.sparse / "best.pt", *exported, "-o", out)
        detectors = {engine: open_pipeline(out, engine=engine, threads=1) for engine in ("openvino", "native")}
        passes = [in_turns(data / CLIP, detectors, settings) for _ in range(PASSES)]
    rows = []
    for index, (engine, mask, budget) in enumerate(settings):
        seen = [frame[index] for frame in passes[0]]
        times = [[min(results[index].timings_ms[stage] for results in same) for same in zip(*passes, strict=True)]
                 for stage in ("mask", "detector")]  # fmt: skip
        rows.append(
            [engine, mask, budget and f"{budget:.0%}", percent(statistics.fmean(one.active_share for one in seen)),
             round(statistics.fmean(one.tokens or 0 for one in seen)),
             *(f"{statistics.fmean(stage):.1f}" for stage in times),
             f"{statistics.fmean(map(sum, zip(*times, strict=True))):.1f}"]
        )  # fmt: skip
    rows = [[*row, f"{float(row[-1]) / float(rows[0][-1]):.2f}"] for row in rows]
    return {
        "columns": ["engine", "--mask", "--budget", "active", "tokens", "mask ms", "detector ms", "both", "to first"],
        "rows": rows,
        "note": f"{FRAMES} frames of {CLIP.name}, a fixed camera; int8 bundle, one thread, all rows in turns at each "
        f"frame; means over the frames, of each the best of {PASSES} passes. With `native` the backbone is a sparse "
        "program, and OpenVINO refines and decodes tokens.",
    }


def in_turns(
    clip: Path, detectors: dict[str, Pipeline], settings: list[tuple[str, str, float | None]]
) -> list[list[FrameResult]]:
    """What each setting makes of each frame; they take turns, so that the machine's moods meet all of them alike."""
    pipelines = [
        detectors[engine].with_mask(video_mask(mask, detectors[engine].spec, budget=budget))
        for engine, mask, budget in settings
    ]
    results = []
    with open_source(str(clip)) as source:
        for frame in itertools.islice(source, FRAMES + WARM_UP):
            results.append([one.process(frame.image, time_s=frame.time_s) for one in pipelines])
    return results[WARM_UP:]


TABLES: dict[str, Callable[[Path, Runs], dict[str, Any]]] = {
    function.__name__: function for function in (detr_training, detr_budget, detr_video, detr_bundles)
}


@click.command()
@click.option("--shared", type=click.Path(exists=True, path_type=Path), required=True, help="Folder that holds data/.")
@click.option("--sparse", type=click.Path(exists=True, path_type=Path), required=True, help="A run with a share.")
@click.option("--dense", type=click.Path(exists=True, path_type=Path), required=True, help="Its twin without.")
@click.option("--early", type=click.Path(exists=True, path_type=Path), help="A run of short epochs, of the share.")
@click.option("--only", multiple=True, type=click.Choice(list(TABLES)), help="Measure only these tables.")
def main(shared: Path, sparse: Path, dense: Path, early: Path | None, only: tuple[str, ...]) -> None:
    """Fill docs/results/."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in only or TABLES:
        click.echo(f"measuring {name}", err=True)
        document = TABLES[name](shared / "data", Runs(sparse=sparse, dense=dense, early=early))
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
