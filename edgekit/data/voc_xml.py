"""PASCAL VOC: one XML file an image, as in a year folder of the VOCdevkit.

Boxes there are 1-based and include their last pixel (VOC2007 development kit, section 4.3): ``xmin`` 1, ``xmax`` 10 is
ten pixels wide. Here they become 0-based with the right and bottom edge exclusive: 0 and 10.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from edgekit.data.annotations import AnnotatedBox, AnnotatedImage, Annotations
from edgekit.errors import DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of VOC2007 to VOC2012, in the usual (alphabetical) order."""


def is_voc_year(folder: Path) -> bool:
    """Whether ``folder`` looks like ``VOCdevkit/VOC2007``."""
    return (folder / "Annotations").is_dir() and (folder / "ImageSets").is_dir()


def read_voc(folder: Path, split: str) -> Annotations:
    """Read the images that ``ImageSets/Main/{split}.txt`` lists; ``image_id`` is their 1-based line.

    The classes are VOC's 20 where no other occurs, otherwise those that occur, sorted.

    Raises:
        DataError: the list or an XML file is missing or broken; the message names the file and the object.
    """
    images = tuple(
        _read_image(folder, stem, image_id=number)
        for number, stem in enumerate(_read_split(folder / "ImageSets" / "Main", split), start=1)
    )
    seen = {box.class_name for image in images for box in image.boxes}
    classes = VOC_CLASSES if seen <= set(VOC_CLASSES) else tuple(sorted(seen))
    return Annotations(source=folder / "Annotations", classes=classes, images=images)


def _read_split(folder: Path, split: str) -> list[str]:
    file = folder / f"{split}.txt"
    if not file.is_file():
        # The per-class lists (aeroplane_train.txt) are no splits of their own.
        splits = sorted(path.stem for path in folder.glob("*.txt") if "_" not in path.stem)
        raise DataError(
            f"no split {split!r}: {file} does not exist; the splits here are: {', '.join(splits) or 'none'}"
        )
    # A line may carry a second column (the per-class flag); a stem never holds a space.
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_image(folder: Path, stem: str, *, image_id: int) -> AnnotatedImage:
    file = folder / "Annotations" / f"{stem}.xml"
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise DataError(f"cannot read the annotation {file}: {error.strerror}") from error
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(f"{file} is not XML: line {line}, column {column}: {error}") from error
    name = root.findtext("filename") or f"{stem}.jpg"
    size = root.find("size")
    if size is None:
        raise DataError(f"{file}: no <size>; it needs <size> with <width> and <height>")
    return AnnotatedImage(
        image_id=image_id,
        path=folder / "JPEGImages" / name.strip(),
        frame_index=None,
        height=int(_number(file, "size", size, "height")),
        width=int(_number(file, "size", size, "width")),
        boxes=tuple(_read_object(file, index, node) for index, node in enumerate(root.findall("object"))),
    )


def _read_object(file: Path, index: int, node: ElementTree.Element) -> AnnotatedBox:
    where = f"object[{index}]"
    name = (node.findtext("name") or "").strip()
    box = node.find("bndbox")
    if not name or box is None:
        raise DataError(f"{file}: {where} needs a <name> and a <bndbox>")
    left, top, right, bottom = (_number(file, where, box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return AnnotatedBox(
        class_name=name,
        xyxy=(left - 1, top - 1, right, bottom),
        ignore=(node.findtext("difficult") or "0").strip() == "1",
        crowd=False,
        entry=where,
    )


def _number(file: Path, where: str, node: ElementTree.Element, tag: str) -> float:
    text = node.findtext(tag)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file}: {where} needs a finite number in <{tag}>, got {text!r}")
    return value
