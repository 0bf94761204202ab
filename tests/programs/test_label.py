"""``edgekit label``: from pictures and words to a data set, and the whole way on to a detector that runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("regex", reason="comes with the extra 'segment'")
pytest.importorskip("pycocotools")

from edgekit.boxes import iou_matrix  # noqa: E402
from edgekit.cli import main  # noqa: E402
from edgekit.data.datasets import open_dataset  # noqa: E402
from edgekit.models.checkpoint import load_checkpoint  # noqa: E402

PROMPTS = "red box, blue disc=blue disc|red disc"


def edgekit(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def report_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture
def checkpoint(finder_checkpoint: Path) -> Path:
    return finder_checkpoint


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, tiny_tcl: ModuleType) -> Path:
    """40 pictures to be labelled, and eight that nobody has seen."""
    return tiny_tcl.draw_data(tmp_path_factory.mktemp("scenes") / "scenes", train=40, val=8)


@pytest.fixture(scope="module")
def seen(scenes: Path) -> Path:
    """The 40 alone, without labels."""
    folder = scenes.parent / "seen"
    folder.mkdir()
    for number in range(1, 41):
        (folder / f"{number}.png").hardlink_to(scenes / "images" / f"{number}.png")
    return folder


def true_boxes(scenes: Path, number: int) -> list[tuple[int, list[float]]]:
    document = json.loads((scenes / "annotations" / "instances_train.json").read_text())
    return [(one["category_id"] - 1, one["bbox"]) for one in document["annotations"] if one["image_id"] == number]


def test_pictures_and_words_become_a_data_set(checkpoint: Path, scenes: Path, seen: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    result = edgekit(
        "label", checkpoint, "--prompts", PROMPTS, "--frames", seen, "-o", out, "--threads", 1,
        "--val-share", 0.25, "--limit", 24, "--no-pamr",
    )  # fmt: skip
    report = report_of(result)
    assert (report["pictures"], report["train"], report["val"], report["linked"]) == (24, 18, 6, 24)
    assert (report["output"], report["unreadable"], report["conf"]) == (str(out), 0, 0.6)
    assert "edgekit train MODEL --data" in result.stderr
    found, wanted = 0, 0
    for split in ("train", "val"):
        dataset = open_dataset(out, split)
        assert dataset.classes == ("red box", "blue disc")
        assert dataset.labelled_by == f"finder best.pt (trained on drawn scenes) from the words '{PROMPTS}'"
        for sample in dataset.samples:
            truth = true_boxes(scenes, int(sample.path.stem))
            wanted += len(truth)
            for class_id, (left, top, width, height) in truth:
                same = sample.boxes_xyxy[sample.class_ids == class_id]
                box = np.array([[left, top, left + width, top + height]], np.float32)
                found += bool((iou_matrix(box, same) > 0.8).any())
    assert found >= 0.9 * wanted > 20
    info = json.loads((out / "annotations" / "instances_train.json").read_text())["info"]
    assert info["prompts"] == {"red box": ["red box"], "blue disc": ["blue disc", "red disc"]}
    assert info["options"]["background"] == 0.5
    assert info["frames"] == ["seen"]
    assert info["provenance"] == {"training_data": "drawn scenes"}


def test_unsure_things_are_to_be_ignored_and_empty_pictures_may_go(
    checkpoint: Path, seen: Path, tmp_path: Path
) -> None:
    first = ("label", checkpoint, "--prompts", PROMPTS, "--frames", seen, "--limit", 24, "--no-pamr")
    report = report_of(edgekit(*first, "--conf", 0.8, "-o", tmp_path / "strict"))
    boxes = report["boxes"].values()
    assert sum(one["unsure"] for one in boxes) > 0
    dataset = open_dataset(tmp_path / "strict", "train")
    assert any(sample.ignore.any() for sample in dataset.samples)
    whole = report_of(edgekit(*first, "-o", tmp_path / "whole"))
    dropped = report_of(edgekit(*first, "--drop-empty", "-o", tmp_path / "dropped"))
    assert whole["pictures"] == 24
    assert (dropped["pictures"], dropped["empty"]) == (24 - whole["empty"], 0)
    assert whole["empty"] > 0


def test_labels_below_the_pictures_are_not_labelled_again(checkpoint: Path, seen: Path, tmp_path: Path) -> None:
    for number in range(1, 4):
        (tmp_path / f"{number}.png").write_bytes((seen / f"{number}.png").read_bytes())
    first = ("label", checkpoint, "--prompts", PROMPTS, "--frames", tmp_path, "-o", tmp_path / "labels")
    assert report_of(edgekit(*first))["pictures"] == 3
    again = edgekit(*first)
    assert again.exit_code == 2
    assert "exists already" in again.output
    assert report_of(edgekit(*first, "--overwrite"))["pictures"] == 3


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--prompts", "bird,,cat"], 2, "prompts are classes such as 'person, car=car|truck'"),
        (["--prompts", "car=car|"], 2, "prompts are classes such as"),
        (["--prompts", "car=car|truck, truck"], 2, "'truck' comes twice"),
        (["--prompts", "background"], 2, "nothing but the background"),
        (["--prompts", "background=road"], 2, "nothing but the background"),
        (["--prompts", "bird", "--templates", "many"], 2, "no set of templates is called 'many'"),
        (["--prompts", "bird", "--background", 1], 1, "No part of any picture scores more than the background"),
        (["--prompts", "bird", "--frames", "nowhere"], 4, "there is no picture nowhere"),
    ],
)
def test_what_cannot_be_asked(
    checkpoint: Path, seen: Path, options: list[object], code: int, message: str, tmp_path: Path
) -> None:
    one = seen / "1.png"
    result = edgekit("label", checkpoint, "--frames", one, "-o", tmp_path / "out", *options)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def ap50(model: Path, data: Path) -> float:
    report = report_of(edgekit("val", model, "--data", data, "--json"))
    return float(report["ap50"])


@pytest.mark.slow
def test_a_detector_runs_from_pictures_and_words_alone(
    checkpoint: Path, scenes: Path, seen: Path, tmp_path: Path
) -> None:
    labels, run, bundle = tmp_path / "labels", tmp_path / "run", tmp_path / "x.edgekit"
    report_of(edgekit("label", checkpoint, "--prompts", PROMPTS, "--frames", seen, "-o", labels))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("batch_size = 8\nlearning_rate = 2e-3\nwarmup_steps = 2\nworkers = 0\nema_decay = 0.9\n")
    report_of(
        edgekit(
            "train", "mobilenetv2-ssdlite-omg", "--data", labels, "-o", run, "--recipe", recipe, "--imgsz", 128,
            "--epochs", 40, "--evaluate-every", 40, "--device", "cpu", "--threads", 1, "--json",
        )
    )  # fmt: skip
    provenance = load_checkpoint(run / "best.pt").provenance["training_data"]
    assert provenance.startswith("labels train (labelled by a model): finder best.pt (trained on ")
    exported = edgekit("export", run / "best.pt", "--format", "onnx", "--precision", "fp32", "-o", bundle)
    assert exported.exit_code == 0, exported.output
    assert ap50(bundle, scenes) > 0.5
    result = edgekit("run", bundle, "--source", scenes / "images" / "4?.png", "--jsonl", "-", "--engine", "onnxruntime")
    assert result.exit_code == 0, result.output
    seen = [detection for line in result.stdout.splitlines() for detection in json.loads(line).get("detections", [])]
    assert {detection["class"] for detection in seen} == {"red box", "blue disc"}
