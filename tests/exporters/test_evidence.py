"""Which pictures an export calibrates on, measures with and records."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from edgekit.data.letterbox import Letterboxed
from edgekit.errors import DataError, ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.evidence import (
    calibration_samples,
    golden_picture,
    is_dataset,
    open_calibration,
    open_validation,
)
from edgekit.exporters.pictures import calibration_pictures, dataset_pictures, drawn_scene, read_picture, spread_inputs
from edgekit.masks.pyramid import Mask
from edgekit.spec import DetectorSpec


def write_data(folder: Path, splits: dict[str, int]) -> Path:
    """COCO JSON with pictures of 16x16 pixels and one box each; the split ``""`` is a lone ``instances.json``."""
    (folder / "images").mkdir(parents=True)
    for split, count in splits.items():
        names = [f"{split}{index}.png" for index in range(count)]
        for index, name in enumerate(names):
            assert cv2.imwrite(str(folder / "images" / name), np.full((16, 16, 3), index, np.uint8))
        document = {
            "images": [{"id": k, "file_name": name, "width": 16, "height": 16} for k, name in enumerate(names)],
            "categories": [{"id": 1, "name": "red"}],
            "annotations": [{"image_id": k, "category_id": 1, "bbox": [0, 0, 8, 8]} for k in range(count)],
        }
        target = folder / "annotations" / f"instances_{split}.json" if split else folder / "instances.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(document))
    return folder


@pytest.fixture
def spec(tiny: ModuleType) -> DetectorSpec:
    made: DetectorSpec = tiny.SPEC
    return made


def everything(_: Letterboxed) -> Mask:
    return np.ones((4, 4), np.bool_)


def calibrate(calib: Path | None, data: Path | None, spec: DetectorSpec, count: int = 100) -> Calibration:
    return open_calibration(calib, data, spec, count, everything)


def test_a_limit_spreads_over_the_split(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"val": 11})
    assert [sample.image_id for sample in open_validation(data, ("red",), 3).samples] == [0, 5, 10]
    assert len(open_validation(data, ("red",), None)) == len(open_validation(data, ("red",), 50)) == 11


def test_classes_must_match(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"val": 1})
    with pytest.raises(DataError, match=r"(?s)red.*cat|cat.*red"):
        open_validation(data, ("cat",), None)


def test_data_calibrates_on_its_train_split(
    tmp_path: Path, spec: DetectorSpec, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_data(tmp_path / "data", {"train": 120, "val": 3})
    assert calibrate(None, data, spec).images == 100
    assert caplog.messages == []


def test_without_a_train_split_val_serves_with_a_warning(
    tmp_path: Path, spec: DetectorSpec, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_data(tmp_path / "data", {"val": 100})
    assert calibrate(None, data, spec).images == 100
    assert "has no train split" in caplog.messages[0]


def test_a_lone_split_is_warned_about(tmp_path: Path, spec: DetectorSpec, caplog: pytest.LogCaptureFixture) -> None:
    data = write_data(tmp_path / "data", {"": 100})
    assert calibrate(None, data, spec).images == 100
    assert "has one split only" in caplog.messages[0]


def test_calib_comes_before_data(tmp_path: Path, spec: DetectorSpec, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_data(tmp_path / "a", {"": 110}) / "images"
    assert not is_dataset(folder)
    assert calibrate(folder, tmp_path / "nowhere", spec, 105).images == 105
    data = write_data(tmp_path / "b", {"train": 100})
    assert is_dataset(data)
    assert calibrate(data, None, spec).images == 100
    assert caplog.messages == []


def test_a_broken_data_set_keeps_its_own_message(tmp_path: Path, spec: DetectorSpec) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text("{")
    with pytest.raises(DataError, match=r"instances_train\.json"):
        calibrate(None, tmp_path, spec)


def test_a_missing_calibration_folder(tmp_path: Path, spec: DetectorSpec) -> None:
    with pytest.raises(DataError, match=r"the calibration folder .*nowhere does not exist"):
        calibrate(tmp_path / "nowhere", None, spec)


@pytest.mark.parametrize(("pictures", "count"), [(99, 200), (120, 99)])
def test_a_hundred_pictures_at_least(tmp_path: Path, spec: DetectorSpec, pictures: int, count: int) -> None:
    data = write_data(tmp_path / "data", {"train": pictures})
    with pytest.raises(ExportError, match="expects at least 100 pictures, got 99"):
        calibrate(None, data, spec, count)


def test_calibration_pictures_come_back_exactly(tmp_path: Path, spec: DetectorSpec) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(100):
        noise = generator.integers(0, 256, (spec.height, spec.width, 3)).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{index:03}.png"), noise)
    calibration = calibrate(folder, None, spec)
    pictures = list(calibration_pictures(calibration, spec, 3))
    expected = [read_picture(folder / f"{index:03}.png") for index in (0, 33, 66)]
    assert all(np.array_equal(got, wanted) for got, wanted in zip(pictures, expected, strict=True))
    assert len(list(spread_inputs(calibration, 1000))) == 100


def test_dataset_pictures_are_spread(tmp_path: Path) -> None:
    dataset = open_validation(write_data(tmp_path / "data", {"val": 11}), ("red",), None)
    assert [int(picture[0, 0, 0]) for picture in dataset_pictures(dataset, 3)] == [0, 5, 10]


def test_golden_by_name_by_default_and_drawn(tmp_path: Path, spec: DetectorSpec) -> None:
    path = tmp_path / "mine.png"
    assert cv2.imwrite(str(path), np.full((10, 20, 3), (0, 0, 200), np.uint8))
    named = golden_picture(path, "x.pt", spec, pictures_follow=True)
    assert named is not None
    assert named.shape == (10, 20, 3)
    assert named[0, 0].tolist() == [200, 0, 0]  # RGB
    assert golden_picture(None, "x.pt", spec, pictures_follow=True) is None
    drawn = golden_picture(None, "x.pt", spec, pictures_follow=False)
    assert drawn is not None
    assert np.array_equal(drawn, drawn_scene(spec))
    assert drawn.shape == (spec.height, spec.width, 3)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_golden_picture_that_is_none(tmp_path: Path, spec: DetectorSpec, content: bytes | None) -> None:
    path = tmp_path / "golden.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"golden\.png (does not exist|cannot be decoded)"):
        golden_picture(path, "x.pt", spec, pictures_follow=False)


def test_the_shipped_model_takes_the_shipped_golden_picture(
    tmp_path: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tiny.write_bundle(tmp_path / "default.edgekit", zipped=True)
    monkeypatch.setattr("edgekit.models.default.default_bundle", lambda: shipped)
    assert np.array_equal(golden_picture(None, "default", tiny.SPEC, pictures_follow=False), tiny.picture())
    shipped.unlink()
    drawn = golden_picture(None, "default", tiny.SPEC, pictures_follow=False)
    assert np.array_equal(drawn, drawn_scene(tiny.SPEC))


def test_pictures_for_exports_without_calibration(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"train": 11})
    for source in (data, data / "images"):
        assert len(calibration_samples(source, 3)) == 3
    assert [int(picture[0, 0, 0]) for picture in calibration_samples(data, 3)] == [0, 5, 10]
    with pytest.raises(DataError, match=r"holds no picture \(\.bmp"):
        calibration_samples(data / "annotations", 3)
    with pytest.raises(DataError, match="does not exist"):
        calibration_samples(tmp_path / "nowhere", 3)
