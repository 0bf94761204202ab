"""Data sets with masks: the layout and numbers of each protocol, plain folders, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.segmentation import IGNORED, open_segmentation, protocols, read_mask
from edgekit.errors import DataError, UsageError

LAYOUTS = {
    "voc": ("JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/Segmentation/val.txt"),
    "context": ("JPEGImages/a.jpg", "SegmentationClassContext/a.png", "ImageSets/SegmentationContext/val.txt"),
    "coco-object": ("images/val2017/a.jpg", "annotations/val2017/a_instanceTrainIds.png", None),
    "voc20": ("JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/Segmentation/val.txt"),
    "context59": ("JPEGImages/a.jpg", "SegmentationClassContext/a.png", "ImageSets/SegmentationContext/val.txt"),
    "coco-stuff": ("images/val2017/a.jpg", "annotations/val2017/a_labelTrainIds.png", None),
    "cityscapes": ("leftImg8bit/val/ulm/a_leftImg8bit.png", "gtFine/val/ulm/a_gtFine_labelTrainIds.png", None),
    "ade20k": ("images/validation/a.jpg", "annotations/validation/a.png", None),
}
COUNTS = {"voc": 21, "context": 60, "coco-object": 81, "voc20": 20, "context59": 59, "coco-stuff": 171,
          "cityscapes": 19, "ade20k": 150}  # fmt: skip


def write(root: Path, image: str, mask: str, listing: str | None, numbers: np.ndarray) -> Path:
    for name in (image, mask):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*numbers.shape, 3), np.uint8)).save(root / image)
    Image.fromarray(numbers.astype(np.uint8)).save(root / mask)
    if listing:
        (root / listing).parent.mkdir(parents=True, exist_ok=True)
        (root / listing).write_text("a\n")
    return root


@pytest.mark.parametrize("protocol", LAYOUTS)
def test_every_protocol_is_read_in_its_layout(tmp_path: Path, protocol: str) -> None:
    numbers = np.array([[0, 1, 2], [3, 3, IGNORED]])
    dataset = open_segmentation(write(tmp_path, *LAYOUTS[protocol], numbers), protocol, "val")
    assert len(dataset.classes) == len(set(dataset.classes)) == COUNTS[protocol]
    assert (dataset.classes[0] == "background") == (protocol in ("voc", "context", "coco-object"))
    image, labels = dataset.pictures[0].read()
    assert image.shape == (2, 3, 3)
    shifted = protocol in ("voc20", "context59", "ade20k")
    wanted = [[IGNORED, 0, 1], [2, 2, IGNORED]] if shifted else numbers.tolist()
    assert labels.tolist() == wanted
    assert len(dataset) == 1


def test_there_are_eight() -> None:
    assert list(protocols()) == list(LAYOUTS)


def test_shifted_classes_are_those_without_the_background() -> None:
    tables = protocols()
    for name, other in (("voc20", "voc"), ("context59", "context")):
        assert tables[name]["classes"] == tables[other]["classes"][1:]
        assert tables[name]["masks"] == tables[other]["masks"]


def test_plain_folders(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg", "masks/a.png", None, np.array([[1]]))
    write(tmp_path, "images/b.png", "masks/b.png", None, np.array([[2]]))
    assert [one.image_path.name for one in open_segmentation(tmp_path, "voc", "val").pictures] == ["a.jpg", "b.png"]
    (tmp_path / "annotations").mkdir()
    listing = tmp_path / "annotations" / "instances_val.json"
    listing.write_text(json.dumps({"images": [{"file_name": "b.png"}, {"file_name": "c.png"}]}))
    assert [one.mask_path.name for one in open_segmentation(tmp_path, "voc", "val").pictures] == ["b.png"]
    listing.write_text("{}")
    with pytest.raises(DataError, match="does not list images as COCO JSON does"):
        open_segmentation(tmp_path, "voc", "val")


def test_the_development_masks_are_read(voc07: Path) -> None:
    dataset = open_segmentation(voc07, "voc", "val")
    assert len(dataset) == 30
    image, labels = dataset.pictures[0].read()
    assert image.shape[:2] == labels.shape
    assert len(open_segmentation(voc07, "voc", "train")) == 80


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no protocol is called 'vok'; did you mean 'voc'"):
        open_segmentation(tmp_path, "vok", "val")
    with pytest.raises(DataError, match=r"is no data set of this protocol: .*val.txt cannot be read"):
        open_segmentation(tmp_path, "voc", "val")
    with pytest.raises(DataError, match="has no picture with a mask in its split 'val' for the protocol ade20k"):
        open_segmentation(tmp_path, "ade20k", "val")
    write(tmp_path, *LAYOUTS["voc"], np.array([[1]]))
    (tmp_path / LAYOUTS["voc"][0]).unlink()
    with pytest.raises(DataError, match=r"1 files of the split 'val' do not exist, the first is .*a.jpg"):
        open_segmentation(tmp_path, "voc", "val")


def test_what_is_no_mask(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"holds colours \(RGB\); a mask holds one number"):
        read_mask(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a mask"):
        read_mask(tmp_path / "b.png")
    with pytest.raises(DataError, match="cannot be read as a mask"):
        read_mask(tmp_path / "none.png")


def test_masks_must_fit_their_pictures_and_classes(tmp_path: Path) -> None:
    root = write(tmp_path, *LAYOUTS["voc"], np.array([[1, 21]]))
    with pytest.raises(DataError, match="holds the number 21, but there are 21 classes"):
        open_segmentation(root, "voc", "val").pictures[0].read()
    Image.fromarray(np.zeros((3, 2, 3), np.uint8)).save(root / LAYOUTS["voc"][0])
    with pytest.raises(DataError, match=r"a.png is 2x1 pixels, but its picture .* is 2x3"):
        open_segmentation(root, "voc", "val").pictures[0].read()
    (root / LAYOUTS["voc"][0]).write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be decoded as a picture"):
        open_segmentation(root, "voc", "val").pictures[0].read()
