"""Objects cut out along their outlines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.data.cutouts import Cutout, read_cutouts
from edgekit.errors import DataError

TRIANGLE = [[10, 10, 90, 10, 10, 90]]


@pytest.fixture
def outlined(write_coco: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a data set of one picture, red on its left half and blue on its right, 120x100."""

    def write(*entries: dict[str, Any]) -> Path:
        annotations = [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 80, 80], "segmentation": TRIANGLE} | entry
            for i, entry in enumerate(entries)
        ]
        document = {
            "images": [{"id": 1, "file_name": "1.png", "height": 100, "width": 120}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "kite"}],
        }
        folder = write_coco(document, "annotations/instances_train.json")
        picture = np.zeros((100, 120, 3), np.uint8)
        picture[:, :60], picture[:, 60:] = (0, 0, 255), (255, 0, 0)
        cv2.imwrite(str(folder / "images" / "1.png"), picture)
        return folder

    return write


def test_a_cutout_is_its_outline(outlined: Callable[..., Path]) -> None:
    (cutout,) = read_cutouts(outlined({}), ["person"])
    assert cutout.class_name == "person"
    assert cutout.opacity.shape == cutout.image.shape[:2] == (81, 81)
    assert cutout.opacity[0].all()
    assert cutout.opacity[:, 0].all()
    assert cutout.opacity[60:, 60:].max() == 0
    assert cutout.image[0, 0].tolist() == [255, 0, 0]
    assert cutout.image[0, 80].tolist() == [0, 0, 255]


def test_only_large_outlined_objects_of_the_classes(outlined: Callable[..., Path]) -> None:
    folder = outlined(
        {},
        {"category_id": 2},
        {"iscrowd": 1},
        {"segmentation": {"counts": [1, 2], "size": [100, 120]}},
        {"segmentation": []},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]},
        {"segmentation": [[10, 10, 90, 90, 91, 90, 11, 10]]},
    )
    assert len(read_cutouts(folder, ["person"])) == 1
    assert len(read_cutouts(folder, ["person", "kite"])) == 2


def test_a_paste_leaves_the_background_outside_the_outline() -> None:
    opacity = np.zeros((4, 4), np.float32)
    opacity[:2] = 1
    cutout = Cutout(np.full((4, 4, 3), 200, np.uint8), opacity, "person")
    image = np.full((10, 10, 3), 7, np.uint8)
    cutout.paste(image, left=3, top=5)
    expected = np.full((10, 10, 3), 7, np.uint8)
    expected[5:7, 3:7] = 200
    np.testing.assert_array_equal(image, expected)


def test_resized_and_flipped_stay_in_step() -> None:
    opacity = np.zeros((8, 4), np.float32)
    opacity[:, :2] = 1
    image = np.where(opacity[..., None] > 0, 250, 3).astype(np.uint8).repeat(3, axis=2)
    small = Cutout(image, opacity, "person").resized(height=4, width=2).flipped()
    assert small.opacity.tolist() == [[0, 1]] * 4
    assert small.image[..., 0].tolist() == [[3, 250]] * 4


@pytest.mark.parametrize("entry", [{"category_id": 2}, {"segmentation": []}])
def test_nothing_to_cut_out_is_an_error(outlined: Callable[..., Path], entry: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="outlines no object of person larger"):
        read_cutouts(outlined(entry), ["person"])


def test_another_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances_train\.json does not exist"):
        read_cutouts(tmp_path, ["person"])
