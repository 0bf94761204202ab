"""Broken COCO files: each fault is named with its file and entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.data.coco_json import read_coco
from edgekit.data.datasets import open_dataset
from edgekit.errors import DataError

Write = Callable[..., Path]
Document = dict[str, Any]

FAULTS: dict[str, tuple[str, int | None, str, Any, str]] = {
    "unknown image": (
        "annotations",
        1,
        "image_id",
        99,
        r"annotations\[1\] is about image 99, which is not among",
    ),
    "unknown category": ("annotations", 2, "category_id", 8, r"annotations\[2\] has category 8; .*\[2, 5\]"),
    "short box": ("annotations", 0, "bbox", [1, 2, 3], r"annotations\[0\] needs a 'bbox' of four numbers"),
    "text in a box": ("annotations", 0, "bbox", [1, 2, 3, "4"], r"annotations\[0\] needs a 'bbox'"),
    "no box": ("annotations", 0, "bbox", None, r"annotations\[0\] needs a 'bbox' .*got None"),
    "text as id": ("annotations", 0, "image_id", "7", r"annotations\[0\] needs a whole number 'image_id', got '7'"),
    "truth as id": ("images", 0, "id", True, r"images\[0\] needs a whole number 'id'"),
    "repeated image": ("images", 1, "id", 7, r"images\[1\] repeats the id 7"),
    "no size": ("images", 0, "height", None, r"images\[0\] needs a whole number 'height'"),
    "no file": ("images", 0, "file_name", None, r"images\[0\] has neither a 'file_name' nor a 'frame_index'"),
    "no name": ("categories", 0, "name", "", r"categories\[0\] has no 'name'"),
    "repeated name": ("categories", 1, "name", "dog", r"categories\[1\] \(2, 'dog'\) repeats"),
    "repeated category": ("categories", 1, "id", 5, r"categories\[1\] \(5, 'cat'\) repeats"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(write_coco: Write, document: Document, fault: str) -> None:
    section, index, key, value, message = FAULTS[fault]
    document[section][index][key] = value
    with pytest.raises(DataError, match=r"instances\.json: " + message):
        open_dataset(write_coco(document), "val")


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_a_missing_section(write_coco: Write, document: Document, section: str) -> None:
    del document[section]
    with pytest.raises(DataError, match=f"is not COCO JSON: expected a list '{section}'"):
        open_dataset(write_coco(document), "val")


def test_an_entry_that_is_no_object(write_coco: Write, document: Document) -> None:
    document["annotations"].append(3)
    with pytest.raises(DataError, match=r"annotations\[3\] should be an object, got int"):
        open_dataset(write_coco(document), "val")


def test_a_list_at_the_top(write_coco: Write) -> None:
    with pytest.raises(DataError, match="expected an object at the top, got list"):
        open_dataset(write_coco([]), "val")


def test_a_truncated_file(write_coco: Write, document: Document) -> None:
    folder = write_coco(document)
    text = (folder / "instances.json").read_text()
    (folder / "instances.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"instances\.json is not JSON: line 1, column \d+(.|\n)*download complete"):
        open_dataset(folder, "val")


def test_binary(write_coco: Write, document: Document) -> None:
    folder = write_coco(document)
    (folder / "instances.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        open_dataset(folder, "val")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the annotations .*none\.json: No such file"):
        read_coco(tmp_path / "none.json", [tmp_path])


def test_difficult_means_ignore(write_coco: Write, document: Document) -> None:
    document["annotations"][0]["difficult"] = 1
    sample = open_dataset(write_coco(document), "val").samples[0]
    assert sample.ignore.tolist() == [True, True]
    assert sample.crowd is None
