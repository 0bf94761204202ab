"""Tiny data sets, written to a temporary folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest


def write_picture(path: Path, *, height: int = 30, width: int = 40, value: int = 200) -> None:
    """A picture whose red is ``value`` and whose blue is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 2] = value  # OpenCV writes BGR
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def document() -> dict[str, Any]:
    """COCO JSON of two 40x30 pictures with a cat, a dog and another cat."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [5.5, 6, 8, 9], "ignore": 1},
            {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
    }


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a document and its pictures; returns the data set's folder."""

    def write(document: object, name: str = "instances.json") -> Path:
        folder = tmp_path / "pets"
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))
        for picture in ("a.png", "b.png"):
            write_picture(folder / "images" / picture)
        return folder

    return write


@pytest.fixture
def write_voc(tmp_path: Path) -> Callable[..., Path]:
    """Writes a VOCdevkit year with one 40x30 picture; returns its folder."""

    def write(objects: str, *, size: str = "<size><width>40</width><height>30</height></size>") -> Path:
        folder = tmp_path / "VOCdevkit" / "VOC2007"
        (folder / "Annotations").mkdir(parents=True)
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        (folder / "ImageSets" / "Main" / "train.txt").write_text("000005 1\n\n")
        (folder / "ImageSets" / "Main" / "cat_train.txt").write_text("000005 1\n")
        text = f"<annotation><filename>000005.png</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / "000005.xml").write_text(text)
        write_picture(folder / "JPEGImages" / "000005.png")
        return folder

    return write
