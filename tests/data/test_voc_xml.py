"""VOC XML: coordinates, difficult objects, splits, broken files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.data.datasets import open_dataset
from edgekit.data.voc_xml import VOC_CLASSES
from edgekit.errors import DataError

Write = Callable[..., Path]


def thing(name: str, box: str, extra: str = "") -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    coordinates = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, box.split(), strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{coordinates}</bndbox></object>"


def test_boxes_become_zero_based_and_exclusive(write_voc: Write) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    folder = write_voc(thing("cat", "1 2 10 30", part) + thing("dog", "5 6 5 6", "<difficult>1</difficult>"))
    dataset = open_dataset(folder, "train")
    assert dataset.classes == VOC_CLASSES
    (sample,) = dataset.samples
    assert sample.boxes_xyxy.tolist() == [[0, 1, 10, 30], [4, 5, 5, 6]]  # the second is one pixel
    assert [dataset.classes[name] for name in sample.class_ids] == ["cat", "dog"]
    assert sample.ignore.tolist() == [False, True]
    assert sample.read().shape == (30, 40, 3)


def test_other_classes_than_vocs(write_voc: Write) -> None:
    folder = write_voc(thing("robot", "1 2 10 30") + thing("cat", "1 2 10 30"))
    assert open_dataset(folder, "train").classes == ("cat", "robot")


def test_an_unknown_split_lists_those_there_are(write_voc: Write) -> None:
    with pytest.raises(DataError, match=r"no split 'val': .*the splits here are: train$"):
        open_dataset(write_voc(""), "val")


def test_a_picture_without_objects_is_background(write_voc: Write) -> None:
    folder = write_voc(thing("cat", "1 2 10 30"))
    (folder / "ImageSets/Main/train.txt").write_text("000005\n000006\n")
    (folder / "Annotations/000006.xml").write_text(
        "<annotation><filename>000005.png</filename><size><width>40</width><height>30</height></size></annotation>"
    )
    assert [len(sample.boxes_xyxy) for sample in open_dataset(folder, "train").samples] == [1, 0]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (thing("", "1 2 3 4"), r"object\[0\] needs a <name> and a <bndbox>"),
        ("<object><name>cat</name></object>", r"object\[0\] needs a <name> and a <bndbox>"),
        (thing("cat", "1 2 3 4") + thing("cat", "1 2 x 4"), r"object\[1\] needs a finite number in <xmax>, got 'x'"),
        (thing("cat", "1 2 nan 4"), r"object\[0\] needs a finite number in <xmax>, got 'nan'"),
        ("<object>", r"000005\.xml is not XML: line 1, column \d+"),
    ],
)
def test_faults(write_voc: Write, objects: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(write_voc(objects), "train")


def test_no_size(write_voc: Write) -> None:
    with pytest.raises(DataError, match=r"000005\.xml: no <size>"):
        open_dataset(write_voc(thing("cat", "1 2 3 4"), size=""), "train")


def test_an_empty_size(write_voc: Write) -> None:
    folder = write_voc(thing("cat", "1 2 3 4"), size="<size><width>40</width><height>0</height></size>")
    with pytest.raises(DataError, match=r"000005\.png is said to be 40x0 pixels"):
        open_dataset(folder, "train")


def test_a_missing_annotation(write_voc: Write) -> None:
    folder = write_voc("")
    (folder / "Annotations/000005.xml").unlink()
    with pytest.raises(DataError, match=r"cannot read the annotation .*000005\.xml"):
        open_dataset(folder, "train")
