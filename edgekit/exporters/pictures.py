"""The pictures that an export looks at besides calibration: a few for parity, one to travel as the golden input."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.data.datasets import DetectionDataset
from edgekit.data.letterbox import Letterboxed
from edgekit.data.picture_file import decode_picture
from edgekit.errors import DataError
from edgekit.exporters.calibration import Calibration, Inputs
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput
from edgekit.pipeline import Pipeline
from edgekit.spec import DetectorSpec

Picture = NDArray[np.uint8]
"""RGB [h, w, 3]."""


def read_picture(path: Path) -> Picture:
    """One picture file.

    Raises:
        DataError: it is missing or no picture.
    """
    try:
        return decode_picture(path.read_bytes(), upright=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be decoded as a picture: {error}") from error


def spread_inputs(calibration: Calibration, count: int) -> Iterator[Inputs]:
    """At most ``count`` of the calibration inputs, evenly spread."""
    step = max(1, calibration.images // count)
    return itertools.islice(calibration.inputs, 0, step * count, step)


def calibration_pictures(calibration: Calibration, spec: DetectorSpec, count: int) -> Iterator[Picture]:
    """The pictures behind :func:`spread_inputs`, letterboxed: normalisation is undone exactly."""
    for inputs in spread_inputs(calibration, count):
        pixels = inputs["image"][0].transpose(1, 2, 0) * np.float32(spec.std) + np.float32(spec.mean)
        yield np.ascontiguousarray(np.rint(pixels).astype(np.uint8))


def dataset_pictures(dataset: DetectionDataset, count: int) -> Iterator[Picture]:
    """At most ``count`` pictures of ``dataset``, evenly spread."""
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int):
        yield dataset.samples[index].read()


class InputSize(Protocol):
    """What a scene is drawn for."""

    @property
    def height(self) -> int:
        """In pixels."""
        ...

    @property
    def width(self) -> int:
        """In pixels."""
        ...


def drawn_scene(spec: InputSize) -> Picture:
    """A fixed scene of shapes on a gradient, for exports without any photograph at hand: [H, W, 3].

    A detector of real objects may see nothing in it; the tensors behind are compared all the same.
    """
    height, width = spec.height, spec.width
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    scene = np.stack(np.broadcast_arrays(across[None, :], down[:, None], 128.0), axis=-1).astype(np.uint8)
    unit = min(height, width) / 8
    generator = np.random.default_rng(20200409)
    for index in range(9):
        centre = (int((1.5 + 2.5 * (index % 3)) * width / 8), int((1.5 + 2.5 * (index // 3)) * height / 8))
        axes = (int(unit * generator.uniform(0.5, 1.2)), int(unit * generator.uniform(0.5, 1.2)))
        colour = [int(value) for value in generator.integers(0, 256, 3)]
        if index % 2:
            corner = (centre[0] + axes[0], centre[1] + axes[1])
            cv2.rectangle(scene, (centre[0] - axes[0], centre[1] - axes[1]), corner, colour, -1)
        else:
            cv2.ellipse(scene, centre, axes, float(generator.uniform(0, 180)), 0, 360, colour, -1)
    return scene


def choose_golden(reference: Pipeline, pictures: list[Picture]) -> Picture:
    """The picture with most detections, the first of equals: the more it shows, the more the self-test covers."""
    return max(pictures, key=lambda picture: len(reference.process(picture).detections))


def mask_finder(reference: Pipeline) -> Callable[[Letterboxed], Mask]:
    """What ``reference``'s mask source says of a letterboxed picture; remembered, as calibration asks several times."""
    known: dict[bytes, Mask] = {}

    def find(boxed: Letterboxed) -> Mask:
        key = hashlib.sha256(boxed.image.tobytes()).digest()
        if key not in known:
            image = reference.input_tensor(boxed)
            known[key] = reference.mask_source(
                MaskInput(
                    letterboxed=boxed,
                    spec=reference.spec,
                    objectness=functools.partial(reference.objectness, image),
                )
            )
        return known[key]

    return find
