"""What an annotation file says, before boxes are checked and class names become numbers.

Each reader (``coco_json``, ``voc_xml``) returns :class:`Annotations`; ``datasets`` turns that into samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class AnnotatedBox:
    """One box as the file has it, moved to edgekit's coordinates but not yet clipped or checked."""

    class_name: str

    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the image, 0-based, right and bottom exclusive."""

    ignore: bool
    """Neither an object to find nor background: VOC ``difficult``, COCO ``ignore`` and ``iscrowd``."""

    crowd: bool
    """COCO ``iscrowd``: the box holds many objects and may absorb any number of detections."""

    entry: str
    """Where in the file it stands, for messages, e.g. ``annotations[12]``."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """One image, or one frame of a video, with its boxes."""

    image_id: int

    path: Path
    """The picture, or the video that holds the frame."""

    frame_index: int | None
    """0-based frame of the video; ``None`` for a picture."""

    height: int
    width: int

    boxes: tuple[AnnotatedBox, ...]


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The content of one data set's annotation file or files."""

    source: Path
    """The file, or the folder of files, for messages."""

    classes: tuple[str, ...]
    """Class names in the file's own order."""

    images: tuple[AnnotatedImage, ...]

    labelled_by: str = ""
    """The model that made the boxes, where no hand did (``info`` of a file of ``edgekit label``)."""
