"""The path from a picture to detections, on a detector of two convolutions and on a real one."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.backends.of_bundle import default_threads
from edgekit.bundle import open_bundle
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.data.letterbox import letterbox
from edgekit.decoding.one_stage import postprocess
from edgekit.errors import EngineError, UsageError
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, off
from edgekit.models.anchors import anchor_boxes
from edgekit.pipeline import Pipeline, open_pipeline, resolve_model

pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("pipeline") / "tiny.edgekit")
    return path


def counted(tiny: ModuleType, bundle: Path, mask: str) -> tuple[Pipeline, Any, Any]:
    """A pipeline and its two engines, wrapped."""
    opened = open_pipeline(bundle, mask=mask)
    omg, detector = tiny.Counting(opened.omg), tiny.Counting(opened.detector)
    return Pipeline(opened.spec, omg, detector, opened.mask_source), omg, detector


def test_detections_of_a_picture(bundle: Path, tiny: ModuleType) -> None:
    result = open_pipeline(bundle).process(tiny.picture())
    assert result.mask.astype(int).tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert result.active_share == 2 / 16
    found = result.detections
    assert found.class_ids.tolist() == [0, 1, 0, 1]
    assert (np.diff(found.scores) <= 0).all()
    # The anchor is (16, 0, 32, 16): dx .5, dy -.5 times .1 times 16 move it by .8; dw .25 grows it by e^.05.
    np.testing.assert_allclose(found.boxes_xyxy[0], [16.39, 0, 33.21, 15.2], atol=0.01)
    assert list(result.timings_ms) == ["letterbox", "mask", "detector", "decode", "total"]
    parts = sum(value for stage, value in result.timings_ms.items() if stage != "total")
    assert result.timings_ms["total"] == pytest.approx(parts)


@pytest.mark.parametrize(("height", "width"), [(640, 640), (128, 256), (30, 20)])
def test_boxes_are_in_pixels_of_the_source_picture(bundle: Path, height: int, width: int) -> None:
    """A red block fills the second quarter of the first row of input cells that the picture has."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 4, : width // 4] = (255, 128, 128)
    found = open_pipeline(bundle, mask="off").process(image, score_threshold=0.6).detections
    assert len(found) >= 1
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [width, height, width, height]).all()


def test_the_score_threshold_is_inclusive_and_can_be_lowered(bundle: Path, tiny: ModuleType) -> None:
    pipeline = open_pipeline(bundle)
    everything = pipeline.process(tiny.picture(), score_threshold=0.0).detections
    usual = pipeline.process(tiny.picture()).detections
    assert len(everything) > len(usual)
    assert usual.scores.min() >= tiny.SPEC.score_threshold
    exact = pipeline.process(tiny.picture(), score_threshold=float(usual.scores[1])).detections
    assert len(exact) == 2


def test_an_empty_mask_skips_the_detector(bundle: Path, tiny: ModuleType) -> None:
    pipeline, omg, detector = counted(tiny, bundle, "omg")
    result = pipeline.process(np.full((64, 64, 3), 128, np.uint8))
    assert (omg.runs, detector.runs) == (1, 0)
    assert len(result.detections) == 0
    assert result.detections.boxes_xyxy.shape == (0, 4)
    assert result.active_share == 0


def test_the_mask_network_runs_only_if_asked_and_once(bundle: Path, tiny: ModuleType) -> None:
    pipeline, omg, detector = counted(tiny, bundle, "off")
    pipeline.process(tiny.picture())
    assert (omg.runs, detector.runs) == (0, 1)
    pipeline, omg, _ = counted(tiny, bundle, "omg+omg&omg")
    pipeline.process(tiny.picture())
    assert omg.runs == 1


def test_the_mask_of_one_frame_is_not_the_mask_of_the_next(bundle: Path, tiny: ModuleType) -> None:
    pipeline = open_pipeline(bundle)
    first = pipeline.process(tiny.picture()).mask
    assert not np.array_equal(first, pipeline.process(tiny.picture()[::-1].copy()).mask)


def test_truth_masks_take_boxes_of_the_source_picture(bundle: Path, tiny: ModuleType) -> None:
    pipeline = open_pipeline(bundle, mask="truth")
    boxes = np.array([[0, 96, 32, 128]], np.float32)
    mask = pipeline.process(tiny.picture(128, 128), truth_xyxy=boxes).mask
    assert np.argwhere(mask).tolist() == [[3, 0]]
    with pytest.raises(UsageError, match="'truth' needs ground-truth boxes"):
        pipeline.process(tiny.picture())


def test_another_mask_on_the_same_engines(bundle: Path) -> None:
    pipeline = open_pipeline(bundle)
    other = pipeline.with_mask("off")
    assert other.detector is pipeline.detector
    assert other.process(np.zeros((64, 64, 3), np.uint8)).active_share == 1
    assert other.classes == ("red", "blue")


def test_both_graphs_take_the_same_picture(bundle: Path, tiny: ModuleType) -> None:
    pipeline, omg, detector = counted(tiny, bundle, "omg")
    detector.takes_pixels = True
    with pytest.raises(EngineError, match=r"the mask network takes normalised numbers and the detector pixels\.\nThey"):
        Pipeline(pipeline.spec, omg, detector, pipeline.mask_source)


def test_every_engine_of_every_format_agrees(tiny: ModuleType, tmp_path: Path) -> None:
    image = tiny.picture(200, 150)
    results = []
    for graph_format, (_, engines) in GRAPH_FORMATS.items():
        path = tiny.write_bundle(tmp_path / f"{graph_format}.edgekit", graph_format)
        results += [open_pipeline(path, engine=engine, threads=None).process(image) for engine in engines]
    for result in results[1:]:
        np.testing.assert_array_equal(result.mask, results[0].mask)
        np.testing.assert_allclose(result.detections.boxes_xyxy, results[0].detections.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(result.detections.scores, results[0].detections.scores, atol=1e-5)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (64, 3)])
def test_no_more_threads_than_processors(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr("edgekit.backends.of_bundle.usable_cores", lambda: cores)
    bundle = open_bundle(tiny.write_bundle(tmp_path / "x.edgekit", threads=3))
    assert bundle.manifest.threads == 3
    assert default_threads(bundle) == threads


def test_a_zip_lives_as_long_as_it_is_needed(tiny: ModuleType, tmp_path: Path) -> None:
    pipeline = open_pipeline(tiny.write_bundle(tmp_path / "x.edgekit", zipped=True))
    gc.collect()
    assert len(pipeline.process(tiny.picture()).detections) == 4


# Post-processing


def raw(tiny: ModuleType, scores: dict[tuple[int, int], float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits with ``scores`` by (anchor, class), and offsets that leave the anchors as they are."""
    count = len(anchor_boxes(tiny.SPEC))
    logits = np.full((1, count, 2), -20, np.float32)
    for (anchor, name), score in scores.items():
        logits[0, anchor, name] = np.log(score / (1 - score))
    return logits, np.zeros((1, count, 4), np.float32)


def test_anchors_of_inactive_cells_are_background_whatever_they_say(tiny: ModuleType) -> None:
    whole = letterbox(np.zeros((64, 64, 3), np.uint8), height=64, width=64)
    mask = np.zeros((4, 4), np.bool_)
    mask[0, 0] = True
    logits, offsets = raw(tiny, {(0, 0): 0.9, (5, 0): 0.99, (19, 1): 0.99})
    found = postprocess(tiny.SPEC, logits, offsets, mask, whole, 0.3)
    assert found.boxes_xyxy.tolist() == [[0, 0, 16, 16]]
    assert found.scores.tolist() == pytest.approx([0.9])


def test_a_box_outside_the_picture_is_dropped(tiny: ModuleType) -> None:
    wide = letterbox(np.zeros((32, 64, 3), np.uint8), height=64, width=64)  # bars of 16 pixels
    logits, offsets = raw(tiny, {(0, 0): 0.9, (5, 0): 0.8})
    found = postprocess(tiny.SPEC, logits, offsets, np.ones((4, 4), np.bool_), wide, 0.3)
    assert found.scores.tolist() == pytest.approx([0.8])


def test_one_anchor_may_be_two_classes(tiny: ModuleType) -> None:
    whole = letterbox(np.zeros((64, 64, 3), np.uint8), height=64, width=64)
    logits, offsets = raw(tiny, {(0, 0): 0.6, (0, 1): 0.7})
    found = postprocess(tiny.SPEC, logits, offsets, np.ones((4, 4), np.bool_), whole, 0.3)
    assert found.class_ids.tolist() == [1, 0]


def test_neighbours_vote_and_a_box_alone_loses_half_its_score(tiny: ModuleType) -> None:
    spec = replace(tiny.SPEC, vote_iou=0.55)
    whole = letterbox(np.zeros((64, 64, 3), np.uint8), height=64, width=64)
    logits, offsets = raw(tiny, {(0, 0): 0.8, (1, 0): 0.6, (9, 0): 0.5})
    offsets[0, 1, 0] = -8  # the second anchor, 16 pixels to the right, comes within 3.2 pixels: IoU 2/3
    found = postprocess(spec, logits, offsets, np.ones((4, 4), np.bool_), whole, 0.26)
    shift = 3.2 * 0.36 * (2 / 3) / (0.64 + 0.36 * (2 / 3))
    np.testing.assert_allclose(found.boxes_xyxy, [[shift, 0, 16 + shift, 16], [16, 32, 32, 48]], atol=1e-3)
    assert found.scores.tolist() == pytest.approx([0.8 / 2 + 1.4 / 20, 0.5 / 2 + 0.5 / 20])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), low=st.floats(0.01, 0.6), high=st.floats(0.01, 0.6))
def test_the_score_threshold_only_says_what_is_reported(tiny: ModuleType, seed: int, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    spec = replace(tiny.SPEC, vote_iou=0.3)
    whole = letterbox(np.zeros((64, 64, 3), np.uint8), height=64, width=64)
    rng = np.random.default_rng(seed)
    anchors = len(anchor_boxes(spec))
    logits = rng.normal(0, 2, (1, anchors, 2)).astype(np.float32)
    offsets = rng.normal(0, 4, (1, anchors, 4)).astype(np.float32)
    all_active = np.ones((4, 4), np.bool_)
    more, fewer = (postprocess(spec, logits, offsets, all_active, whole, threshold) for threshold in (low, high))
    reported = more.scores >= high
    np.testing.assert_allclose(more.boxes_xyxy[reported], fewer.boxes_xyxy, atol=1e-4)
    np.testing.assert_allclose(more.scores[reported], fewer.scores, atol=1e-6)
    np.testing.assert_array_equal(more.class_ids[reported], fewer.class_ids)


# Opening


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no model '.*absent': expected a bundle(?s:.)*edgekit export"):
        open_pipeline(tmp_path / "absent")
    assert resolve_model(tmp_path) == tmp_path


def test_an_engine_that_the_bundle_has_no_graph_for(bundle: Path) -> None:
    with pytest.raises(UsageError, match="'tiny' has onnx graphs, which 'tflite' does not run; its engines are: onnx"):
        open_pipeline(bundle, engine="tflite")


def test_an_unknown_mask_is_found_before_anything_is_loaded(bundle: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'omg'"):
        open_pipeline(bundle, mask="ogm")


def test_engine_options_of_the_bundle_reach_the_engine(tiny: ModuleType, tmp_path: Path) -> None:
    options = {"onnxruntime": {"providers": [{"name": "EvilProvider"}]}}
    path = tiny.write_bundle(tmp_path / "x.edgekit", engine_options=options)
    with pytest.raises(EngineError, match="'EvilProvider' is not allowed"):
        open_pipeline(path, engine="onnxruntime")


WITHOUT = """
import sys
for name in sys.argv[2].split(","):
    sys.modules[name] = None  # as if it were not installed
from edgekit.errors import MissingDependencyError
from edgekit.pipeline import open_pipeline
try:
    print(open_pipeline(sys.argv[1]).engine_name)
except MissingDependencyError as error:
    print(error)
"""


def opened_without(path: Path, *packages: str) -> str:
    command = [sys.executable, "-c", WITHOUT, str(path), ",".join(packages)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_auto_takes_the_first_engine_that_is_installed(bundle: Path) -> None:
    assert opened_without(bundle, "tensorflow").startswith("onnxruntime ")
    assert opened_without(bundle, "onnxruntime").startswith("openvino ")
    assert 'pip install "edgekit-vision[onnx]"' in opened_without(bundle, "onnxruntime", "openvino")


def test_a_checkpoint_without_torch_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "best.pt").touch()
    assert 'pip install "edgekit-vision[train]"' in opened_without(tmp_path / "best.pt", "torch")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector for 64x64 inputs."""
    pytest.importorskip("torch", reason="needs torch")
    from edgekit.models.checkpoint import Checkpoint, save_checkpoint
    from edgekit.models.registry import build

    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, Checkpoint(model=build("mobilenetv2-ssdlite-omg", ("a", "b"), size=64).eval()))
    return path


def test_a_checkpoint_runs_on_torch(checkpoint: Path) -> None:
    pipeline = open_pipeline(checkpoint, mask="off")
    assert pipeline.engine_name.startswith("torch ")
    result = pipeline.process(np.zeros((48, 64, 3), np.uint8), score_threshold=0.0)
    assert len(result.detections) > 0
    with pytest.raises(UsageError, match="a checkpoint runs on torch, not on 'openvino'"):
        open_pipeline(checkpoint, engine="openvino")


def test_tracks_follow_what_the_frame_before_had(bundle: Path, tiny: ModuleType) -> None:
    pipeline = open_pipeline(bundle, mask="omg+tracks")
    first, second = (pipeline.process(tiny.picture()) for _ in range(2))
    assert first.mask.sum() == 2
    assert (second.mask >= first.mask).all()
    assert second.mask.sum() > 2
    assert pipeline.with_mask("omg+tracks").process(tiny.picture()).mask.sum() == 2, "another stream starts anew"


def test_a_mask_source_is_told_of_tracks_and_time(bundle: Path) -> None:
    told = []

    def source(frame: MaskInput) -> Mask:
        told.append((frame.tracks, frame.time_s))
        return off(frame)

    pipeline = open_pipeline(bundle).with_mask(source)
    picture, expected = np.zeros((50, 60, 3), np.uint8), np.array([[1, 2, 30, 40]], np.float32)
    pipeline.process(picture)
    pipeline.process(picture, tracks=expected, time_s=12.5)
    assert told == [(None, None), (expected, 12.5)]
