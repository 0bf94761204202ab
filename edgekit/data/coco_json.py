"""COCO JSON: one file with ``images``, ``annotations`` and ``categories`` (cocodataset.org/#format-data).

``bbox`` is [left, top, width, height] in 0-based pixels. Two additions are understood: ``ignore`` or ``difficult`` on
an annotation, and ``frame_index`` on an image, which names a frame (0-based) of the one video beside the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.data.annotations import AnnotatedBox, AnnotatedImage, Annotations
from edgekit.errors import DataError

LABELLED_BY = "labelled_by"
"""Entry of ``info`` that says which model made the labels, where no hand did."""

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".m4v", ".webm")


def read_coco(file: Path, image_folders: Sequence[Path]) -> Annotations:
    """Read ``file``; pictures are looked for in the first of ``image_folders`` that has the first one.

    Raises:
        DataError: the file is missing, is not JSON or not COCO JSON; an entry lacks a field, repeats an id or refers
            to an unknown image or category. The message names the file and the entry.
    """
    document = _load(file)
    names = _category_names(file, _entries(file, document, "categories"))
    boxes: dict[int, list[AnnotatedBox]] = {}
    image_entries = _entries(file, document, "images")
    for index, entry in enumerate(image_entries):
        image_id = _integer(file, f"images[{index}]", entry, "id")
        if image_id in boxes:
            raise DataError(f"{file}: images[{index}] repeats the id {image_id}; every image needs its own")
        boxes[image_id] = []
    for index, entry in enumerate(_entries(file, document, "annotations")):
        where = f"annotations[{index}]"
        image_id = _integer(file, where, entry, "image_id")
        category_id = _integer(file, where, entry, "category_id")
        if image_id not in boxes:
            raise DataError(f"{file}: {where} is about image {image_id}, which is not among the {len(boxes)} images")
        if category_id not in names:
            raise DataError(f"{file}: {where} has category {category_id}; the file defines {sorted(names)}")
        boxes[image_id].append(_box(file, where, entry, names[category_id]))
    find = _PictureFinder(file, image_folders)
    images = tuple(
        AnnotatedImage(
            image_id=entry["id"],
            path=find(index, entry),
            frame_index=_integer(file, f"images[{index}]", entry, "frame_index") if "frame_index" in entry else None,
            height=_integer(file, f"images[{index}]", entry, "height"),
            width=_integer(file, f"images[{index}]", entry, "width"),
            boxes=tuple(boxes[entry["id"]]),
        )
        for index, entry in enumerate(image_entries)
    )
    info = document.get("info")
    labelled_by = str(info.get(LABELLED_BY, "")) if isinstance(info, dict) else ""
    return Annotations(source=file, classes=tuple(names.values()), images=images, labelled_by=labelled_by)


class _PictureFinder:
    """Finds the file of each image entry: a picture in one of the folders, or the video beside the annotations."""

    def __init__(self, file: Path, folders: Sequence[Path]) -> None:
        self._file = file
        self._folders = folders
        self._folder: Path | None = None
        self._video: Path | None = None

    def __call__(self, index: int, entry: Mapping[str, Any]) -> Path:
        if "frame_index" in entry:
            return self._the_video()
        name = entry.get("file_name")
        if not isinstance(name, str):
            raise DataError(f"{self._file}: images[{index}] has neither a 'file_name' nor a 'frame_index'")
        if self._folder is None:
            self._folder = next((folder for folder in self._folders if (folder / name).is_file()), self._folders[0])
        return self._folder / name

    def _the_video(self) -> Path:
        if self._video is None:
            videos = sorted(path for path in self._file.parent.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
            if len(videos) != 1:
                raise DataError(
                    f"{self._file}: its images are frames of a video ('frame_index'), so exactly one video is expected"
                    f" beside it; found {[video.name for video in videos] or 'none'}"
                )
            self._video = videos[0]
        return self._video


def _load(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the annotations {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not JSON: it is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.\nIs the download complete?"
        ) from error
    if not isinstance(document, dict):
        raise DataError(f"{file} is not COCO JSON: expected an object at the top, got {type(document).__name__}")
    return document


def _entries(file: Path, document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{file} is not COCO JSON: expected a list {key!r}; its keys are {sorted(document)}")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{file}: {key}[{index}] should be an object, got {type(entry).__name__}")
    return entries


def _category_names(file: Path, categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for index, category in enumerate(categories):
        category_id = _integer(file, f"categories[{index}]", category, "id")
        name = category.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{file}: categories[{index}] has no 'name'")
        if category_id in names or name in names.values():
            raise DataError(f"{file}: categories[{index}] ({category_id}, {name!r}) repeats an id or a name")
        names[category_id] = name
    return dict(sorted(names.items()))


def _box(file: Path, where: str, entry: Mapping[str, Any], class_name: str) -> AnnotatedBox:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(f"{file}: {where} needs a 'bbox' of four numbers [left, top, width, height], got {box!r}")
    left, top, width, height = map(float, box)
    crowd = bool(entry.get("iscrowd", 0))
    return AnnotatedBox(
        class_name=class_name,
        xyxy=(left, top, left + width, top + height),
        ignore=crowd or bool(entry.get("ignore", 0)) or bool(entry.get("difficult", 0)),
        crowd=crowd,
        entry=where,
    )


def _integer(file: Path, where: str, entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{file}: {where} needs a whole number {key!r}, got {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
