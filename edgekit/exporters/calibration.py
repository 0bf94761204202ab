"""The pictures and masks that int8 conversion looks at to learn how large every activation gets.

Masks decide what an activation can be: behind a mask the background is exactly zero, and the rim of an object is
convolved with zeros that an open mask would not have there. The same graph also runs with ``--mask off``. So the
ranges must hold for both, and pictures alternate: one under the mask that its objects deserve (its boxes; without
boxes whatever ``mask_of`` says, for instance the trained OMG), the next under a mask of all ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import Letterboxed, letterbox
from edgekit.data.picture_file import decode_picture
from edgekit.errors import DataError, ExportError
from edgekit.masks.pyramid import Mask, boxes_to_mask, dilate
from edgekit.spec import DetectorSpec

MIN_IMAGES = 100
"""Fewer pictures miss the rare large activations, and int8 then clips them (issue trackers: users-and-boards A1)."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

Inputs = dict[str, NDArray[np.float32]]
"""``image`` [1, 3, H, W] normalised and ``mask`` [1, 1, G, G] of zeros and ones."""


class LabelledPicture(Protocol):
    """What calibration needs of ``edgekit.data.datasets.Sample``."""

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """[N, 4] in pixels of the picture."""
        ...

    def read(self) -> NDArray[np.uint8]:
        """RGB [h, w, 3]."""
        ...


class LabelledPictures(Protocol):
    """What calibration needs of ``edgekit.data.datasets.DetectionDataset``."""

    @property
    def samples(self) -> Sequence[LabelledPicture]: ...


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Inputs to measure ranges with. Iterating reads pictures one by one, as often as wanted."""

    inputs: Iterable[Inputs]
    """One entry a picture; must start anew each time it is iterated."""

    input_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Graph input -> its whole possible range, where it is known: better than the largest value that was seen."""

    images: int
    """How many entries ``inputs`` has."""

    sha256: str
    """Of all letterboxed pixels and masks in order: equal hashes give equal ranges."""


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An unlabelled picture of a folder."""

    path: Path
    boxes_xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def read(self) -> NDArray[np.uint8]:
        try:
            return decode_picture(self.path.read_bytes(), upright=True)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path} cannot be decoded as a picture ({error}); remove it from the calibration folder"
            ) from error


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Letterboxes, masks and normalises on the fly, so that memory does not grow with the number of pictures."""

    pictures: tuple[LabelledPicture, ...]
    spec: DetectorSpec
    mask_of: Callable[[Letterboxed], Mask] | None

    def raw(self) -> Iterator[tuple[NDArray[np.uint8], Mask]]:
        """(RGB [H, W, 3], mask [G, G]) of each picture."""
        for index, picture in enumerate(self.pictures):
            boxed = letterbox(picture.read(), height=self.spec.height, width=self.spec.width)
            open_mask = np.ones(self.spec.mask_grid, np.bool_)
            yield boxed.image, open_mask if index % 2 else self._object_mask(picture, boxed, open_mask)

    def _object_mask(self, picture: LabelledPicture, boxed: Letterboxed, open_mask: Mask) -> Mask:
        if len(picture.boxes_xyxy):
            mask = boxes_to_mask(
                boxed.to_input(picture.boxes_xyxy),
                grid=self.spec.mask_grid,
                height=self.spec.height,
                width=self.spec.width,
            )
            mask = dilate(mask, self.spec.mask_dilation)
        else:
            mask = open_mask if self.mask_of is None else self.mask_of(boxed)
        return mask if mask.any() else open_mask  # an empty mask would show a network of zeros

    def __iter__(self) -> Iterator[Inputs]:
        for image, mask in self.raw():
            normalised = (image.astype(np.float32) - self.spec.mean) / self.spec.std
            yield {
                "image": np.ascontiguousarray(normalised.transpose(2, 0, 1)[None], np.float32),  # [1, 3, H, W]
                "mask": mask.astype(np.float32)[None, None],  # [1, 1, G, G]
            }


def calibration_inputs(
    source: LabelledPictures | Path,
    spec: DetectorSpec,
    count: int,
    *,
    mask_of: Callable[[Letterboxed], Mask] | None = None,
) -> Calibration:
    """``count`` pictures, evenly spread over a data set or over a folder's picture files (searched recursively).

    Args:
        source: labelled pictures, or a folder of pictures.
        spec: input size, normalisation and mask grid.
        count: at most this many pictures are used, at least :data:`MIN_IMAGES`.
        mask_of: the mask of a picture that has no boxes, for instance the OMG network's; ``None`` means all ones.

    Raises:
        ExportError: fewer than :data:`MIN_IMAGES` pictures were asked for or found.
        DataError: a picture cannot be read.
    """
    if isinstance(source, Path):
        name, pictures = str(source), _folder(source)
    else:
        name, pictures = "the data set", tuple(source.samples)
    if min(count, len(pictures)) < MIN_IMAGES:
        raise ExportError(
            f"int8 calibration expects at least {MIN_IMAGES} pictures, got {min(count, len(pictures))}"
            f" ({count} asked for, {len(pictures)} in {name}): with fewer, rare large activations would be clipped.\n"
            "Name more with: edgekit export ... --calib DIR (a data set or a folder of pictures like the camera's)"
        )
    picked = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int)
    inputs = _Inputs(pictures=tuple(pictures[index] for index in picked), spec=spec, mask_of=mask_of)
    digest = hashlib.sha256()
    for image, mask in inputs.raw():
        digest.update(image.tobytes())
        digest.update(mask.tobytes())
    return Calibration(
        inputs=inputs,
        input_ranges={"image": ((0 - spec.mean) / spec.std, (255 - spec.mean) / spec.std)},
        images=len(picked),
        sha256=digest.hexdigest(),
    )


def _folder(path: Path) -> tuple[LabelledPicture, ...]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    return tuple(_Picture(path=file) for file in files)
