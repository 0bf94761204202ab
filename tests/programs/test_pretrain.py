"""``edgekit pretrain``: what it refuses, by exit code and message; and the whole way from pictures to a detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgekit.cli import main


def edgekit(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of noise and one box, with labels beside them."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for index in range(1, 7):
        picture = rng.integers(0, 256, (64, 80, 3)).astype(np.uint8)
        picture[8:40, 8:48] = 40 * index
        Image.fromarray(picture).save(root / "images" / f"{index}.png")
    document = {
        "images": [{"id": index, "file_name": f"{index}.png", "height": 64, "width": 80} for index in range(1, 7)],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 1 + index % 2, "bbox": [8, 8, 40, 32]}
            for index in range(1, 7)
        ],
        "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "crate"}],
    }
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mobilenetv3"], "no backbone that can be pretrained is called 'mobilenetv3'; did you mean 'mobilenetv2'?"),
        (["mobilenetv2", "--imgsz", "100"], "input_size must be a multiple of 32, got 100"),
        (["mobilenetv2", "--method", "simclr"], "'simclr' is not one of 'scrl', 'byol'"),
        (["mobilenetv2", "--epoch", "1"], "--epochs"),
        (["mobilenetv2", "--width-multiplier", "0.5"], "mobilenetv2 has one width, 1; got 0.5"),
        (["mobilenetv2", "--recipe", "nothing.toml"], "recipe nothing.toml cannot be read"),
        (["mobilenetv2", "--weights", "nothing.pth"], "--weights nothing.pth: there is no such file"),
        (["mobilenetv2", "--frame-interval", "0"], "frame_interval_s must be above 0, got 0.0"),
    ],
)
def test_wrong_options_are_wrong_use(pictures: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = edgekit("pretrain", *arguments, "--data", pictures, "-o", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    result = edgekit("pretrain", "mobilenetv2", "--data", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "there is no picture" in result.output
    assert not (tmp_path / "run").exists()


def test_without_data_it_is_wrong_use() -> None:
    result = edgekit("pretrain", "mobilenetv2")
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.output


def test_pretrain_then_train_with_few_labels(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("batch_size = 4\ninput_size = 64\nsmallest_box = 16\nworkers = 0\nhead_hidden = 16\n")
    common = ["--recipe", recipe, "--width-multiplier", 0.125, "--epochs", 1, "--device", "cpu", "--threads", 1]
    done = edgekit(
        "pretrain", "pvanet-lite", "--data", pictures / "images", "--data", pictures, "-o", tmp_path / "pre", *common,
        "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["output"] == str(tmp_path / "pre" / "pretrained.pth")
    assert "12 pictures of images, " in done.stderr
    assert "6 of them of 2 classes" in done.stderr
    recipe.write_text(
        "batch_size = 2\nsizes = [[0.0, 64]]\nworkers = 0\nevaluate_every = 1\nrois = 8\nproposals = 16\n"
    )
    trained = edgekit(
        "train", "pvanet-lite-omg", "--data", pictures, "--weights", figures["output"], "--label-share", 0.5,
        "-o", tmp_path / "run", *common,
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    info = edgekit("info", tmp_path / "run" / "best.pt").stdout
    assert "(3 of 6 pictures)" in info
    assert "pretrained.pth (SCRL without labels on images, pictures0 train, 1 epochs)" in info
    again = edgekit("pretrain", "pvanet-lite", "--data", pictures, "-o", tmp_path / "pre", *common[2:])
    assert again.exit_code == 2
    assert "already holds a run; go on with --resume" in again.output
