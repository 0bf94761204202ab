#!/usr/bin/env python3
"""Measure the shipped detector: ``scripts/measure_default.py --shared ../shared --run runs/x`` fills docs/results/.

Every figure is read from the ``--json`` of edgekit's own commands; ``scripts/readme_tables.py`` then writes the tables.
Takes an hour or two on two cores; ``--only accuracy`` (or another table) repeats one.
"""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
PICTURES = {"voc07": "photographs (voc07 val)", "fixedcam_pets09": "fixed camera (pets09)"}
FORMATS, PRECISIONS = ("onnx", "tflite", "openvino", "sparse"), ("fp32", "fp16", "int8")
CONVERSIONS = [pair for pair in itertools.product(FORMATS, PRECISIONS) if pair != ("sparse", "fp16")]


def edgekit(*arguments: object) -> Any:
    """The JSON that ``edgekit ARGUMENTS --json`` prints."""
    command = [sys.executable, "-m", "edgekit.cli", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def log_of(run: Path) -> list[dict[str, str]]:
    """The lines of a run's log, one an epoch or some steps."""
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def percent(share: float) -> str:
    """0..1 as per cent."""
    return f"{100 * share:.1f} %"


def networks(_: Path, __: Path) -> dict[str, Any]:
    """Every network's size and cost."""
    rows = [
        [
            model["name"],
            f"{model['width']}x{model['height']}",
            *(f"{model[key] / 1e6:.2f} M" for key in ("weights", "parameters")),
            f"{model['macs'] / 1e6:,.1f} M",
            "yes" if model["trainable"] else f"as {model['trained_as']}" if model["trained_as"] else "not yet",
        ]
        for model in edgekit("models")
    ]
    return {
        "columns": ["network", "input", "weights", "parameters", "MACs", "trains"],
        "rows": rows,
        "note": "20 classes, or ImageNet's 1000; the mask network included, and 200 RoIs where there are any. Weights "
        "are those of convolutions and fully connected layers, parameters have biases and norms too. The published "
        "DETRs have COCO's 91 labels, and are counted as they were in publication: norms and samples cost a little.",
    }


def accuracy(data: Path, _: Path) -> dict[str, Any]:
    """Average precision of the shipped bundle, with and without masks; the table ``gate`` compares it with float."""
    rows = []
    for folder, title in PICTURES.items():
        on = edgekit("val", "default", "--data", data / folder)
        shares = (on["ap50"], on["mask_off"]["ap50"], on["map"], on["mask_recall"], on["active_share"])
        rows.append([title, *map(percent, shares), *(f"{on[key] / 1e6:.0f} M" for key in ("macs", "macs_executed"))])
    return {
        "columns": ["pictures", "AP50", "AP50 mask off", "mAP", "mask recall", "active", "MACs", "executed"],
        "rows": rows,
        "note": "The shipped int8 bundle; 20 classes in the photographs, persons on the camera. Executed MACs are "
        "those at active sites, the mask network included.",
    }


def masks(data: Path, _: Path) -> dict[str, Any]:
    """Zero activations and non-zero MACs beside the paper's."""
    rows: list[list[Any]] = [["paper (arXiv 2002.01609): COCO photographs", "36 %", "68 %", "-37.9 %", ""]]
    for folder, title in PICTURES.items():
        on = edgekit("val", "default", "--engine", "torch", "--zeros", "--data", data / folder, "--limit", 200)
        zeros, off = on["zeros"], on["mask_off"]["zeros"]
        rows.append(
            [title, percent(off["zero_share"]), percent(zeros["zero_share"]),
             f"{100 * (zeros['macs_nonzero'] / off['macs_nonzero'] - 1):+.1f} %",
             f"{100 * (on['macs_executed'] / on['macs'] - 1):+.1f} %"]
        )  # fmt: skip
    return {
        "columns": ["pictures", "zeros, mask off", "zeros, mask on", "non-zero MACs", "site-masked MACs"],
        "rows": rows,
        "note": "Zeros are the share of zero inputs over the detector's convolutions; MACs count the mask network. The "
        "paper's site-masked figure is not published. First 200 pictures of each set.",
    }


def gate(data: Path, _: Path) -> dict[str, Any]:
    """Every format and precision through its gate."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for form, precision in CONVERSIONS:
            out = Path(folder) / f"{form}-{precision}.edgekit"
            edgekit("export", "default", "--format", form, "--precision", precision, "--calib", data / "voc07",
                    "--data", data / "voc07", "--zip", "-o", out)  # fmt: skip
            report = edgekit("info", out)
            edgekit("verify", out)
            before, after = report["accuracy"]["ap50_before"], report["accuracy"]["ap50_after"]
            rows.append(
                [form, precision, percent(before), percent(after), f"{100 * (after - before):+.2f}",
                 f"{out.stat().st_size / 1e6:.1f} MB"]
            )  # fmt: skip
    return {
        "columns": ["format", "precision", "AP50 before", "AP50 after", "points", "zipped"],
        "rows": rows,
        "note": "voc07 val through the whole pipeline; every bundle passed its gate and `edgekit verify`.",
    }


def engines(data: Path, _: Path) -> dict[str, Any]:
    """Every engine beside PyTorch, on photographs and on fixed cameras."""
    footage = [data / "voc07" / "images", *sorted((data / "videos").glob("*.*"))]
    sources = [item for path in footage for item in ("--source", path)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            out = Path(folder) / f"{form}.edgekit"
            edgekit("export", "default", "--format", form, "--precision", "fp32", "-o", out)
            for row in edgekit("verify", out, "--against", "default", *sources, "--frames", 100)["rows"]:
                parity = row["parity"]
                rows.append(
                    [form, row["engine"], "/".join(Path(row["source"]).parts[-2:]), parity["images"],
                     *(parity[key] for key in ("detections", "unpaired", "candidates", "disagreeing")),
                     round(parity["box_error_px"], 4), round(parity["score_error"], 5), parity["mask_cells_differing"]]
                )  # fmt: skip
    counts = ("detections", "unpaired", "candidates", "apart")
    return {
        "columns": ["bundle", "engine", "source", "frames", *counts, "box px", "score", "mask cells"],
        "rows": rows,
        "note": "The built-in detector in float32 beside PyTorch. Candidates are the anchors and classes over the "
        "score threshold, before suppression; apart are those outside the tolerances above.",
    }


def latency(_: Path, __: Path) -> dict[str, Any]:
    """Where the shipped bundle's time goes."""
    report = edgekit("profile", "default", "--threads", 1, "--no-layers")
    rows = []
    for engine in filter(lambda engine: engine["ran"], report["engines"]):
        for stage, figures in engine["stages"].items():
            rows.append([engine["engine"], stage, *(f"{figures[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))])
    note = f"Milliseconds, one thread, {report['machine']['cpu']}."
    return {"columns": ["engine", "stage", "p50", "p95", "p99"], "rows": rows, "note": note}


def mask_every(data: Path, _: Path) -> dict[str, Any]:
    """What is lost when a fixed camera's masks are kept for several frames."""
    rows = []
    settings = [("omg", every, 0) for every in (1, 2, 5, 10, 30)]
    settings += [("omg+tracks", 1, 0), ("omg+tracks", 1, 8), ("omg+tracks", 3, 15), ("off", 1, 0)]
    for mask, every, hold in settings:
        found = edgekit("val", "default", "--data", data / "fixedcam_pets09", "--mask", mask, "--mask-every", every,
                        "--mask-hold", hold, "--no-compare-off")  # fmt: skip
        rows.append(
            [mask, every, hold, percent(found["ap50"]), percent(found["mask_recall"]), percent(found["active_share"]),
             f"{found['macs_executed'] / 1e6:.0f} M"]
        )  # fmt: skip
    return {
        "columns": ["--mask", "--mask-every", "--mask-hold", "AP50", "mask recall", "active", "executed MACs"],
        "rows": rows,
        "note": "The shipped bundle on pets09, 795 frames, 7 a second, of persons who walk; what moves where the mask "
        "does not look ends a mask sooner. Executed MACs count the mask network where it ran.",
    }


def sparse(_: Path, __: Path) -> dict[str, Any]:
    """The native engine beside the best dense one, by the share of active cells."""
    report = edgekit("bench", "sparse", "--threads", 1)
    peaks = {"fp32": report["gemm_peak_gmacs"], "int8": report["gemm_peak_gmacs_int8"]}
    rows = []
    for row in filter(lambda row: row["engine"] == "native", report["rows"]):
        alike = [other for other in report["rows"] if other["engine"] != "native"]
        alike = [other for other in alike if all(other[key] == row[key] for key in ("precision", "active"))]
        best = min(alike, key=lambda other: float(other["ms_min"]))
        rows.append(
            [
                f"{row['active']:.0%}",
                row["precision"],
                f"{row['ms_min']:.2f} / {row['ms_median']:.2f}",
                f"{best['ms_min']:.2f} / {best['ms_median']:.2f} ({best['engine']})",
                f"{row['ms_min'] / best['ms_min']:.2f}",
                f"{row['gmacs_executed']:.0f}",
                f"{row['gmacs_executed'] / peaks[row['precision']]:.0%}",
                f"{row['gmacs_dense_equivalent']:.0f}",
            ]
        )
    note = (
        f"The detector alone, one thread, {report['machine']['cpu']}; milliseconds are minimum / median. Executed "
        f"GMAC/s are held against the best rate that was measured here: {peaks['fp32']:.0f} in fp32, "
        f"{peaks['int8']:.0f} in int8."
    )
    columns = ["active", "precision", "native, ms", "best dense engine, ms", "ratio", "GMAC/s executed", "of peak",
               "dense-equivalent"]  # fmt: skip
    return {"columns": columns, "rows": rows, "note": note}


def training(_: Path, run: Path) -> dict[str, Any]:
    """The shipped run, epoch by epoch."""
    config = json.loads((run / "config.json").read_text())
    log = log_of(run)
    columns = ["epoch", "size", "classification", "box", "objectness", "hint", "omg_hint", "ap50", "mask_recall",
               "active_share"]  # fmt: skip
    columns = [name for name in columns if any(float(row.get(name) or 0) for row in log)]
    rows = [[row[name] or None for name in columns] for row in log]
    shown = f", footage {config['footage_share']:g}" if config.get("footage") else ""
    taught = f", teacher {Path(config['teacher']).stem}" if config.get("teacher") else ""
    note = (
        f"Learning: {config['parts']}{taught}. Batch {config['batch_size']}, {config['optimiser']}, peak rate "
        f"{config['learning_rate']:g} (trunk {config['backbone_rate']:g} of it), masks {config['masks']}, sparse "
        f"scenes {config['sparse_scenes']:g}{shown}, seed {config['seed']}."
    )
    return {"columns": columns, "rows": rows, "note": note}


TABLES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    function.__name__: function
    for function in (networks, accuracy, masks, gate, engines, latency, mask_every, sparse, training)
}


@click.command()
@click.option("--shared", type=click.Path(exists=True, path_type=Path), required=True, help="Folder that holds data/.")
@click.option("--run", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the training run.")
@click.option("--only", multiple=True, type=click.Choice(list(TABLES)), help="Measure only these tables.")
def main(shared: Path, run: Path, only: tuple[str, ...]) -> None:
    """Fill docs/results/."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in only or TABLES:
        click.echo(f"measuring {name}", err=True)
        document = TABLES[name](shared / "data", run)
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
