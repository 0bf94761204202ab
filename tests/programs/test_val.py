"""``edgekit val`` on tiny bundles and checkpoints, with data whose answers are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.cli import load_program
from edgekit.errors import BundleError, DataError, UsageError

LAYERS = [
    {"name": "omg.a", "kind": "conv", "graph": "omg", "parameters": 4, "macs": 48, "rows": 4, "columns": 4},
    {"name": "detector.a", "kind": "conv", "graph": "detector", "parameters": 4, "macs": 160, "rows": 4, "columns": 4},
    {"name": "detector.b", "kind": "conv", "graph": "detector", "parameters": 4, "macs": 200, "rows": 2, "columns": 2},
]
RED, BLUE = [16, 0, 16, 16], [48, 48, 16, 16]


def val(*arguments: object) -> Result:
    result = CliRunner().invoke(load_program("val"), [str(value) for value in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def report(*arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(val(*arguments, "--json").stdout)
    return document


def write_data(folder: Path, picture: np.ndarray, annotations: list[dict[str, Any]], *, pictures: int = 3) -> Path:
    (folder / "images").mkdir(parents=True)
    for index in range(pictures):
        assert cv2.imwrite(str(folder / "images" / f"{index}.png"), picture[..., ::-1])
    height, width = picture.shape[:2]
    document = {
        "images": [
            {"id": index, "file_name": f"{index}.png", "width": width, "height": height} for index in range(pictures)
        ],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def bundle(tmp_path: Path, tiny: ModuleType) -> Path:
    return tiny.write_bundle(tmp_path / "tiny.edgekit", layers=LAYERS)


@pytest.fixture
def data(tmp_path: Path, tiny: ModuleType) -> Path:
    """Three pictures with the blocks that the tiny detector finds."""
    boxes = [
        {"image_id": index, "category_id": name, "bbox": box}
        for index in range(3)
        for name, box in ((1, RED), (2, BLUE))
    ]
    return write_data(tmp_path / "blocks", tiny.picture(), boxes)


def test_json_of_a_bundle(bundle: Path, data: Path) -> None:
    document = report(bundle, "--data", data)
    assert document["data"] == "blocks val"
    assert document["engine"].startswith("onnxruntime")
    assert (document["images"], document["objects"], document["ignored"]) == (3, 6, 0)
    assert document["ap50"] == pytest.approx(1)
    assert document["ap50_per_class"] == pytest.approx({"red": 1, "blue": 1})
    assert 0 < document["map"] < 1  # its boxes are a little off
    assert document["mask"] == "omg"
    assert document["mask_recall"] == 1
    assert document["active_share"] == pytest.approx(2 / 16)
    # Two of 16 cells, in two of four coarse ones, and the mask network.
    assert (document["macs"], document["macs_omg"]) == (360, 48)
    assert document["macs_executed"] == 48 + 2 * 10 + 2 * 50
    off = document["mask_off"]
    assert (off["active_share"], off["mask_recall"], off["macs_executed"]) == (1, 1, 360)
    assert off["ap50"] == pytest.approx(1)


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_every_format_measures_the_same(tmp_path: Path, data: Path, tiny: ModuleType, graph_format: str) -> None:
    path = tiny.write_bundle(tmp_path / f"{graph_format}.edgekit", graph_format, layers=LAYERS)
    document = report(path, "--data", data)
    assert (document["ap50"], document["map"]) == pytest.approx((1, 0.85), abs=0.1)
    assert (document["mask_recall"], document["active_share"]) == (1, pytest.approx(2 / 16))
    assert document["macs_executed"] == 48 + 2 * 10 + 2 * 50


def test_mask_off_has_nothing_to_compare_with(bundle: Path, data: Path) -> None:
    document = report(bundle, "--data", data, "--mask", "off")
    assert "mask_off" not in document
    assert document["macs_executed"] == document["macs"]


def test_no_comparison(bundle: Path, data: Path) -> None:
    assert "mask_off" not in report(bundle, "--data", data, "--no-compare-off")


def test_mask_of_the_truth_costs_no_mask_network(bundle: Path, data: Path) -> None:
    document = report(bundle, "--data", data, "--mask", "truth")
    assert document["active_share"] == pytest.approx(2 / 16)
    assert document["macs_executed"] == 2 * 10 + 2 * 50


def test_mask_from_a_polygon_loses_a_box(bundle: Path, data: Path, tmp_path: Path) -> None:
    upper_half = tmp_path / "zones.json"
    upper_half.write_text(json.dumps({"polygons": [[[0, 0], [1, 0], [1, 0.5], [0, 0.5]]]}))
    document = report(bundle, "--data", data, "--mask", upper_half)
    assert document["mask_recall"] == pytest.approx(0.5)
    assert document["ap50_per_class"]["blue"] == 0
    assert document["mask_off"]["ap50_per_class"]["blue"] == pytest.approx(1)
    assert document["macs_executed"] == 8 * 10 + 2 * 50
    both = report(bundle, "--data", data, "--mask", f"{upper_half}&omg", "--no-compare-off")
    assert both["macs_executed"] == 48 + 10 + 50


def test_an_empty_mask_runs_nothing_but_the_mask_network(bundle: Path, tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    data = write_data(tmp_path / "grey", grey, [{"image_id": 0, "category_id": 1, "bbox": RED}])
    document = report(bundle, "--data", data)
    assert (document["ap50"], document["active_share"], document["mask_recall"]) == (0, 0, 0)
    assert document["macs_executed"] == 48


def test_pictures_of_another_shape_are_scored_in_their_own_pixels(
    bundle: Path, tmp_path: Path, tiny: ModuleType
) -> None:
    wide = np.full((128, 256, 3), 128, np.uint8)
    wide[32:64, 64:128] = (255, 128, 128)  # letterboxed by 1/4: rows 24..32, columns 16..32
    annotations = [{"image_id": index, "category_id": 1, "bbox": [64, 32, 64, 32]} for index in range(3)]
    document = report(bundle, "--data", write_data(tmp_path / "wide", wide, annotations))
    assert document["mask_recall"] == 1
    assert document["active_share"] == pytest.approx(1 / 16)


def test_limit(bundle: Path, data: Path) -> None:
    document = report(bundle, "--data", data, "--limit", 2)
    assert (document["images"], document["objects"]) == (2, 4)


def test_engine_and_threads(bundle: Path, data: Path) -> None:
    document = report(bundle, "--data", data, "--engine", "openvino", "--threads", 1)
    assert document["engine"].startswith("openvino")
    assert document["ap50"] == pytest.approx(1)


def test_tables(bundle: Path, data: Path) -> None:
    result = val(bundle, "--data", data)
    assert "blocks val: 3 images, 6 objects (0 ignored), onnxruntime" in result.stdout
    lines = {line[:20].strip(): line[20:].split() for line in result.stdout.splitlines()}
    assert lines["AP50"] == ["100.00", "%", "100.00", "%"]
    assert lines["active share"] == ["12.50", "%", "100.00", "%"]
    assert lines["blue"] == ["100.00", "%", "100.00", "%"]
    assert result.stderr == ""  # no progress bar where there is no terminal


def test_classes_that_do_not_match(bundle: Path, data: Path) -> None:
    document = json.loads((data / "instances.json").read_text())
    document["categories"][1]["name"] = "navy"
    (data / "instances.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"not among the model's: navy(.|\n)*data: red, navy(.|\n)*model: red, blue"):
        report(bundle, "--data", data)
    assert report(bundle, "--data", data, "--class-map", "navy=blue")["ap50"] == pytest.approx(1)
    dropped = report(bundle, "--data", data, "--class-map", "navy=")
    assert dropped["ap50_per_class"].keys() == {"red"}
    with pytest.raises(UsageError, match="expects OLD=NEW"):
        report(bundle, "--data", data, "--class-map", "navy")


def test_no_data(bundle: Path, tmp_path: Path, tiny: ModuleType) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        val(bundle, "--data", tmp_path / "nowhere")
    with pytest.raises(DataError, match="is empty"):
        val(bundle, "--data", write_data(tmp_path / "empty", tiny.picture(), [], pictures=0))


def test_no_model(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model"):
        val(tmp_path / "none.edgekit", "--data", data)


def test_zeros_need_a_checkpoint(bundle: Path, data: Path) -> None:
    with pytest.raises(UsageError, match=r"--zeros looks inside the PyTorch model(.|\n)*--engine torch --zeros"):
        val(bundle, "--data", data, "--zeros")


def test_a_bundle_with_a_broken_layer_table(tmp_path: Path, data: Path, tiny: ModuleType) -> None:
    broken = tiny.write_bundle(tmp_path / "broken.edgekit", layers=[{"name": "a"}])
    with pytest.raises(BundleError, match=r"layers\[0\] should have exactly"):
        val(broken, "--data", data)


def test_a_bundle_without_a_table_of_an_unknown_network(tmp_path: Path, data: Path, tiny: ModuleType) -> None:
    with pytest.raises(UsageError, match="no model is called 'tiny'"):
        val(tiny.write_bundle(tmp_path / "plain.edgekit"), "--data", data)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector for 64x64 pictures whose mask keeps about half of them."""
    import torch

    from edgekit.models.checkpoint import Checkpoint, save_checkpoint
    from edgekit.models.masked_detector import MaskedDetector
    from edgekit.models.registry import build

    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("checkpoint") / "random.pt"
    model: MaskedDetector = build("mobilenetv2-ssdlite-omg", ("red", "blue"), size=64)
    save_checkpoint(path, Checkpoint(model=model))
    return path


def test_zeros_of_a_checkpoint(checkpoint: Path, data: Path) -> None:
    document = report(checkpoint, "--data", data, "--zeros", "--mask", "truth", "--limit", 1)
    zeros, off = document["zeros"], document["mask_off"]["zeros"]
    assert document["engine"].startswith("torch")
    assert 0 < off["zero_share"] < zeros["zero_share"] < 1
    assert zeros["macs_nonzero"] < off["macs_nonzero"] < document["macs"]
    assert {layer["name"].split(".")[0] for layer in zeros["layers"]} == {"detector"}  # truth asks no mask network
    assert sum(layer["macs"] for layer in off["layers"]) == document["macs"]
    assert sum(layer["macs_executed"] for layer in zeros["layers"]) == document["macs_executed"]
    stem = next(layer for layer in zeros["layers"] if layer["name"] == "detector.backbone.stem.conv")
    assert stem["zero_share"] > 14 / 16  # 14 of 16 cells are black; grey is zero too
    text = val(checkpoint, "--data", data, "--zeros", "--limit", 1).stdout
    assert "zero share of each convolution's input" in text
    assert "omg.stem.conv" in text


def test_the_mask_network_is_counted_where_it_runs(checkpoint: Path, data: Path) -> None:
    document = report(checkpoint, "--data", data, "--zeros", "--mask", "omg")
    graphs = {layer["name"].split(".")[0] for layer in document["zeros"]["layers"]}
    assert graphs == {"omg", "detector"}
    assert document["macs_executed"] > document["macs_omg"]


def test_exit_code_and_message_of_an_empty_folder(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = [sys.executable, "-m", "edgekit.cli", "val", str(bundle), "--data", str(tmp_path / "empty")]
    done = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "is no data set: expected a VOCdevkit year" in done.stderr


def test_a_checkpoint_of_two_stages(tmp_path: Path, data: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgekit.models.checkpoint import Checkpoint, save_checkpoint
    from edgekit.models.registry import build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("pvanet-lite-omg", ("red", "blue"), size=64, width_multiplier=0.125).eval()
    path = tmp_path / "lite.pt"
    save_checkpoint(path, Checkpoint(model=model))
    document = report(path, "--data", data, "--mask", "truth")
    assert 0 <= document["ap50"] <= 1
    assert 0 < document["macs_executed"] < document["mask_off"]["macs_executed"] <= document["macs"]
    with pytest.raises(UsageError, match=r"--zeros counts what one-stage detectors compute, and .* is a pvanet-lite"):
        val(path, "--data", data, "--zeros")


def test_a_checkpoint_of_a_detr(tmp_path: Path, data: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from edgekit.models.registry import build
    from edgekit.pipeline import open_pipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("sparse-detr-mobilenetv2-omg", ("red", "blue"), size=64, token_share=0.5).eval()
    path = tmp_path / "sparse.pt"
    save_checkpoint(path, Checkpoint(model=model), half=True)
    assert load_checkpoint(path).spec == model.spec
    document = report(path, "--data", data, "--mask", "truth")
    assert 0 <= document["ap50"] <= 1
    assert 0 < document["macs_executed"] < document["mask_off"]["macs_executed"] == document["macs"]
    with pytest.raises(UsageError, match=r"--zeros counts what one-stage detectors compute, and .* is a sparse-detr"):
        val(path, "--data", data, "--zeros")
    picture = np.full((48, 64, 3), 128, np.uint8)
    result = open_pipeline(path, mask="off").process(picture, score_threshold=0.0)
    assert len(result.detections) == 100
    assert (result.detections.boxes_xyxy <= np.array([64, 48, 64, 48])).all()
    assert result.regions is None
