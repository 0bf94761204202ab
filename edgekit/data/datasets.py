"""Labelled pictures for training and evaluation: one reader for the four layouts people have.

========================================================= ==============================================
folder                                                    split
========================================================= ==============================================
``VOC2007/`` (``Annotations JPEGImages ImageSets/Main``)  ``ImageSets/Main/{split}.txt``
``images/`` + ``annotations/instances_{split}.json``      that file
``images/`` + ``instances.json``                          the same set for every split
one video + ``instances.json`` with ``frame_index``       the same set for every split
========================================================= ==============================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data.annotations import AnnotatedImage, Annotations
from edgekit.data.box_check import BoxCheck
from edgekit.data.class_map import ClassMap, match_classes
from edgekit.data.coco_json import read_coco
from edgekit.data.picture_file import decode_picture
from edgekit.data.voc_xml import is_voc_year, read_voc
from edgekit.errors import DataError
from edgekit.opencv import require_opencv


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture with its boxes."""

    image_id: int
    """Unique in the data set; the file's own id where it has one."""

    path: Path
    """The picture, or the video that holds the frame."""

    boxes_xyxy: NDArray[np.float32]
    """[N, 4] left, top, right, bottom in pixels, 0-based, right and bottom exclusive, inside the picture."""

    class_ids: NDArray[np.int64]
    """[N] index into the data set's ``classes``."""

    ignore: NDArray[np.bool_]
    """[N] neither object nor background (VOC difficult, COCO ignore and iscrowd): not learnt, not scored."""

    crowd: NDArray[np.bool_] | None = None
    """[N] the ignored boxes that hold many objects (COCO iscrowd); ``None`` if there are none."""

    frame_index: int | None = None
    """0-based frame of the video ``path``; ``None`` for a picture."""

    size: tuple[int, int] | None = None
    """(height, width) that the annotation states; ``read`` holds the picture to it."""

    def read(self) -> NDArray[np.uint8]:
        """The picture as RGB [h, w, 3]; frames of a video are cheap in order.

        An EXIF rotation is not applied: annotation tools number the stored pixels.

        Raises:
            DataError: the picture is missing, cannot be decoded or has another size than its annotation says.
        """
        image = self._read_picture() if self.frame_index is None else self._read_frame(self.frame_index)
        if self.size is not None and image.shape[:2] != self.size:
            raise DataError(
                f"{self.path} is {image.shape[1]}x{image.shape[0]} pixels, but its annotation says"
                f" {self.size[1]}x{self.size[0]}: its boxes would be in the wrong places"
            )
        return image

    def _read_frame(self, index: int) -> NDArray[np.uint8]:
        require_opencv("read the frames of a video")
        from edgekit.data.video_frames import read_frame

        return read_frame(self.path, index)

    def _read_picture(self) -> NDArray[np.uint8]:
        try:
            return decode_picture(self.path.read_bytes(), upright=False)
        except FileNotFoundError as error:
            raise DataError(f"{self.path} does not exist (image {self.image_id})") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be decoded as a picture (image {self.image_id}): {error}") from error


@dataclass(frozen=True, kw_only=True)
class DetectionDataset:
    """Labelled pictures and the names of their classes."""

    name: str
    """The folder and the split, e.g. ``voc07 val``; it says so where no person drew the boxes."""

    classes: tuple[str, ...]

    samples: tuple[Sample, ...]

    labelled_by: str = ""
    """The model that made the boxes (``edgekit label``); empty where a person did, or nobody knows."""

    def __len__(self) -> int:
        return len(self.samples)


def open_dataset(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    class_map: ClassMap | None = None,
) -> DetectionDataset:
    """Read the annotations of ``split`` ("train" or "val") under ``path``; pictures are read later, one by one.

    ``classes`` are a model's names: the data set then has exactly these, in this order, and every class that has a box
    in the data must be among them (the data may hold fewer). ``class_map`` renames classes of the data beforehand, or
    drops their boxes where the new name is ``None``.

    Boxes without area and boxes wholly outside their picture are dropped, boxes that reach outside are clipped; each
    is counted in one warning.

    Raises:
        DataError: there is no data set of a known layout at ``path`` or it lacks the split; it is empty or no box is
            left; a file is missing or broken; a box is not finite; a class is not among ``classes``.
    """
    annotations = _read(path, split)
    if not annotations.images:
        raise DataError(f"the data set {path} ({split}) is empty: {annotations.source} lists no image")
    _require_files(annotations)
    for image in annotations.images:
        if image.height < 1 or image.width < 1:
            raise DataError(
                f"{annotations.source}: {image.path.name} is said to be {image.width}x{image.height} pixels"
            )
    names, numbers = match_classes(annotations, classes, class_map or {})
    check = BoxCheck(annotations.source)
    samples = tuple(_sample(image, numbers, check) for image in annotations.images)
    check.finish()
    note = " (labelled by a model)" if annotations.labelled_by else ""
    return DetectionDataset(
        name=f"{path.resolve().name} {split}{note}", classes=names, samples=samples, labelled_by=annotations.labelled_by
    )


def _read(path: Path, split: str) -> Annotations:
    if not path.is_dir():
        raise DataError(f"the data set {path} does not exist or is not a folder")
    if is_voc_year(path):
        return read_voc(path, split)
    images = [path / "images", path / "images" / split]
    if (path / "annotations" / f"instances_{split}.json").is_file():
        return read_coco(path / "annotations" / f"instances_{split}.json", images)
    splits = sorted(file.stem.removeprefix("instances_") for file in (path / "annotations").glob("instances_*.json"))
    if splits:
        raise DataError(
            f"the data set {path} has no split {split!r}: there is no annotations/instances_{split}.json,"
            f" only {', '.join(splits)}.\nChoose one with --split {splits[0]}"
        )
    if (path / "instances.json").is_file():
        return read_coco(path / "instances.json", images)
    years = sorted(child.name for child in path.iterdir() if is_voc_year(child))
    raise DataError(
        f"{path} is no data set: expected a VOCdevkit year (Annotations, JPEGImages, ImageSets/Main), or images/ with"
        f" annotations/instances_{split}.json or instances.json"
        + (f".\nDid you mean --data {path / years[0]}?" if years else "")
    )


def _require_files(annotations: Annotations) -> None:
    missing = sorted({image.path for image in annotations.images if not image.path.is_file()})
    if missing:
        raise DataError(
            f"{annotations.source}: {len(missing)} of {len(annotations.images)} pictures do not exist,"
            f" the first is {missing[0]}"
        )


def _sample(image: AnnotatedImage, numbers: Mapping[str, int], check: BoxCheck) -> Sample:
    boxes = [(box, check(box, image)) for box in image.boxes if box.class_name in numbers]
    kept = [(box, clipped) for box, clipped in boxes if clipped is not None]
    crowd = np.array([box.crowd for box, _ in kept], np.bool_)
    return Sample(
        image_id=image.image_id,
        path=image.path,
        boxes_xyxy=np.array([clipped for _, clipped in kept], np.float32).reshape(-1, 4),
        class_ids=np.array([numbers[box.class_name] for box, _ in kept], np.int64),
        ignore=np.array([box.ignore for box, _ in kept], np.bool_),
        crowd=crowd if crowd.any() else None,
        frame_index=image.frame_index,
        size=(image.height, image.width),
    )
