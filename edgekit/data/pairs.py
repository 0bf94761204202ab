"""Pictures with captions, for contrastive training: readers of what people have.

=========================================================== ===================================================
``PATH``                                                    captions
=========================================================== ===================================================
a COCO captions ``.json``, or its data set's folder         those of ``annotations/captions_{split}.json``
a folder of pictures with ``NAME.txt`` beside ``NAME.jpg``  a line each
``*.tar``, a folder of them, or a glob                      webdataset shards: ``KEY.jpg`` with ``KEY.txt``
``classes:DIR``                                             "a photo of a NAME." of each class that has a box
=========================================================== ===================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data.datasets import open_dataset
from edgekit.data.picture_file import decode_picture
from edgekit.data.shards import find_shards, read_part, scan_shard
from edgekit.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
CLASSES = "classes:"
"""Before a folder: captions are made of the names of its boxes' classes, and boxes are not used further."""

CLASS_CAPTION = "a photo of a {}."


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One picture with what is said of it."""

    path: Path
    """The picture, or the shard that holds it."""

    captions: tuple[str, ...]
    """At least one, none of them blank."""

    part: tuple[int, int] | None = None
    """(first byte, number of bytes) of the picture within a shard; ``None``: the whole file."""

    def read(self) -> NDArray[np.uint8]:
        """RGB [h, w, 3].

        Raises:
            DataError: the file is missing, or is no picture.
        """
        try:
            content = self.path.read_bytes() if self.part is None else read_part(self.path, *self.part)
            return decode_picture(content, upright=True)
        except (OSError, ValueError) as error:
            where = f" at byte {self.part[0]}" if self.part else ""
            raise DataError(f"{self.path}{where} cannot be decoded as a picture: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Pictures with captions."""

    name: str
    pairs: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.pairs)


def open_pairs(text: str, split: str = "train") -> PairSet:
    """The pairs that ``text`` names, as in the table above; pictures are read later, one by one.

    Raises:
        DataError: nothing is there, or it is not readable, or no picture has a caption.
    """
    if text.startswith(CLASSES):
        return _not_empty(_class_names(Path(text.removeprefix(CLASSES)), split), text)
    path = Path(text)
    captions = path / "annotations" / f"captions_{split}.json"
    if path.suffix == ".json":
        return _not_empty(_coco(path, path.stem), text)
    if captions.is_file():
        return _not_empty(_coco(captions, f"{path.name} {split}"), text)
    if shards := find_shards(text):
        return _not_empty(_shards(shards, path.name), text)
    if path.is_dir():
        return _not_empty(_folder(path), text)
    raise DataError(
        f"{text} holds no pairs: it does not exist.\nExpected a COCO captions .json or data set, a folder of "
        "pictures with .txt files, .tar shards, or classes:DIR for the class names of labelled pictures"
    )


def join(sets: list[PairSet]) -> PairSet:
    """All pairs of ``sets``."""
    return PairSet(name=" + ".join(one.name for one in sets), pairs=tuple(pair for one in sets for pair in one.pairs))


def _not_empty(pairs: PairSet, text: str) -> PairSet:
    if not pairs.pairs:
        raise DataError(f"{text} holds no picture with a caption")
    return pairs


def _clean(captions: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(caption.strip() for caption in captions if caption.strip()))


def _coco(file: Path, name: str) -> PairSet:
    """``images`` and ``annotations`` with ``caption`` (cocodataset.org/#format-data)."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        names = {entry["id"]: entry["file_name"] for entry in document["images"]}
        captions: dict[int, list[str]] = {}
        for entry in document["annotations"]:
            captions.setdefault(entry["image_id"], []).append(entry["caption"])
    except OSError as error:
        raise DataError(f"the captions {file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is no COCO captions file: {type(error).__name__} {error}") from error
    folders = [file.parent.parent / "images", file.parent / "images", file.parent]
    pairs = []
    for image_id, lines in captions.items():
        if image_id not in names:
            raise DataError(f"{file}: a caption is about image {image_id}, which is not among the {len(names)} images")
        places = [folder / names[image_id] for folder in folders]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise DataError(f"{file}: the picture {names[image_id]} is in none of images/ and the file's own folder")
        if kept := _clean(lines):
            pairs.append(Pair(path=path, captions=kept))
    return PairSet(name=f"{name} (captions)", pairs=tuple(pairs))


def _folder(path: Path) -> PairSet:
    pairs = []
    for picture in sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES):
        text = picture.with_suffix(".txt")
        if text.is_file() and (kept := _clean(_text(text.read_bytes(), str(text)).splitlines())):
            pairs.append(Pair(path=picture, captions=kept))
    return PairSet(name=path.name, pairs=tuple(pairs))


def _shards(paths: list[Path], name: str) -> PairSet:
    pairs = []
    for path in paths:
        for key, entries in scan_shard(path).items():
            picture = next((entries[suffix] for suffix in PICTURES if suffix in entries), None)
            if picture is None or ".txt" not in entries:
                continue
            text = _text(read_part(path, *entries[".txt"]), f"{path}: {key}.txt")
            if kept := _clean(text.splitlines()):
                pairs.append(Pair(path=path, captions=kept, part=picture))
    return PairSet(name=f"{name} ({len(paths)} shards)", pairs=tuple(pairs))


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text") from error


def _class_names(path: Path, split: str) -> PairSet:
    dataset = open_dataset(path, split)
    pairs = []
    for sample in dataset.samples:
        if sample.frame_index is not None:
            raise DataError(f"{path} is a video; class names are taken from pictures")
        present = sorted(set(sample.class_ids[~sample.ignore].tolist()))
        if present:
            names = [CLASS_CAPTION.replace("{}", dataset.classes[number]) for number in present]
            pairs.append(Pair(path=sample.path, captions=tuple(names)))
    return PairSet(name=f"{dataset.name} (class names)", pairs=tuple(pairs))
