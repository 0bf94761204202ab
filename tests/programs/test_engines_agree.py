"""The shipped detector gives the same detections from PyTorch and from each engine, in ``val`` and in ``run``.

float32 graphs: engines add in another order than PyTorch, nothing else. The tolerances are those of the export gate
(``edgekit.exporters.parity_limits``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.boxes import iou_matrix
from edgekit.cli import load_program
from edgekit.exporters.parity_limits import PARITY_LIMITS

ENGINES = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",), "tflite": ("tflite",)}
LIMITS = PARITY_LIMITS["fp32"]
CLIP = "road_cars_640x360.avi"

pytestmark = pytest.mark.slow


def edgekit(verb: str, *arguments: object) -> str:
    result = CliRunner().invoke(load_program(verb), [str(item) for item in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module", params=list(ENGINES))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The shipped detector in float32: (format, bundle)."""
    for engine in ENGINES[request.param]:
        pytest.importorskip({"tflite": "ai_edge_litert"}.get(engine, engine))
    path = tmp_path_factory.mktemp("agree") / "default.edgekit"
    edgekit("export", "default", "--format", request.param, "--precision", "fp32", "-o", path)
    return request.param, path


def test_side_by_side_on_every_clip(bundle: tuple[str, Path], shared: Path) -> None:
    clips = sorted((shared / "data" / "videos").glob("*.*"))
    sources = [item for clip in clips for item in ("--source", clip)]
    document = json.loads(edgekit("verify", bundle[1], "--against", "default", *sources, "--frames", 25, "--json"))
    assert document["passed"] is True
    assert {row["engine"].split()[0] for row in document["rows"]} == set(ENGINES[bundle[0]])
    assert sum(row["parity"]["detections"] for row in document["rows"]) > 100


def test_run_prints_the_same_lines(bundle: tuple[str, Path], shared: Path) -> None:
    clip = shared / "data" / "videos" / CLIP

    def lines(model: object, engine: str) -> list[dict[str, Any]]:
        text = edgekit("run", model, "--engine", engine, "--source", clip, "--max-frames", 25)
        return [json.loads(line) for line in text.splitlines()]

    expected = lines("default", "torch")
    assert sum(len(line["detections"]) for line in expected) > 25
    for engine in ENGINES[bundle[0]]:
        got = lines(bundle[1], engine)
        assert [line["frame"] for line in got] == [line["frame"] for line in expected]
        alone = sum(unmatched(a["detections"], b["detections"]) for a, b in zip(expected, got, strict=True))
        assert alone <= 1, f"{engine}: {alone} detections differ"
        assert np.allclose(
            [line["active_share"] for line in got], [line["active_share"] for line in expected], atol=1 / 400 + 1e-6
        )


def unmatched(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> int:
    """Detections of either list without a partner within the tolerances."""
    if not first or not second:
        return len(first) + len(second)
    boxes = [np.array([item["box_xyxy"] for item in side], np.float32) for side in (first, second)]
    close = np.abs(boxes[0][:, None] - boxes[1][None]).max(axis=-1) <= 2 * LIMITS.box_px  # source pixels, scale 1/2
    same = np.array([[a["class"] == b["class"] for b in second] for a in first])
    scores = np.array([[abs(a["score"] - b["score"]) <= LIMITS.score for b in second] for a in first])
    pairs = close & same & scores & (iou_matrix(*boxes) > 0.5)
    return int((~pairs.any(axis=1)).sum() + (~pairs.any(axis=0)).sum())


def test_val_measures_the_same(bundle: tuple[str, Path], voc07: Path) -> None:
    common = ("--data", voc07, "--limit", 60, "--no-compare-off", "--json")
    expected = json.loads(edgekit("val", "default", "--engine", "torch", *common))
    for engine in ENGINES[bundle[0]]:
        got = json.loads(edgekit("val", bundle[1], "--engine", engine, *common))
        for key in ("ap50", "map", "mask_recall", "active_share"):
            assert got[key] == pytest.approx(expected[key], abs=0.002), (engine, key)
