"""Pictures with a class at every pixel, for evaluation: the eight data sets of TCL's protocol, or a folder like them.

``segmentation_sets.toml`` says what each data set's classes are, where its files lie, and whether its numbers are
shifted. Any of them may also lie as plain folders: ``images/`` and ``masks/`` with files of the same names, and
``annotations/instances_{split}.json`` where there is more than one split. In every mask 255 is not scored.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.picture_file import decode_picture
from edgekit.errors import DataError, UsageError

SETS_FILE = Path(__file__).with_name("segmentation_sets.toml")

IGNORED = 255
"""In a mask: not scored."""

PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class LabelledPicture:
    """One picture and its mask."""

    image_path: Path
    mask_path: Path
    shifted: bool
    """Whether 0 in the file is not scored and k is class k - 1."""

    classes: int
    """Number of them, by which the mask is checked."""

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """RGB [h, w, 3], and [h, w] of class numbers or :data:`IGNORED`.

        Raises:
            DataError: a file is missing or broken, the two differ in size, or a number is no class.
        """
        image, labels = _read(self.image_path), read_mask(self.mask_path)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"{self.mask_path} is {labels.shape[1]}x{labels.shape[0]} pixels, but its picture {self.image_path} is "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        if self.shifted:
            labels = np.where((labels == 0) | (labels == IGNORED), IGNORED, labels - np.uint8(1)).astype(np.uint8)
        numbers = np.unique(labels)
        unknown = numbers[(numbers >= self.classes) & (numbers != IGNORED)]
        if len(unknown):
            raise DataError(
                f"{self.mask_path} holds the number {unknown[0]}, but there are {self.classes} classes.\n"
                "Was it converted for this protocol?"
            )
        return image, labels


@dataclass(frozen=True, kw_only=True)
class SegmentationDataset:
    """Pictures with masks, and the names of what the masks number."""

    name: str
    classes: tuple[str, ...]
    """The first may be "background": what is none of the others."""

    pictures: tuple[LabelledPicture, ...]

    def __len__(self) -> int:
        return len(self.pictures)


def protocols() -> dict[str, dict[str, Any]]:
    """The table of each data set, by the name that ``--protocol`` takes."""
    return tomllib.loads(SETS_FILE.read_text(encoding="utf-8"))


def classes_of(protocol: str) -> tuple[str, ...]:
    """The names of a protocol's classes, the background first where there is one.

    Raises:
        UsageError: no such protocol.
    """
    tables = protocols()
    if protocol not in tables:
        near = difflib.get_close_matches(protocol, tables, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"no protocol is called {protocol!r}{hint} There are: {', '.join(tables)}")
    return tuple(tables[protocol]["classes"])


def open_segmentation(path: Path, protocol: str, split: str) -> SegmentationDataset:
    """The pictures of ``split`` ("train" or "val") of a data set at ``path``; files are read later, one by one.

    Raises:
        UsageError: no such protocol.
        DataError: there is no data set of this protocol at ``path``; it is empty; a file is missing.
    """
    classes = classes_of(protocol)
    table = protocols()[protocol]
    pairs = list(_plain(path, split) if (path / "masks").is_dir() else _published(path, table, split))
    if not pairs:
        raise DataError(f"{path} has no picture with a mask in its split {split!r} for the protocol {protocol}")
    missing = [file for pair in pairs for file in pair if not file.is_file()]
    if missing:
        raise DataError(f"{path}: {len(missing)} files of the split {split!r} do not exist, the first is {missing[0]}")
    return SegmentationDataset(
        name=f"{path.name} {split} ({protocol})",
        classes=classes,
        pictures=tuple(
            LabelledPicture(image_path=image, mask_path=mask, shifted=table["shifted"], classes=len(classes))
            for image, mask in pairs
        ),
    )


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The numbers of a mask file, [h, w]: a palette's indices or grey levels, not colours.

    Raises:
        DataError: missing, no picture, or in colours.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            if opened.mode not in ("P", "L", "1"):
                raise DataError(f"{path} holds colours ({opened.mode}); a mask holds one number for each pixel")
            return np.array(opened, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a mask: {error}") from error


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return decode_picture(path.read_bytes(), upright=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be decoded as a picture: {error}") from error


def _plain(path: Path, split: str) -> Iterator[tuple[Path, Path]]:
    """``images/`` and ``masks/``: every mask, or those of the split where annotations say which these are."""
    wanted = _listed(path, split)
    pictures = {file.stem: file for file in (path / "images").glob("*") if file.suffix.lower() in PICTURES}
    for mask in sorted((path / "masks").glob("*.png")):
        if wanted is None or mask.stem in wanted:
            yield pictures.get(mask.stem, path / "images" / f"{mask.stem}.jpg"), mask


def pictures_of_split(path: Path, split: str) -> tuple[Path, ...]:
    """The pictures of ``split`` in plain folders, with masks or without; none where annotations do not list them.

    Raises:
        DataError: the annotations are no COCO JSON.
    """
    wanted = _listed(path, split) or set()
    files = sorted(file for file in (path / "images").glob("*") if file.suffix.lower() in PICTURES)
    return tuple(file for file in files if file.stem in wanted)


def _listed(path: Path, split: str) -> set[str] | None:
    """Stems of the pictures that the annotations of plain folders list for ``split``, where there are annotations."""
    listing = path / "annotations" / f"instances_{split}.json"
    if not listing.is_file():
        return None
    try:
        return {Path(entry["file_name"]).stem for entry in json.loads(listing.read_text(encoding="utf-8"))["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{listing} does not list images as COCO JSON does: {error}") from error


def _published(path: Path, table: dict[str, Any], split: str) -> Iterator[tuple[Path, Path]]:
    """The layout of the data set's own publication, or of mmsegmentation."""
    folder = table.get("splits", {}).get(split, split)
    images, masks = (table[key].replace("{split}", folder) for key in ("images", "masks"))
    if "listing" in table:
        listing = path / table["listing"].replace("{split}", folder)
        try:
            names = listing.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is no data set of this protocol: {listing} cannot be read.\n"
                "Expected its published layout, or plain folders images/ and masks/"
            ) from error
    else:
        before, after = masks.split("{}")
        names = sorted(
            str(file.relative_to(path))[len(before) : -len(after)] for file in path.glob(f"{before}**/*{after}")
        )
    for name in names:
        yield path / images.replace("{}", name), path / masks.replace("{}", name)
