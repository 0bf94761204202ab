"""Objects cut out of photographs along their outlines, to be pasted into other pictures (arXiv 2012.07177)."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.data.augment import Image
from edgekit.data.datasets import open_dataset
from edgekit.errors import DataError

SMALLEST = 1500.0
"""Square pixels of a box: smaller objects are mush when cut out."""

LEAST_FILLED = 0.25
"""Share of its box that an outline must cover; the rest are slivers of hidden objects."""


@dataclass(frozen=True)
class Cutout:
    """One object and the place it fills in its box."""

    image: Image
    """[h, w, 3] RGB: the whole box."""

    opacity: NDArray[np.float32]
    """[h, w] 1 on the object, 0 beside it."""

    class_name: str
    """In the data set that it comes from."""

    def resized(self, *, height: int, width: int) -> Cutout:
        """The same in another size, with soft edges where it shrinks."""
        size = (width, height)
        return replace(
            self,
            image=np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA), np.uint8),
            opacity=np.asarray(cv2.resize(self.opacity, size, interpolation=cv2.INTER_AREA), np.float32),
        )

    def flipped(self) -> Cutout:
        """Its mirror image."""
        return replace(
            self,
            image=np.ascontiguousarray(self.image[:, ::-1]),
            opacity=np.ascontiguousarray(self.opacity[:, ::-1]),
        )

    def paste(self, image: Image, *, left: int, top: int) -> None:
        """Draw it into ``image`` [H, W, 3], in place; it must fit in whole."""
        height, width = self.opacity.shape
        place = image[top : top + height, left : left + width]
        opacity = self.opacity[..., None]
        place[:] = (self.image * opacity + place * (1 - opacity)).round().astype(np.uint8)


def read_cutouts(path: Path, classes: Collection[str]) -> list[Cutout]:
    """The larger objects of ``classes`` in a COCO data set (``images/`` and ``annotations/instances_train.json``).

    Objects with a polygon as their ``segmentation`` only: crowds and boxes without an outline are left out.

    Raises:
        DataError: no such data set, a broken one, or one without an outlined object of these classes.
    """
    file = path / "annotations" / "instances_train.json"
    if not file.is_file():
        raise DataError(f"{file} does not exist: cutouts come from a data set in COCO's form, with outlines")
    pictures = {sample.image_id: sample for sample in open_dataset(path, "train").samples}
    document = json.loads(file.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    outlined: dict[int, list[dict[str, Any]]] = {}
    for entry in document["annotations"]:
        if names[entry["category_id"]] in classes and _has_outline(entry):
            outlined.setdefault(entry["image_id"], []).append(entry)
    cutouts = []
    for image_id, entries in outlined.items():
        image = pictures[image_id].read()
        for entry in entries:
            cutout = _cut(image, entry, names[entry["category_id"]])
            if cutout.opacity.size >= SMALLEST and cutout.opacity.mean() >= LEAST_FILLED:
                cutouts.append(cutout)
    if not cutouts:
        raise DataError(f"{file} outlines no object of {', '.join(sorted(classes))} larger than {SMALLEST:g} pixels")
    return cutouts


def _has_outline(entry: dict[str, Any]) -> bool:
    polygons = entry.get("segmentation")
    return (
        not entry.get("iscrowd", 0)
        and isinstance(polygons, list)
        and bool(polygons)
        and all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)
    )


def _cut(image: Image, entry: dict[str, Any], class_name: str) -> Cutout:
    opacity = np.zeros(image.shape[:2], np.float32)
    for polygon in entry["segmentation"]:
        cv2.fillPoly(opacity, [np.array(polygon, np.float64).reshape(-1, 2).round().astype(np.int32)], 1.0)
    rows, columns = np.flatnonzero(opacity.any(axis=1)), np.flatnonzero(opacity.any(axis=0))
    if not len(rows):
        return Cutout(image[:0, :0], opacity[:0, :0], class_name)
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Cutout(np.ascontiguousarray(image[inside]), np.ascontiguousarray(opacity[inside]), class_name)
