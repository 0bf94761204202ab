"""The self-test of a bundle: it passes where nothing changed, and says what differs where something did."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import BundleWriter, open_bundle
from edgekit.bundle.golden import TOLERANCES, verify_bundle
from edgekit.bundle.golden_files import read_picture, read_recording
from edgekit.bundle.manifest import GRAPH_FORMATS, PRECISIONS
from edgekit.data.picture_file import encode_png
from edgekit.errors import BundleError, BundleIntegrityError, UsageError

Replace = Callable[[str, bytes], None]


@pytest.fixture
def change_output(bundle: Path, replace: Replace) -> Callable[[Callable[[dict[str, Any]], Any]], None]:
    """Change the recorded output with a function."""

    def apply(change: Callable[[dict[str, Any]], Any]) -> None:
        document = json.loads((bundle / "golden_output.json").read_text())
        change(document)
        replace("golden_output.json", json.dumps(document).encode())

    return apply


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bundle_passes_where_it_was_made(tiny: ModuleType, tmp_path: Path, graph_format: str, zipped: bool) -> None:
    report = verify_bundle(tiny.write_bundle(tmp_path / "x.edgekit", graph_format, zipped=zipped))
    assert report.passed
    assert report.name == "tiny"
    assert report.detections == 4
    assert {check.status for check in report.checks} <= {"passed", "not installed"}


def test_two_engines_agree(good: Path) -> None:
    pytest.importorskip("openvino")
    report = verify_bundle(good)
    assert [(check.engine, check.status) for check in report.checks] == [
        ("onnxruntime", "passed"),
        ("openvino", "passed"),
    ]
    assert report.checks[1].detail.startswith("openvino ")
    assert json.loads(json.dumps(report.to_json()))["passed"] is True


def test_one_engine(good: Path) -> None:
    assert [check.engine for check in verify_bundle(good, "onnxruntime", threads=2).checks] == ["onnxruntime"]
    with pytest.raises(UsageError, match="which 'tflite' does not run; its engines are: onnxruntime, openvino"):
        verify_bundle(good, "tflite")


def test_what_is_recorded(good: Path, tiny: ModuleType) -> None:
    bundle = open_bundle(good)
    np.testing.assert_array_equal(read_picture(bundle, bundle.manifest.golden), tiny.picture())
    recording = read_recording(bundle, bundle.manifest.golden)
    assert recording.mask.tolist() == [[False, True, False, False], *[[False] * 4] * 2, [False, False, False, True]]
    assert recording.objectness.shape == (4, 4)
    assert recording.detections.class_ids.tolist() == [0, 1, 0, 1]
    # Four active anchors (two fine, two coarse) of two classes; inactive ones are never candidates.
    assert sorted(set(recording.anchors.tolist())) == [1, 15, 16, 19]
    assert len(recording.scores) == 8
    assert (np.diff(recording.scores) <= 0).all()


def test_an_empty_mask_still_tests_the_detector(tiny: ModuleType, tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    path = tiny.write_bundle(tmp_path / "x.edgekit", image=grey)
    bundle = open_bundle(path)
    recording = read_recording(bundle, bundle.manifest.golden)
    assert not recording.mask.any()
    assert len(recording.scores) == 32
    assert verify_bundle(path).passed


def test_every_precision_has_tolerances() -> None:
    assert set(TOLERANCES) == set(PRECISIONS)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda output: output["objectness"][2].__setitem__(1, 0.9), "objectness"),
        (lambda output: output.update(mask=["1111"] * 4), "mask_cells"),
        (lambda output: output["candidates"]["scores"].__setitem__(1, 0.5), "score"),
        (lambda output: output["candidates"]["boxes_xyxy"][3].__setitem__(2, 50.0), "box_px"),
        (lambda output: output["detections"]["class_ids"].__setitem__(0, 1), "unmatched"),
        (lambda output: output["detections"]["boxes_xyxy"].__setitem__(0, [0, 40, 9, 60]), "unmatched"),
    ],
    ids=["objectness", "mask", "score", "box", "class", "detection"],
)
def test_each_difference_is_reported(
    bundle: Path, change_output: Callable[[Callable[[Any], Any]], None], change: Callable[[Any], Any], field: str
) -> None:
    change_output(change)
    report = verify_bundle(bundle, "onnxruntime")
    assert not report.passed
    (check,) = report.checks
    assert check.status == "failed"
    assert getattr(check, field) > getattr(report.tolerance, field, 0)


def test_an_engine_that_cannot_run_is_part_of_the_report(bundle: Path, replace: Replace, tiny: ModuleType) -> None:
    pytest.importorskip("openvino")
    tiny.onnx_omg(bundle / "omg.onnx", nan=True)
    replace("omg.onnx", (bundle / "omg.onnx").read_bytes())
    report = verify_bundle(bundle)
    assert not report.passed
    assert [check.status for check in report.checks] == ["error", "error"]
    assert "holds NaN or infinity" in report.checks[0].detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda output: output.pop("mask"), "golden_output.json: mask is missing"),
        (lambda output: output.update(mask=["01"]), "mask must be 4 rows of 4"),
        (lambda output: output.update(mask=["0120"] * 4), "mask must be 4 rows of 4 characters 0 and 1"),
        (lambda output: output.update(objectness=[]), "objectness must be a list of 4 entries"),
        (lambda output: output["objectness"].__setitem__(1, [0, 0]), "objectness[1] must be a list of 4 entries"),
        (lambda output: output["objectness"][1].__setitem__(2, 3), "objectness[1][2] must be a number in 0..1, got 3"),
        (lambda output: output.update(candidates=[]), "candidates must be an object"),
        (lambda output: output["candidates"]["anchors"].__setitem__(0, 20), "anchors[0] must be a number in 0..19"),
        (lambda output: output["candidates"]["anchors"].pop(), "candidates.anchors must be a list of 8 entries"),
        (lambda output: output["candidates"]["class_ids"].__setitem__(0, -1), "class_ids[0] must be a number in 0..1"),
        (lambda output: output["detections"].pop("boxes_xyxy"), "detections.boxes_xyxy is missing"),
        (lambda output: output["detections"].update(scores="x"), "detections.scores must be a list of at most"),
    ],
)
def test_a_malformed_recording(
    bundle: Path, change_output: Callable[[Callable[[Any], Any]], None], change: Callable[[Any], Any], message: str
) -> None:
    change_output(change)
    with pytest.raises(BundleError, match=re.escape(message)):
        verify_bundle(bundle)


def test_a_picture_that_is_no_png(bundle: Path, replace: Replace) -> None:
    replace("golden_input.png", b"GIF89a")
    with pytest.raises(BundleIntegrityError, match=r"golden_input\.png must be a PNG of 64x64 pixels, got no PNG"):
        verify_bundle(bundle)


def test_a_picture_of_another_size(bundle: Path, replace: Replace) -> None:
    replace("golden_input.png", encode_png(np.zeros((32, 48, 3), np.uint8)))
    with pytest.raises(BundleIntegrityError, match="must be a PNG of 64x64 pixels, got 48x32"):
        verify_bundle(bundle)


def test_a_damaged_picture(bundle: Path, replace: Replace) -> None:
    replace("golden_input.png", (bundle / "golden_input.png").read_bytes()[:40])
    with pytest.raises(BundleIntegrityError, match="is a damaged PNG"):
        verify_bundle(bundle)


ABSENT = """
import sys
sys.modules["onnxruntime"] = sys.modules["openvino"] = None  # as if they were not installed
from edgekit.bundle.golden import verify_bundle
from edgekit.errors import MissingDependencyError
try:
    verify_bundle(sys.argv[1])
except MissingDependencyError as error:
    print(error)
"""


def test_no_engine_at_all_names_the_extra(good: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", ABSENT, str(good)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert 'pip install "edgekit-vision[onnx]"' in done.stdout


def test_writing_needs_an_open_writer(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="use BundleWriter in a with statement"):
        _ = BundleWriter(tmp_path / "x").folder
