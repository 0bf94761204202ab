"""``scripts/label_footage.py`` and ``scripts/adapt_masks.py``, as people and the built-in model's makers run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.registry import build

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of seven frames of noise."""
    folder = tmp_path / "clip"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(7):
        cv2.imwrite(str(folder / f"{index}.png"), generator.integers(0, 255, (72, 96, 3)).astype(np.uint8))
    return folder


def write_data_set(folder: Path, classes: list[str], annotations: str) -> Path:
    """Three pictures of noise, each with a box of the last class."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(1)
    images, boxes = [], []
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), generator.integers(0, 255, (64, 96, 3)).astype(np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 96})
        boxes.append({"id": number, "image_id": number, "category_id": len(classes), "bbox": [8, 8, 40, 30]})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
    file = folder / annotations
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return folder


def outlined_persons(folder: Path) -> Path:
    write_data_set(folder, ["person"], "annotations/instances_train.json")
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    for box in document["annotations"]:
        box |= {"bbox": [4, 4, 40, 56], "segmentation": [[4, 4, 44, 4, 44, 60, 4, 60]]}
    file.write_text(json.dumps(document))
    return folder


def test_footage_is_labelled_at_evenly_spread_frames(tmp_path: Path, clip: Path, tiny_yolox: ModuleType) -> None:
    teacher = tiny_yolox.write(tmp_path, classes=80)
    result = script("label_footage.py", clip, "--teacher", teacher, "--frames", 3, "-o", tmp_path / "labelled")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "labelled" / "instances.json").read_text())
    written = [cv2.imread(str(tmp_path / "labelled" / "images" / entry["file_name"])) for entry in document["images"]]
    for picture, index in zip(written, (0, 3, 6), strict=True):
        assert np.array_equal(picture, cv2.imread(str(clip / f"{index}.png")))
    assert document["annotations"]  # random weights see things everywhere
    assert {box["ignore"] for box in document["annotations"]} <= {0, 1}
    for box in document["annotations"]:
        left, top, width, height = box["bbox"]
        assert min(left, top) >= 0
        assert left + width <= 96 + 1e-3
        assert top + height <= 72 + 1e-3


def test_a_teacher_of_unnamed_classes_is_refused(tmp_path: Path, clip: Path, tiny_yolox: ModuleType) -> None:
    result = script("label_footage.py", clip, "--teacher", tiny_yolox.write(tmp_path), "-o", tmp_path / "labelled")
    assert result.returncode == 1
    assert "other classes than COCO's 80" in result.stderr


def test_an_unreadable_clip_is_named(tmp_path: Path, tiny_yolox: ModuleType) -> None:
    (tmp_path / "clip.mp4").write_text("no video")
    teacher = tiny_yolox.write(tmp_path, classes=80)
    result = script("label_footage.py", tmp_path / "clip.mp4", "--teacher", teacher, "-o", tmp_path / "labelled")
    assert result.returncode == 1
    assert "clip.mp4" in result.stderr
    assert "Traceback" not in result.stderr


def test_only_the_mask_network_is_adapted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes = ("aeroplane", "person")
    model = build("mobilenetv2-ssdlite-omg", classes, size=128)
    save_checkpoint(tmp_path / "before.pt", Checkpoint(model=model, config={}, metrics={}, provenance={}))
    photos = write_data_set(tmp_path / "photos", list(classes), "annotations/instances_train.json")
    # One class that the model calls otherwise, and one that it does not know.
    footage = write_data_set(tmp_path / "footage", ["airplane", "traffic light"], "instances.json")
    result = script(
        "adapt_masks.py", tmp_path / "before.pt", "--photos", photos, "--footage", footage,
        "--cutouts", outlined_persons(tmp_path / "cutouts"),
        "-o", tmp_path / "after.pt", "--rounds", 2, "--steps", 2, "--workers", 0,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    before, after = load_checkpoint(tmp_path / "before.pt"), load_checkpoint(tmp_path / "after.pt")
    old, new = before.model.state_dict(), after.model.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"omg"}
    assert after.spec == before.spec
    assert after.provenance["training_data"] == (
        "unknown data; the mask network also 3 frames of footage and 3 objects cut out of cutouts"
    )


def test_missing_footage_is_named(tmp_path: Path) -> None:
    model = build("mobilenetv2-ssdlite-omg", ("person",), size=64)
    save_checkpoint(tmp_path / "before.pt", Checkpoint(model=model, config={}, metrics={}, provenance={}))
    photos = write_data_set(tmp_path / "photos", ["person"], "annotations/instances_train.json")
    (tmp_path / "empty").mkdir()
    result = script(
        "adapt_masks.py", tmp_path / "before.pt", "--photos", photos, "--footage", tmp_path / "empty",
        "--cutouts", photos, "-o", tmp_path / "after.pt",
    )  # fmt: skip
    assert result.returncode == 1
    assert "empty is no data set" in result.stderr
    assert not (tmp_path / "after.pt").exists()
