#!/usr/bin/env python3
"""Measure PVANet: ``scripts/measure_pvanet.py --shared ../shared --run runs/lite`` fills docs/results/.

Every figure is read from the ``--json`` of edgekit's own commands, or from the log of a training run;
``scripts/readme_tables.py`` then writes the tables. ``--only pvanet`` (or another table) repeats one.
"""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from measure_default import CONVERSIONS, PRECISIONS, RESULTS, edgekit, percent

CLIP = Path("videos") / "street_cars_640x352.mp4"
FRAMES = 10

LEAST_AP50 = 0.05
"""What has learnt less cannot lose the point that a conversion may cost."""

REFUSED = 5
"""Exit code of a gate."""


def pvanet(_: Path, __: list[Path]) -> dict[str, Any]:
    """The paper's timing: one core, 1056x640, 200 RoIs."""
    report = edgekit("bench", "pvanet", "--threads", 1)
    rows = []
    for row in report["rows"]:
        alike = [other for other in report["rows"] if other["engine"] != "native"]
        best = min(other["ms_min"] for other in alike if all(other[key] == row[key] for key in ("precision", "active")))
        rows.append(
            [row["engine"], row["precision"], percent(row["active"]),
             *(f"{stage['ms_min']:.1f}" for stage in row["stages"].values()),
             f"{row['ms_min']:.0f} / {row['ms_median']:.0f}", f"{row['ms_min'] / best:.2f}",
             f"{row['gmacs_executed']:.0f}", row["of_gemm_peak"] and percent(row["of_gemm_peak"]),
             percent(row["of_kernel_peak"]), percent(row["of_kernel_peak_layers"])]
        )  # fmt: skip
    stages = list(report["rows"][0]["stages"])
    published = report["published"]
    note = (
        f"PVANet 9.0, compressed, random weights, one thread, {report['machine']['cpu']}; milliseconds, of the whole "
        f"frame minimum / median, held against the fastest dense engine of the same numbers and share. Executed GMAC/s "
        f"are held against two rates that were measured here: the best product of fp32 matrices in numpy or PyTorch, "
        f"{report['gemm_peak_gmacs']:.0f}, and a kernel of edgekit on data in the cache, which no product of real "
        f"matrices reaches, {report['kernel_peak_gmacs']:.0f} and in int8 {report['kernel_peak_gmacs_int8']:.0f}. "
        f"Published: {published['ms']:.0f} ms on {published['cpu']}, {published['gmacs']} GMAC/s, "
        f"{percent(published['of_peak'])} of its peak."
    )
    rates = ["GMAC/s", "of GEMM", "of kernel", "layers alone"]
    columns = ["engine", "precision", "active", *stages, "frame", "to dense", *rates]
    return {"columns": columns, "rows": rows, "note": note}


def pvanet_training(_: Path, runs: list[Path]) -> dict[str, Any]:
    """The runs, epoch by epoch."""
    rows, notes = [], []
    losses = ["rpn_class", "rpn_box", "class", "box"]
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        name = config["model"] + (f" x {config['width_multiplier']:g}" if config["width_multiplier"] != 1 else "")
        with (run / "log.csv").open(newline="") as file:
            log = list(csv.DictReader(file))
        for row in log:
            scores = [
                percent(float(row[key])) if row[key] else None for key in ("ap50", "ap50_mask_off", "active_share")
            ]
            rows.append([name, row["epoch"], *(f"{float(row[key]):.3f}" for key in losses), *scores])
        hours = sum(float(row["seconds"]) for row in log) / 3600
        notes.append(
            f"{name}: {config['sizes'][0][1]} px, batch {config['batch_size']}, {config['optimiser']}, peak rate "
            f"{config['learning_rate']:g}, {config['rois']} RoIs a picture, {hours:.1f} hours"
        )
    note = (
        "From random weights, on one thread of a busy CPU, on voc07 train; AP50 on voc07 val. " + "; ".join(notes) + "."
    )
    return {"columns": ["network", "epoch", *losses, "AP50", "without masks", "active"], "rows": rows, "note": note}


def pvanet_bundles(data: Path, runs: list[Path]) -> dict[str, Any]:
    """Every conversion of what was trained: whether it passes, what it costs, and how near its engines are."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            about = edgekit("info", run / "best.pt")
            name, width = about["spec"]["model"], about["spec"]["width_multiplier"]
            trained = about["metrics"].get("ap50", 0.0) >= LEAST_AP50
            for precision in PRECISIONS:
                forms = [form for form, other in CONVERSIONS if other == precision]
                out = Path(folder) / "converted.edgekit"
                found = [conversion(data, run / "best.pt", out, form, precision, trained=trained) for form in forms]
                passed = [one for one in found if one is not None]
                beside = [parity for one in passed for parity in one["parities"]]
                points = [one["accuracy"] for one in passed if one["accuracy"] is not None]
                rows.append(
                    [name + (f" x {width:g}" if width != 1 else ""), precision, f"{len(passed)} of {len(forms)}",
                     len(beside), *(percent(min(one[f"ap50_{when}"] for one in points)) if points else None
                                    for when in ("before", "after")),
                     *(of_all(beside, part, whole) for part, whole in (("unpaired", "detections"),
                                                                       ("disagreeing", "candidates"))),
                     *(round(max((one[key] for one in beside), default=0.0), digits)
                       for key, digits in (("box_error_px", 3), ("score_error", 4)))]
                )  # fmt: skip
    measured = ("AP50 before", "after", "unpaired", "apart", "box px", "score")
    return {
        "columns": ["network", "precision", "passed", "runs", *measured],
        "rows": rows,
        "note": "Passed are conversions to onnx, tflite, openvino and sparse: their gate, `verify`, and `verify "
        f"--against` the checkpoint on {FRAMES} frames of {CLIP.name}, one run an engine. The rest is the worst of "
        "them all: AP50 on voc07 val, where training came far enough to lose any; detections unpaired; regions and "
        "classes over the score threshold that are apart by more than the tolerances.",
    }


def conversion(
    data: Path, checkpoint: Path, out: Path, form: str, precision: str, *, trained: bool
) -> dict[str, Any] | None:
    """One bundle's ``accuracy`` and the ``parities`` of its engines; ``None`` if something about it is refused."""
    pictures = ("--calib", data / "voc07", "--calib-images", 100, *(("--data", data / "voc07") if trained else ()))
    kind = ("--format", form, "--precision", precision)
    try:
        edgekit("export", checkpoint, *kind, *pictures, "--overwrite", "-o", out)
        edgekit("verify", out)
        beside = edgekit("verify", out, "--against", checkpoint, "--source", data / CLIP, "--frames", FRAMES)
    except subprocess.CalledProcessError as error:
        if error.returncode != REFUSED:
            raise
        click.echo(f"refused: {checkpoint} as {form} in {precision}", err=True)
        return None
    return {"accuracy": edgekit("info", out)["accuracy"], "parities": [row["parity"] for row in beside["rows"]]}


def of_all(parities: list[dict[str, Any]], part: str, whole: str) -> str | None:
    """The largest share among ``parities`` as "1 of 20"."""
    worst = max(parities, key=lambda one: one[part] / max(one[whole], 1), default=None)
    return None if worst is None else f"{worst[part]} of {worst[whole]}"


def pvanet_compression(data: Path, runs: list[Path]) -> dict[str, Any]:
    """What a head in two halves costs and saves, without training."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            checkpoint, out = run / "best.pt", Path(folder) / f"{run.name}.edgekit"
            name = edgekit("info", checkpoint)["spec"]["model"]
            if name.removesuffix("-omg") not in ("pvanet-9.0", "pvanet-9.1"):
                continue
            edgekit("export", checkpoint, "--compress-head", "--format", "sparse", "--data", data / "voc07", "-o", out)
            found = edgekit("info", out)["accuracy"]
            heads = [
                sum(
                    layer["macs"] for layer in edgekit("profile", model, "--macs")["layers"] if layer["graph"] == "head"
                )
                for model in (checkpoint, out)
            ]
            before, after = found["ap50_before"], found["ap50_after"]
            rows.append(
                [name, *(f"{macs / 1e6:.1f} M" for macs in heads), f"{heads[0] / heads[1]:.1f}", percent(before),
                 percent(after), f"{100 * (after - before):+.2f}"]
            )  # fmt: skip
    columns = ["network", "MACs of the head", "in two halves", "times fewer", "AP50 whole", "in two halves", "points"]
    return {"columns": columns, "rows": rows, "note": "voc07 val, with masks, nothing trained in between."}


TABLES: dict[str, Callable[[Path, list[Path]], dict[str, Any]]] = {
    function.__name__: function for function in (pvanet, pvanet_training, pvanet_compression, pvanet_bundles)
}


@click.command()
@click.option("--shared", type=click.Path(exists=True, path_type=Path), required=True, help="Folder that holds data/.")
@click.option("--run", "runs", multiple=True, type=click.Path(exists=True, path_type=Path), help="A training run.")
@click.option("--only", multiple=True, type=click.Choice(list(TABLES)), help="Measure only these tables.")
def main(shared: Path, runs: tuple[Path, ...], only: tuple[str, ...]) -> None:
    """Fill docs/results/."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in only or TABLES:
        click.echo(f"measuring {name}", err=True)
        document = TABLES[name](shared / "data", list(runs))
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
