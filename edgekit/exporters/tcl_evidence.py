"""From what the user names (``--data``, ``--calib``) to what a segmenter's export is calibrated and measured with."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data.segmentation import SegmentationDataset, open_segmentation, pictures_of_split
from edgekit.errors import DataError, ExportError
from edgekit.exporters.calibration import IMAGE_SUFFIXES, MIN_IMAGES, Calibration, Inputs
from edgekit.exporters.evidence import CALIBRATION_IMAGES
from edgekit.exporters.pictures import Picture, drawn_scene, read_picture
from edgekit.segmentation.fitting import fit, input_tensor
from edgekit.segmentation.prompts import BACKGROUND, Prompts
from edgekit.segmentation.spec import SegmenterSpec

if TYPE_CHECKING:
    from edgekit.models.tcl.model import TCL

log = logging.getLogger("edgekit")

PARITY_IMAGES = 16
"""Pictures on which label maps are compared where nothing is annotated."""

PICTURE_FOLDERS = ("images", "JPEGImages")
"""Where a data set's pictures lie, beside masks that are no pictures."""


@dataclass(frozen=True, kw_only=True)
class SegmentationEvidence:
    """What a conversion is measured with."""

    calibration: Calibration | None = None
    """Pictures that show the range of activations; int8 needs it."""

    pictures: tuple[Picture, ...]
    """Pictures [h, w, 3] whose label maps are compared, one or more."""

    dataset: SegmentationDataset | None = None
    """Pictures with masks for mIoU before and after; ``None`` leaves accuracy unmeasured."""

    dataset_prompts: Prompts | None = None
    """The classes of ``dataset``, the background aside."""

    max_drop: float = 1.0
    """Largest allowed drop of mIoU, in points."""

    golden: Picture | None = None
    """The picture [h, w, 3] to record as the golden input; ``None`` takes one of ``pictures``, which then travels."""


def collect_evidence(
    model: TCL,
    spec: SegmenterSpec,
    *,
    calibrated: bool,
    calib: Path | None,
    images: int | None,
    data: Path | None,
    protocol: str,
    limit: int | None,
    max_drop: float,
    golden: Picture | None,
) -> SegmentationEvidence:
    """Open what the user names.

    Args:
        model: whose text encoder reads the data set's classes.
        spec: of the graph.
        calibrated: whether ranges are to be measured.
        calib: a folder of pictures.
        images: how many of them, at most; ``None`` is :data:`CALIBRATION_IMAGES`.
        data: pictures with masks.
        protocol: whose classes these have.
        limit: measure mIoU on so many of them only.
        max_drop: allowed drop of mIoU in points.
        golden: the picture to record; ``None`` takes one of the others.

    Raises:
        DataError: a folder is missing, empty or broken.
        ExportError: there are too few pictures to calibrate on.
        UsageError: no such protocol.
        MissingDependencyError: the extra ``segment``, which reads the names of classes, is not installed.
    """
    dataset, asked = None, None
    if data is not None:
        from edgekit.models.tcl.prompts import make_prompts
        from edgekit.models.tcl.tokenizer import Tokenizer

        dataset = open_masks(data, protocol, limit)
        names = tuple(name for name in dataset.classes if name != BACKGROUND)
        asked = make_prompts(model, Tokenizer(), names, templates=spec.templates)
    paths: tuple[Path, ...] = ()
    if calib is not None:
        paths = pictures_of(calib)
    elif data is not None and dataset is not None:
        labelled = tuple(picture.image_path for picture in dataset.pictures)
        paths = training_pictures(data, protocol) if calibrated else labelled
    calibration = segmentation_calibration(paths, spec, images or CALIBRATION_IMAGES) if calibrated else None
    pictures = tuple(read_picture(path) for path in spread(paths, PARITY_IMAGES))
    return SegmentationEvidence(
        calibration=calibration,
        pictures=pictures or (drawn_scene(spec),),
        dataset=dataset,
        dataset_prompts=asked,
        max_drop=max_drop,
        golden=golden,
    )


def spread(paths: Sequence[Path], count: int) -> tuple[Path, ...]:
    """At most ``count`` of ``paths``, evenly spread."""
    picked = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return tuple(paths[index] for index in picked)


def pictures_of(folder: Path) -> tuple[Path, ...]:
    """The picture files of a folder, or of the part of a data set that has them.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"the calibration folder {folder} does not exist or is not a folder")
    roots = [folder / name for name in PICTURE_FOLDERS if (folder / name).is_dir()] or [folder]
    files = sorted(file for file in roots[0].rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"the calibration folder {folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return tuple(files)


def training_pictures(data: Path, protocol: str) -> tuple[Path, ...]:
    """The pictures of the train split of ``data``; with a warning those of its val split where there is no other.

    Raises:
        DataError: it has neither.
    """
    if listed := pictures_of_split(data, "train"):
        return listed  # calibrating needs no masks, which few may have
    val = tuple(picture.image_path for picture in open_segmentation(data, protocol, "val").pictures)
    try:
        train = tuple(picture.image_path for picture in open_segmentation(data, protocol, "train").pictures)
    except DataError:
        train = val
    if train == val:
        log.warning(
            "%s has one split only: calibrating on the pictures that accuracy is measured on, so it will look a little"
            " too good. Name others with --calib",
            data,
        )
    return train


def open_masks(data: Path, protocol: str, limit: int | None) -> SegmentationDataset:
    """The val split of ``data``; with ``limit``, so many pictures evenly spread over it; raises ``DataError``."""
    dataset = open_segmentation(data, protocol, "val")
    if limit is None or limit >= len(dataset):
        return dataset
    picked = np.linspace(0, len(dataset) - 1, limit).round().astype(int)
    return replace(dataset, pictures=tuple(dataset.pictures[index] for index in picked))


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Fits and normalises on the fly, so that memory does not grow with the number of pictures."""

    paths: tuple[Path, ...]
    spec: SegmenterSpec

    def __iter__(self) -> Iterator[Inputs]:
        for path in self.paths:
            image = input_tensor(fit(read_picture(path), self.spec), self.spec)
            yield {"image": np.ascontiguousarray(image)}


def segmentation_calibration(paths: Sequence[Path], spec: SegmenterSpec, count: int) -> Calibration:
    """``count`` of the pictures, evenly spread, as the graph takes them.

    Raises:
        ExportError: fewer than :data:`~edgekit.exporters.calibration.MIN_IMAGES` were asked for or are there.
        DataError: a picture cannot be read.
    """
    if min(count, len(paths)) < MIN_IMAGES:
        raise ExportError(
            f"int8 calibration expects at least {MIN_IMAGES} pictures, got {min(count, len(paths))} ({count} asked for,"
            f" {len(paths)} there): with fewer, rare large activations would be clipped.\n"
            "Name more with: edgekit export ... --calib DIR (a folder of pictures like the camera's)"
        )
    inputs = _Inputs(paths=spread(paths, count), spec=spec)
    digest = hashlib.sha256()
    for entry in inputs:
        digest.update(entry["image"].tobytes())
    low = min((0 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True))
    high = max((255 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True))
    return Calibration(
        inputs=inputs, input_ranges={"image": (low, high)}, images=len(inputs.paths), sha256=digest.hexdigest()
    )
