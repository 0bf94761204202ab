"""Profiles of tiny bundles, and the masks and frames that they are measured with."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from edgekit.cameras import Frame
from edgekit.data.letterbox import letterbox
from edgekit.errors import EngineError, MissingDependencyError, SourceError, UsageError
from edgekit.masks.sources import MaskInput
from edgekit.profiling.engines import ShareMask, golden_frames, profile_engines, source_frames


@pytest.fixture(scope="module")
def bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
    pytest.importorskip("onnx", reason="the tiny bundle is written with onnx")
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edgekit")
    return path


def frame(tiny: ModuleType) -> Frame:
    return Frame(image=tiny.picture(), index=0, time_s=0, source="test")


def test_every_engine_of_the_bundle(bundle: Path, tiny: ModuleType) -> None:
    pytest.importorskip("openvino", reason="the tiny bundle runs on OpenVINO too")
    profiles = profile_engines(bundle, [frame(tiny)], engine="all", mask="omg", threads=1, warmup=1, iterations=3)
    assert [profile.engine for profile in profiles] == ["onnxruntime", "openvino"]
    for profile in profiles:
        assert profile.stages is not None
        assert list(profile.stages) == ["letterbox", "mask", "detector", "decode", "total"]
        assert profile.stages["total"].iterations == 3
        assert len(profile.masks) == 3
        assert profile.load_ms > 0
        assert profile.to_json()["stages"]["total"]["p50_ms"] > 0


def test_an_engine_that_is_absent_is_listed(bundle: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    onnxruntime, openvino = profile_engines(
        bundle, [frame(tiny)], engine="all", mask="off", threads=1, warmup=0, iterations=1
    )
    assert onnxruntime.to_json()["ran"]
    assert openvino.to_json() == {"engine": "openvino", "ran": False, "detail": openvino.detail}
    assert "openvino" in openvino.detail


def test_the_one_engine_that_was_asked_for_must_be_there(
    bundle: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises((MissingDependencyError, EngineError), match="openvino"):
        profile_engines(bundle, [frame(tiny)], engine="openvino", mask="off", threads=1, warmup=0, iterations=1)


def test_an_engine_that_cannot_run_the_bundle(bundle: Path, tiny: ModuleType) -> None:
    with pytest.raises(UsageError, match="its engines are: onnxruntime, openvino"):
        profile_engines(bundle, [frame(tiny)], engine="tflite", mask="off", threads=1, warmup=0, iterations=1)


@pytest.mark.parametrize(("share", "cells"), [(0.0, 0), (0.01, 0), (0.06, 1), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_a_mask_for_measuring_has_its_share(tiny: ModuleType, share: float, cells: int) -> None:
    letterboxed = letterbox(tiny.picture(), height=64, width=64)
    mask = ShareMask(share)(
        MaskInput(letterboxed=letterboxed, spec=tiny.SPEC, objectness=lambda: np.zeros((4, 4), np.float32))
    )
    assert int(mask.sum()) == cells


def test_frames_come_from_the_bundle_itself(bundle: Path, tiny: ModuleType) -> None:
    (golden,) = golden_frames(bundle)
    assert np.array_equal(golden.image, tiny.picture())


def test_frames_of_a_folder_up_to_a_limit(tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((8, 8, 3), index, np.uint8))
    assert [int(one.image[0, 0, 0]) for one in source_frames(str(tmp_path), limit=2)] == [0, 1]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.mp4"):
        source_frames(str(tmp_path / "none.mp4"), limit=1)
