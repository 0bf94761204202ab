"""From what the user names (``--data``, ``--calib``) to what an export is calibrated and measured with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.data.datasets import DetectionDataset, open_dataset
from edgekit.data.letterbox import Letterboxed
from edgekit.data.voc_xml import is_voc_year
from edgekit.errors import DataError
from edgekit.exporters.calibration import IMAGE_SUFFIXES, Calibration, calibration_inputs
from edgekit.exporters.pictures import Picture, dataset_pictures, drawn_scene, read_picture
from edgekit.masks.pyramid import Mask
from edgekit.spec import DetectorSpec

log = logging.getLogger("edgekit")

CALIBRATION_IMAGES = 200
"""Twice the least: ranges settle within a hundred pictures of mixed content, and two hundred take a minute or two."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a conversion is measured with."""

    calibration: Calibration | None = None
    """Pictures that show the range of activations; int8 needs it."""

    dataset: DetectionDataset | None = None
    """Annotated pictures for AP50 before and after; ``None`` leaves accuracy unmeasured."""

    max_drop: float = 1.0
    """Largest allowed drop of AP50, in points."""

    pictures: tuple[Picture, ...] = ()
    """Pictures [h, w, 3] for parity where there is neither calibration nor a data set."""

    golden: Picture | None = None
    """The picture [h, w, 3] to record as the golden input; ``None`` takes one of the others, which then travels."""


def open_validation(data: Path, classes: Sequence[str], limit: int | None) -> DetectionDataset:
    """The val split of ``data`` with the model's ``classes``; with ``limit``, so many pictures evenly spread over it.

    Raises:
        DataError: it cannot be read, or has a class that the model lacks.
    """
    dataset = open_dataset(data, "val", classes)
    if limit is None or limit >= len(dataset):
        return dataset
    picked = np.linspace(0, len(dataset) - 1, limit).round().astype(int)
    return replace(dataset, samples=tuple(dataset.samples[index] for index in picked))


def open_calibration(
    calib: Path | None, data: Path | None, spec: DetectorSpec, count: int, mask_of: Callable[[Letterboxed], Mask]
) -> Calibration:
    """Pictures to measure int8 ranges with: of ``calib`` if it is given, else of the train split of ``data``.

    Args:
        calib: a data set (its train split is used) or a folder of pictures.
        data: the annotated data that accuracy is measured on.
        spec: the detector.
        count: how many pictures, at least 100.
        mask_of: the mask of a picture without boxes.

    Raises:
        DataError: a folder is missing, or a data set in it is broken.
        ExportError: there are fewer than 100 pictures.
    """
    if calib is not None:
        if not calib.is_dir():
            raise DataError(f"the calibration folder {calib} does not exist or is not a folder")
        if not is_dataset(calib):
            return calibration_inputs(calib, spec, count, mask_of=mask_of)
        return calibration_inputs(_train_split(calib, "--calib"), spec, count, mask_of=mask_of)
    assert data is not None
    return calibration_inputs(_train_split(data, "--data"), spec, count, mask_of=mask_of)


def calibration_samples(calib: Path, count: int) -> tuple[Picture, ...]:
    """At most ``count`` pictures of ``calib``, evenly spread, for exports that need no calibration.

    Raises:
        DataError: it is missing or holds no picture, or one cannot be read.
    """
    if not calib.is_dir():
        raise DataError(f"the calibration folder {calib} does not exist or is not a folder")
    if is_dataset(calib):
        return tuple(dataset_pictures(_train_split(calib, "--calib"), count))
    files = sorted(file for file in calib.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"the calibration folder {calib} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
    picked = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return tuple(read_picture(files[index]) for index in picked)


def is_dataset(path: Path) -> bool:
    """Whether a folder has annotations of a layout that ``open_dataset`` knows, rather than only pictures."""
    return is_voc_year(path) or (path / "instances.json").is_file() or any(path.glob("annotations/instances_*.json"))


def golden_picture(golden: Path | None, model: str, spec: DetectorSpec, *, pictures_follow: bool) -> Picture | None:
    """The picture to record as the golden input, or ``None`` to take one of the pictures that are measured with.

    Without pictures the shipped model takes the golden input of the shipped bundle, any other a drawn scene.
    """
    if golden is not None:
        return read_picture(golden)
    if pictures_follow:
        return None
    shipped = _shipped_golden() if model == "default" else None
    return drawn_scene(spec) if shipped is None else shipped


def _shipped_golden() -> Picture | None:
    from edgekit.bundle import open_bundle
    from edgekit.models.default import default_bundle

    path = default_bundle()
    if not path.exists():  # while the first one is being made
        return None
    bundle = open_bundle(path)
    return read_picture(bundle.file(bundle.manifest.golden.input))


def _train_split(path: Path, option: str) -> DetectionDataset:
    """The train split, or with a warning the val split where there is no other."""
    try:
        train = open_dataset(path, "train")
    except DataError as error:
        try:
            train = open_dataset(path, "val")
        except DataError:
            raise error from None
        log.warning(
            "%s %s has no train split: calibrating on its val split, so accuracy on it will look a little too good",
            option,
            path,
        )
        return train
    if option == "--data" and _same_pictures(train, path):
        log.warning(
            "%s has one split only: calibrating on the pictures that accuracy is measured on, so it will look a little"
            " too good. Name others with --calib",
            path,
        )
    return train


def _same_pictures(train: DetectionDataset, path: Path) -> bool:
    try:
        val = open_dataset(path, "val")
    except DataError:
        return False
    return {(sample.path, sample.frame_index) for sample in train.samples} == {
        (sample.path, sample.frame_index) for sample in val.samples
    }
