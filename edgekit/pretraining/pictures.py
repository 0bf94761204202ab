"""The pictures of a pretraining run, and what is known of their classes.

======================================================= =====================================================
``--data``                                              what comes
======================================================= =====================================================
a data set of ``edgekit train``                         pictures of its train split; of a labelled video, frames
a folder of folders of pictures (or that as ``train/``) all of them, each folder a class
any other folder                                        pictures and frames of videos, of subfolders too
a video                                                 a frame for each ``frame_interval_s``
a picture or a glob                                     that
======================================================= =====================================================

Classes teach the network nothing: a linear probe learns them beside it, to show how well features separate. A picture
of a data set has the class whose boxes cover most of it, if they cover twice as much as those of any other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras.images import find_pictures, is_picture, natural_key, read_picture
from edgekit.data.datasets import Sample, open_dataset
from edgekit.data.voc_xml import is_voc_year
from edgekit.errors import DataError, SourceError
from edgekit.pretraining.frames import SUFFIXES, frames_of, is_video

DOMINANCE = 2.0
"""How much more of a picture the boxes of its class cover than those of any other class."""

UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class PictureItem:
    """One picture."""

    path: Path
    label: int = UNLABELLED
    """Index into ``Pictures.classes``."""

    def read(self) -> NDArray[np.uint8]:
        """The picture as RGB [h, w, 3], turned as its EXIF orientation says.

        Raises:
            DataError: it is missing or cannot be decoded.
        """
        try:
            return read_picture(self.path)
        except SourceError as error:
            raise DataError(f"{error}\nMend or delete it, then go on with --resume.") from error


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """All pictures of one split."""

    name: str
    """Of the sources, for the model card, e.g. ``voc07 train, street.mp4``."""

    items: tuple[PictureItem, ...]
    classes: tuple[str, ...] = ()
    """Sorted; at least two, or none."""

    def first(self, count: int | None) -> Pictures:
        """The same with at most ``count`` pictures."""
        return replace(self, items=self.items[:count])

    def digest(self) -> str:
        """Names their order and classes: of two sets with the same digest, sample k is the same picture."""
        # Names below the last two folders: data may move, but train/cat/1.jpg is not val/cat/1.jpg.
        text = "\n".join(f"{'/'.join(item.path.absolute().parts[-3:])} {item.label}" for item in self.items)
        return hashlib.blake2b("\n".join([*self.classes, text]).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one ``--data`` brought."""

    name: str
    named: tuple[tuple[Path, str | None], ...]
    """Pictures and the names of their classes."""


def open_pictures(sources: Sequence[Path], store: Path, *, interval_s: float) -> tuple[Pictures, Pictures]:
    """The pictures to train on, and the labelled ones of the validation splits, of which there may be none.

    Args:
        sources: as in the table above.
        store: folder for the frames of videos.
        interval_s: seconds between the frames of a video.

    Raises:
        DataError: a source does not exist or has no picture; a data set or a video is damaged.
        StorageError: frames cannot be written.
    """
    found = [_find(source, store, interval_s=interval_s) for source in sources]
    names = sorted({name for one in found for _, name in one.named if name is not None})
    if len(names) < 2:
        names = []
    numbers = {name: index for index, name in enumerate(names)}
    items = _numbered((pair for one in found for pair in one.named), numbers)
    seen = {item.path.resolve() for item in items}
    validation = [
        item
        for source in sources
        for item in _numbered(_validation(source), numbers)
        if item.label != UNLABELLED and item.path.resolve() not in seen
    ]
    title = ", ".join(dict.fromkeys(one.name for one in found))
    return (
        Pictures(name=title, items=items, classes=tuple(names)),
        Pictures(name=title, items=tuple(validation), classes=tuple(names)),
    )


def _numbered(named: Iterable[tuple[Path, str | None]], numbers: dict[str, int]) -> tuple[PictureItem, ...]:
    return tuple(PictureItem(path=path, label=numbers.get(name or "", UNLABELLED)) for path, name in named)


def _find(source: Path, store: Path, *, interval_s: float) -> _Found:
    if not source.is_dir():
        if is_video(source) and source.exists():
            frames = frames_of(source, store, interval_s=interval_s)
            return _Found(name=source.name, named=tuple((frame, None) for frame in frames))
        try:
            return _Found(name=source.name, named=tuple((path, None) for path in find_pictures(str(source))))
        except SourceError as error:
            raise DataError(f"--data {source}: {error}") from error
    if is_dataset(source):
        dataset = open_dataset(source, "train")
        videos = sorted({sample.path for sample in dataset.samples if sample.frame_index is not None})
        if videos:
            frames = [frame for video in videos for frame in frames_of(video, store, interval_s=interval_s)]
            return _Found(name=source.resolve().name, named=tuple((frame, None) for frame in frames))
        named = tuple((sample.path, dominant(sample, dataset.classes)) for sample in dataset.samples)
        return _Found(name=dataset.name, named=named)
    classes = _class_folders(source / "train") or _class_folders(source)
    if classes:
        return _Found(name=source.resolve().name, named=_of_classes(classes))
    files = sorted(files_below(source), key=natural_key)
    named = tuple((path, None) for path in files if is_picture(path))
    for video in filter(is_video, files):
        named += tuple((frame, None) for frame in frames_of(video, store, interval_s=interval_s))
    if not named:
        raise DataError(
            f"--data {source}: no picture and no video is in it or its subfolders; its {len(files)} files have other "
            f"names.\nExpected pictures (.jpg, .png ...), videos ({', '.join(SUFFIXES[:3])} ...), or a data set of "
            "edgekit train. Frames of a camera come from: edgekit run --source 0 --record FOLDER"
        )
    return _Found(name=source.resolve().name, named=named)


def _validation(source: Path) -> tuple[tuple[Path, str | None], ...]:
    """Pictures of the split val with the names of their classes."""
    if is_dataset(source):
        lists = ("annotations/instances_val.json", "ImageSets/Main/val.txt")
        if not any((source / name).is_file() for name in lists):
            return ()
        dataset = open_dataset(source, "val")
        return tuple((sample.path, dominant(sample, dataset.classes)) for sample in dataset.samples)
    return _of_classes(_class_folders(source / "val")) if _class_folders(source / "train") else ()


def is_dataset(folder: Path) -> bool:
    """Whether ``folder`` is laid out as one of those that :func:`edgekit.data.datasets.open_dataset` reads."""
    annotated = next((folder / "annotations").glob("instances_*.json"), None) is not None
    return annotated or (folder / "instances.json").is_file() or is_voc_year(folder)


def _class_folders(folder: Path) -> list[Path]:
    """The subfolders that hold pictures, if there are at least two and the folder itself holds none."""
    if not folder.is_dir() or any(is_picture(path) for path in folder.iterdir()):
        return []
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    holding = [path for path in inner if any(is_picture(file) for file in path.iterdir())]
    return sorted(holding, key=natural_key) if len(holding) > 1 else []


def _of_classes(folders: list[Path]) -> tuple[tuple[Path, str | None], ...]:
    return tuple(
        (path, folder.name)
        for folder in folders
        for path in sorted(filter(is_picture, folder.iterdir()), key=natural_key)
    )


def files_below(folder: Path) -> list[Path]:
    """All files below ``folder``, but for hidden ones and hidden folders."""
    files = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root) / name for name in names if not name.startswith(".")]
    return files


def dominant(sample: Sample, classes: Sequence[str]) -> str | None:
    """The name of the class whose boxes cover most of the picture, ``None`` if another's cover more than half of that.

    Boxes to be ignored do not count, and overlaps count twice.
    """
    sides = (sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2])[~sample.ignore]
    areas = np.bincount(sample.class_ids[~sample.ignore], weights=sides.prod(axis=1), minlength=max(2, len(classes)))
    order = np.argsort(areas)
    best, second = areas[order[-1]], areas[order[-2]]
    return classes[int(order[-1])] if best > 0 and best >= DOMINANCE * second else None
