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

from edgekit.backends import engine_problem
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.cli import load_program
from edgekit.exporters.parity_limits import PARITY_LIMITS

ENGINES = {name: engines for name, (_, engines) in GRAPH_FORMATS.items()}
LIMITS = PARITY_LIMITS["fp32"]
CLIP = "road_cars_640x360.avi"
CONF = 0.1  # low, for many detections

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
        if problem := engine_problem(engine):
            pytest.skip(str(problem))
    path = tmp_path_factory.mktemp("agree") / "default.edgekit"
    edgekit("export", "default", "--format", request.param, "--precision", "fp32", "-o", path)
    return request.param, path


def test_side_by_side_on_every_clip(bundle: tuple[str, Path], shared: Path) -> None:
    clips = sorted((shared / "data" / "videos").glob("*.*"))
    sources = [item for clip in clips for item in ("--source", clip)]
    document = json.loads(edgekit("verify", bundle[1], "--against", "default", *sources, "--frames", 120, "--json"))
    assert document["passed"] is True
    assert {row["engine"].split()[0] for row in document["rows"]} == set(ENGINES[bundle[0]])
    assert sum(row["parity"]["detections"] for row in document["rows"]) > 100


def test_run_prints_the_same_lines(bundle: tuple[str, Path], shared: Path) -> None:
    clip = shared / "data" / "videos" / CLIP

    def lines(model: object, engine: str) -> list[dict[str, Any]]:
        text = edgekit("run", model, "--engine", engine, "--source", clip, "--max-frames", 25, "--conf", CONF)
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
    """Detections of either list without a partner within the tolerances; at the threshold the partner may be gone."""
    return sum(
        item["score"] > CONF + LIMITS.score and not any(same(item, other) for other in others)
        for items, others in ((first, second), (second, first))
        for item in items
    )


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    sides = np.subtract(one["box_xyxy"], other["box_xyxy"])  # source pixels; the input is half as large
    return (
        one["class"] == other["class"]
        and abs(one["score"] - other["score"]) <= LIMITS.score
        and bool(np.abs(sides).max() <= 2 * LIMITS.box_px)
    )


def test_val_measures_the_same(bundle: tuple[str, Path], voc07: Path) -> None:
    common = ("--data", voc07, "--limit", 60, "--no-compare-off", "--json")
    expected = json.loads(edgekit("val", "default", "--engine", "torch", *common))
    for engine in ENGINES[bundle[0]]:
        got = json.loads(edgekit("val", bundle[1], "--engine", engine, *common))
        for key in ("ap50", "map", "mask_recall", "active_share"):
            assert got[key] == pytest.approx(expected[key], abs=0.002), (engine, key)
