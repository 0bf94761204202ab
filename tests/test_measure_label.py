"""The program that measures detectors which learn from words, on a few drawn scenes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("regex", reason="comes with the extra 'segment'")
pytest.importorskip("pycocotools")

from edgekit.models.tcl.checkpoint import TclCheckpoint, save_tcl  # noqa: E402

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "measure_label.py"


@pytest.mark.slow
def test_labels_are_held_against_true_boxes(tiny_tcl: ModuleType, tmp_path: Path) -> None:
    data = tiny_tcl.draw_data(tmp_path / "scenes", train=24, val=6)
    save_tcl(tmp_path / "best.pt", TclCheckpoint(model=tiny_tcl.finder(), provenance={"training_data": "drawn scenes"}))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("batch_size = 8\nlearning_rate = 2e-3\nwarmup_steps = 2\nworkers = 0\nema_decay = 0.9\n")
    command = [
        sys.executable, SCRIPT, tmp_path / "best.pt", "--data", data, "--work", tmp_path / "work", "--weights", "none",
        "--prompts", "red box, blue disc", "--pictures", "20", "--label-options", "--no-pamr --threads 1",
        "--train-options", f"--recipe {recipe} --imgsz 128 --epochs 2 --evaluate-every 2 --device cpu --threads 1",
        "-o", tmp_path / "label.json",
    ]  # fmt: skip
    subprocess.run([*command, "--only", "pictures", "--only", "labels"], check=True)
    labelled = (tmp_path / "work" / "labels.json").read_bytes()
    subprocess.run(command, check=True)
    assert (tmp_path / "work" / "labels.json").read_bytes() == labelled
    document = json.loads((tmp_path / "label.json").read_text())
    rows = {row[0]: dict(zip(document["columns"], row, strict=True)) for row in document["rows"]}
    assert list(rows) == ["red box", "blue disc", "all"]
    assert rows["all"]["true boxes"] == rows["red box"]["true boxes"] + rows["blue disc"]["true boxes"] > 20
    assert float(rows["all"]["labels' own AP50"].removesuffix(" %")) > 90
    assert rows["all"]["trained on labels"].endswith(" %")
    assert "finder best.pt (trained on drawn scenes) from the words 'red box, blue disc'" in document["note"]
