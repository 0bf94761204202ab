"""From what the user names to what a segmenter is calibrated and measured with."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import DataError
from edgekit.exporters.tcl_evidence import open_masks, pictures_of, spread, training_pictures


def draw(path: Path, *, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8) if mask else (8, 8, 3), np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five pictures, of which 0 and 1 have masks; 1 to 3 are listed for training, 0 for validation."""
    for index in range(5):
        draw(tmp_path / "images" / f"{index}.png")
    for index in range(2):
        draw(tmp_path / "masks" / f"{index}.png", mask=True)
    (tmp_path / "annotations").mkdir()
    for split, names in (("train", "123"), ("val", "0")):
        images = [{"file_name": f"{name}.png"} for name in names]
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps({"images": images}))
    return tmp_path


def test_pictures_of_a_folder_are_not_its_masks(data: Path, tmp_path: Path) -> None:
    assert [path.name for path in pictures_of(data)] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert len(pictures_of(data / "images")) == 5
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        pictures_of(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no picture \(.bmp, "):
        pictures_of(data / "annotations")


def test_what_is_calibrated_on_needs_no_masks(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "edgekit"):
        assert [path.name for path in training_pictures(data, "voc")] == ["1.png", "2.png", "3.png"]
    assert not caplog.records


def test_one_split_alone_is_a_warning(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for listing in (data / "annotations").iterdir():
        listing.unlink()
    with caplog.at_level(logging.WARNING, "edgekit"):
        assert [path.name for path in training_pictures(data, "voc")] == ["0.png", "1.png"]
    assert "has one split only" in caplog.text


def test_some_of_the_masks(data: Path) -> None:
    for listing in (data / "annotations").iterdir():
        listing.unlink()
    assert len(open_masks(data, "voc", None)) == len(open_masks(data, "voc", 5)) == 2
    assert [picture.image_path.name for picture in open_masks(data, "voc", 1).pictures] == ["0.png"]
    assert [path.name for path in spread([Path(str(index)) for index in range(9)], 3)] == ["0", "4", "8"]
