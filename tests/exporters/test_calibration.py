"""Calibration inputs: which pictures, under which masks, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.data.letterbox import PADDING_VALUE
from edgekit.errors import DataError, ExportError
from edgekit.exporters.calibration import MIN_IMAGES, calibration_inputs
from edgekit.spec import DetectorSpec

SPEC = DetectorSpec(model="m", classes=("a",), height=64, width=64, anchors=(), mask_grid=(4, 4))
BOX = np.array([[0.0, 0.0, 15.0, 15.0]], np.float32)


@dataclass(frozen=True)
class Picture:
    number: int
    boxes_xyxy: NDArray[np.float32]

    def read(self) -> NDArray[np.uint8]:
        return np.full((32, 64, 3), (self.number % 251, 10, 20), np.uint8)


@dataclass(frozen=True)
class Pictures:
    samples: tuple[Picture, ...]


def pictures(count: int, boxes: NDArray[np.float32] = BOX) -> Pictures:
    return Pictures(tuple(Picture(number, boxes) for number in range(count)))


def test_images_are_letterboxed_and_normalised() -> None:
    first, *_ = calibration_inputs(pictures(100), SPEC, 100).inputs
    assert first["image"].shape == (1, 3, 64, 64)
    assert first["image"].dtype == np.float32
    assert first["image"][0, :, 32, 32].tolist() == [(0 - 128) / 128, (10 - 128) / 128, (20 - 128) / 128]
    assert not first["image"][0, :, 0].any(), f"bars of {PADDING_VALUE} are exactly zero"


def test_masks_of_objects_and_masks_of_ones_alternate() -> None:
    masks = [feed["mask"][0, 0] for feed in calibration_inputs(pictures(100), SPEC, 100).inputs]
    assert masks[0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # below the upper bar
    assert masks[1].all()
    assert masks[2].tolist() == masks[0].tolist()


def test_masks_are_dilated_as_at_run_time() -> None:
    first, *_ = calibration_inputs(pictures(100), replace(SPEC, mask_dilation=1), 100).inputs
    assert first["mask"].sum() == 6


def test_pictures_without_boxes_take_the_given_mask() -> None:
    diagonal = np.eye(4, dtype=np.bool_)
    without = pictures(100, np.zeros((0, 4), np.float32))
    first, second, *_ = calibration_inputs(without, SPEC, 100, mask_of=lambda boxed: diagonal).inputs
    assert np.array_equal(first["mask"][0, 0], diagonal)
    assert second["mask"].all()
    assert all(feed["mask"].all() for feed in calibration_inputs(without, SPEC, 100).inputs)


def test_an_empty_mask_is_replaced_by_ones() -> None:
    without = pictures(100, np.zeros((0, 4), np.float32))
    first, *_ = calibration_inputs(without, SPEC, 100, mask_of=lambda boxed: np.zeros((4, 4), np.bool_)).inputs
    assert first["mask"].all()


def test_pictures_are_spread_over_the_data_set() -> None:
    calibration = calibration_inputs(pictures(250), SPEC, 125)
    numbers = [round(float(feed["image"][0, 0, 32, 32]) * 128 + 128) for feed in calibration.inputs]
    assert calibration.images == len(numbers) == 125
    assert numbers[0] == 0
    assert numbers[-1] == 249
    assert numbers == sorted(set(numbers))


def test_inputs_can_be_read_again() -> None:
    inputs = calibration_inputs(pictures(100), SPEC, 100).inputs
    assert len(list(inputs)) == len(list(inputs)) == 100


def test_the_known_range_of_the_image_is_given() -> None:
    assert calibration_inputs(pictures(100), SPEC, 100).input_ranges == {"image": (-1.0, 127 / 128)}


def test_the_hash_tells_pictures_and_masks_apart() -> None:
    base = calibration_inputs(pictures(100), SPEC, 100).sha256
    assert len(base) == 64
    assert base == calibration_inputs(pictures(100), SPEC, 100).sha256
    assert base != calibration_inputs(pictures(101), SPEC, 100).sha256
    assert base != calibration_inputs(pictures(100, BOX + 20), SPEC, 100).sha256


def test_a_folder_is_searched_for_pictures(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number in range(MIN_IMAGES):
        image = np.full((8, 8, 3), (0, 0, 200), np.uint8)  # red in OpenCV's BGR
        cv2.imwrite(
            str(tmp_path / ("deep" if number % 2 else ".") / f"{number}.{'png' if number % 3 else 'BMP'}"), image
        )
    (tmp_path / "notes.txt").write_text("no picture")
    calibration = calibration_inputs(tmp_path, SPEC, 1000)
    assert calibration.images == MIN_IMAGES
    first, *_ = calibration.inputs
    assert first["image"][0, :, 32, 32].tolist() == [72 / 128, -1, -1]


@pytest.mark.parametrize(("count", "found"), [(99, 500), (200, 99), (200, 0)])
def test_too_few_pictures_are_an_error(count: int, found: int) -> None:
    got = min(count, found)
    message = rf"at least 100 pictures, got {got} \({count} asked for, {found} in the data set\)[\s\S]*--calib DIR"
    with pytest.raises(ExportError, match=message):
        calibration_inputs(pictures(found), SPEC, count)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    for number in range(MIN_IMAGES):
        (tmp_path / f"{number:03}.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"000.jpg cannot be decoded as a picture"):
        calibration_inputs(tmp_path, SPEC, MIN_IMAGES)
