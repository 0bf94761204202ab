"""``edgekit segment``, ``train tcl`` and ``val tcl``, run as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("regex", reason="comes with the extra 'segment'")

from edgekit.cli import load_program, main  # noqa: E402
from edgekit.models.tcl.checkpoint import TclCheckpoint, save_tcl  # noqa: E402


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tcl: ModuleType) -> Path:
    path = tmp_path_factory.mktemp("tcl") / "best.pt"
    save_tcl(path, TclCheckpoint(model=tiny_tcl.shaken(tiny_tcl.mobile_spec())))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with captions and masks."""
    root = tmp_path_factory.mktemp("pictures")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    for index in range(2):
        image = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        Image.fromarray(generator.choice([0, 3, 255], size=(40, 56)).astype(np.uint8)).save(
            root / "masks" / f"{index}.png"
        )
        (root / "images" / f"{index}.txt").write_text("a photo of a bird.")
    return root


def test_pictures_are_coloured_and_described(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    result = call(
        "segment", checkpoint, "--prompts", "bird, red door", "--source", pictures / "images", "-o", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["0.png", "1.png"]
    found = lines[0]["found"]
    assert list(found) == ["background", "bird", "red door"]
    assert sum(entry["share"] for entry in found.values()) == pytest.approx(1)
    with Image.open(lines[0]["labels"]) as opened:
        labels = np.array(opened)
    assert labels.shape == (40, 56)
    assert float((labels == 1).mean()) == pytest.approx(found["bird"]["share"])
    with Image.open(lines[0]["picture"]) as opened:
        assert opened.width == 56


def test_without_a_background_every_pixel_is_something(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    result = call(
        "segment", checkpoint, "--prompts", "bird,cat", "--source", pictures / "images" / "0.png", "-o", tmp_path,
        "--background", 0, "--no-pamr", "--templates", "none", "--max-frames", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["found"]["background"]["share"] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--prompts", "bird,,cat"], 2, "prompts are names separated by commas"),
        (["--prompts", "dog " * 80], 2, "a prompt of at most 14 tokens is expected, got"),
        (["--prompts", "bird", "--templates", "many"], 2, "no set of templates is called 'many'"),
        (["--prompts", "background"], 2, "something to look for besides the background"),
    ],
)
def test_what_cannot_be_asked(
    checkpoint: Path, pictures: Path, options: list[str], code: int, message: str, tmp_path: Path
) -> None:
    result = call("segment", checkpoint, "--source", pictures / "images", "-o", tmp_path, *options)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split())


def test_a_detector_is_no_segmenter(pictures: Path, tmp_path: Path) -> None:
    torch.save({"format": "edgekit-checkpoint"}, tmp_path / "d.pt")
    result = call("segment", tmp_path / "d.pt", "--prompts", "dog", "--source", pictures / "images", "-o", tmp_path)
    assert result.exit_code == 1
    assert "no checkpoint of a TCL model" in result.output


def test_masks_are_scored(checkpoint: Path, pictures: Path) -> None:
    result = call("val", "tcl", checkpoint, "--data", pictures, "--limit", 1, "--threads", 1, "--json", "--no-pamr")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["images"] == 1
    assert 0 <= document["miou"] <= 1
    assert document["background"] == 0.5
    assert 0 <= document["whole_pictures_miou"] <= 1
    assert set(document["iou_per_class"]) >= {"background", "bird", "tvmonitor"}


def test_scores_for_people(checkpoint: Path, pictures: Path) -> None:
    result = call("val", "tcl", checkpoint, "--data", pictures, "--limit", 1, "--no-pamr", "--no-baseline")
    assert result.exit_code == 0, result.output
    assert "miou" in result.stdout
    assert "whole_pictures_miou" not in result.stdout


def test_parts_explain_themselves() -> None:
    for verb, word, other in (("train", "--align-steps", "MODEL"), ("val", "--protocol", "BUNDLE|CHECKPOINT")):
        result = call(verb, "tcl", "--help")
        assert result.exit_code == 0
        assert result.output.startswith(f"Usage: main {verb} tcl ")
        assert word in result.output
        assert other in call(verb, "--help").output
    assert load_program("train_tcl", folder="training").help


def test_training_starts_from_something(pictures: Path, tmp_path: Path) -> None:
    result = call("train", "tcl", "--data", pictures / "images", "-o", tmp_path / "run", "--batch", 2)
    assert result.exit_code == 2
    assert "what should tcl-mobilenetv2 start from? Give --weights FILE" in " ".join(result.output.split())


@pytest.mark.slow
def test_a_model_is_trained_scored_and_used(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = call(
        "train", "tcl", "--data", pictures / "images", "-o", run, "--weights", "none", "--batch", 2, "--workers", 0,
        "--align-steps", 1, "--steps", 2, "--decoder-steps", 1, "--val", pictures, "--limit", 2, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["output"] == str(run)
    result = call("val", "tcl", run / "best.pt", "--data", pictures, "--limit", 1, "--json")
    assert result.exit_code == 0, result.output
    result = call("segment", run / "best.pt", "--prompts", "bird", "--source", pictures / "images", "-o", tmp_path)
    assert result.exit_code == 0, result.output


def test_a_bundle_is_run_not_segmented(pictures: Path) -> None:
    result = call("segment", "words.edgekit", "--prompts", "bird", "--source", pictures / "images")
    assert result.exit_code == 2
    assert "edgekit run words.edgekit --source" in result.output
