#!/usr/bin/env python3
"""Make the detector that edgekit ships from a checkpoint: ``scripts/make_default.py runs/x/best.pt --data DIR``.

Writes ``default.pt`` (float16 weights, at most 8 MB) and ``default.edgekit`` (int8 sparse programs for the native
engine, behind their gate, at most 5 MB) into ``edgekit/assets/``. The golden picture is a frame of the demo: no
photograph of the training data travels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import cv2

from edgekit.cameras import open_source
from edgekit.models.checkpoint import load_checkpoint, save_checkpoint
from edgekit.models.default import ASSETS, default_bundle, default_checkpoint

GOLDEN_FRAME = 60
LIMITS = {default_checkpoint(): 8_000_000, default_bundle(): 5_000_000}
"""Bytes."""


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="The training data.")
@click.option("--limit", type=int, help="Measure AP50 on this many pictures only.")
@click.option("--keep-float", help="Layers to keep in float32, as in `edgekit export`.")
@click.option(
    "--omg",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the mask network and its threshold from this checkpoint (`edgekit train --parts omg`).",
)
def main(checkpoint: Path, data: Path, limit: int | None, keep_float: str | None, omg: Path | None) -> None:
    """Ship CHECKPOINT as `default`."""
    trained = load_checkpoint(checkpoint)
    if omg is not None:
        masks = load_checkpoint(omg)
        trained.model.omg.load_state_dict(masks.model.omg.state_dict())
        trained.model.spec = replace(
            trained.spec,
            mask_threshold=masks.spec.mask_threshold,
            mask_threshold_exponent=masks.spec.mask_threshold_exponent,
        )
        # Made by adapting or training masks, it has seen at least what the detector has.
        trained.provenance["training_data"] = masks.provenance.get("training_data", "unknown data")
    ASSETS.mkdir(exist_ok=True)
    save_checkpoint(default_checkpoint(), trained.without_state(), half=True)
    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "golden.png"
        with open_source("demo") as source:
            frame = next(frame for frame in source if frame.index == GOLDEN_FRAME)
        cv2.imwrite(str(golden), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        command = [sys.executable, "-m", "edgekit.cli", "export", str(default_checkpoint()),
                   "--format", "sparse", "--precision", "int8", "--calib", str(data), "--data", str(data),
                   "--golden", str(golden), "--zip", "--overwrite", "-o", str(default_bundle())]  # fmt: skip
        if keep_float is not None:
            command += ["--keep-float", keep_float]
        if limit is not None:
            command += ["--limit", str(limit)]
        subprocess.run(command, check=True)
    for path, most in LIMITS.items():
        size = path.stat().st_size
        click.echo(f"{path.name}: {size:,} bytes")
        if size > most:
            raise SystemExit(f"{path.name} is larger than {most:,} bytes")


if __name__ == "__main__":
    main()
