"""``edgekit train``: what it refuses, by exit code and message. Whole runs are in ``tests/learning/test_run.py``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgekit.cli import main


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_a_misspelt_network_is_wrong_use(tmp_path: Path) -> None:
    result = train("mobilenetv2-ssdlite-omgg", "--data", tmp_path, "-o", tmp_path / "run", "--weights", "none")
    assert result.exit_code == 2
    assert "did you mean 'mobilenetv2-ssdlite-omg'?" in result.output


def test_data_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    result = train("mobilenetv2-ssdlite-omg", "--data", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "does not exist or is not a folder" in result.output
    assert not (tmp_path / "run").exists()


def test_an_empty_data_set_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(empty))
    result = train("mobilenetv2-ssdlite-omg", "--data", tmp_path, "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "is empty" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--recipe", "nothing.toml"], "cannot be read"),
        (["--optimiser", "lion"], "is not one of"),
        (["--epoch", "1"], "--epochs"),
        (["--footage", "frames"], "footage and cutouts go together"),
        (["--schedule", "plateaux"], "is not one of"),
    ],
)
def test_wrong_options_are_wrong_use(tmp_path: Path, options: list[str], message: str) -> None:
    result = train("mobilenetv2-ssdlite-omg", "--data", tmp_path, "-o", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in result.output


@pytest.fixture(scope="module")
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one grey picture with one box."""
    root = tmp_path_factory.mktemp("one")
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    cv2.imwrite(str(root / "images" / "1.png"), np.full((64, 64, 3), 128, np.uint8))
    document = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "box"}],
    }
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "pvanet-lite-omg",
            ["--imgsz", "100"],
            "pvanet-lite-omg needs an input size that is a multiple of 64, got 100",
        ),
        ("pvanet-lite-omg", ["--width-multiplier", "0"], "a width multiplier is above 0"),
        ("pvanet-lite-omg", ["--teacher", "yolox.param"], "pvanet-lite-omg cannot learn from a teacher"),
        ("pvanet-9.1-compressed-omg", ["--weights", "none"], "only the RoI head would learn"),
        ("mobilenetv2-ssdlite-omg", ["--width-multiplier", "0.5"], "mobilenetv2-ssdlite-omg has one width, 1"),
        ("mobilenetv2-ssdlite-omg", ["--parts", "head"], "has no RoI head that could learn alone"),
        ("pvanet-9.1", [], "behind a mask network, as it is trained: pvanet-9.1-omg"),
        ("sparse-detr-mobilenetv2-omg", ["--imgsz", "96"], "needs an input size that is a multiple of 64, got 96"),
        ("sparse-detr-mobilenetv2-omg", ["--token-share", "0"], "0.0 is not in the range 0<x<=1"),
        ("sparse-detr-mobilenetv2-omg", ["--parts", "head"], "has no RoI head that could learn alone"),
        ("sparse-detr-mobilenetv2-omg", ["--teacher", "yolox.param"], "cannot learn from a teacher"),
        ("mobilenetv2-ssdlite-omg", ["--token-share", "0.5"], "mobilenetv2-ssdlite-omg has no tokens to take a share"),
    ],
)
def test_what_a_model_cannot_be_told_is_wrong_use(
    one_picture: Path, tmp_path: Path, model: str, options: list[str], message: str
) -> None:
    result = train(model, "--data", one_picture, "-o", tmp_path / "run", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
