"""Writing labels as a data set in COCO's form, so that there is either a whole one or none.

::

    OUT/images/NAME.jpg                     hard links to the pictures, copies, or frames of videos
    OUT/annotations/instances_train.json    "info" says which model made the labels, from which words
    OUT/annotations/instances_val.json

It is made in a hidden folder beside its place, which it takes by one rename at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit import interruption
from edgekit.data.coco_json import LABELLED_BY
from edgekit.errors import DataError, MissingDependencyError, StorageError, UsageError
from edgekit.labelling.footage import LabelFrame
from edgekit.labelling.splits import validation_blocks
from edgekit.placing import flush_entry, place
from edgekit.segmentation.things import Thing

QUALITY = 95
"""Of the JPEGs that frames of videos, and pictures that were turned, become."""

SPLITS = ("train", "val")


class LabelWriter:
    """Makes one data set.

    >>> with LabelWriter(Path("labels"), classes=("person",), sure=0.6) as writer:
    ...     writer.add(frame, things)
    ...     report = writer.finish(val_share=0.1, info={"labelled_by": "tcl-mobilenetv2 best.pt"})
    """

    def __init__(
        self, path: Path, *, classes: Sequence[str], sure: float, overwrite: bool = False, copy: bool = False
    ) -> None:
        """Prepare to write the folder ``path``.

        Args:
            path: where the data set will be.
            classes: names, in the order of ``Thing.class_id``.
            sure: score from which a thing is an object; others are marked ``ignore``.
            overwrite: replace an older data set of this writer.
            copy: copy pictures, instead of linking them where that can be.

        Raises:
            UsageError: something is there already, and ``overwrite`` is off or it is no data set of labels.
            MissingDependencyError: pycocotools is not installed.
        """
        _check_destination(path, overwrite)
        _mask_coder()
        self.destination, self.classes, self.sure, self.copy = path, tuple(classes), sure, copy
        self._images: list[dict[str, Any]] = []
        self._things: list[list[dict[str, Any]]] = []
        """Of each image."""
        self._names: set[str] = set()
        self._written: list[Path] = []
        self._linked = 0
        self._folder: Path | None = None

    def __enter__(self) -> LabelWriter:
        name = f".{self.destination.name}.{secrets.token_hex(8)}.partial"
        folder = self.destination.parent / name
        try:
            with self._storage():
                (folder / "images").mkdir(parents=True)
                (folder / "annotations").mkdir()
            self._folder = folder
        except BaseException:  # a Ctrl-C as well: __exit__ is not called before this has returned
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def folder(self) -> Path:
        """The hidden folder; only inside the ``with`` block, before ``finish``."""
        assert self._folder is not None, "use LabelWriter in a with statement, and nothing after finish()"
        return self._folder

    def add(self, frame: LabelFrame, things: Sequence[Thing]) -> None:
        """Keep ``frame`` with what was found in it, which may be nothing.

        Raises:
            StorageError: the picture cannot be written.
        """
        interruption.check()
        height, width = frame.image.shape[:2]
        name = self._free_name(frame.name) + (frame.source.suffix.lower() if frame.as_stored else ".jpg")
        with self._storage():
            self._put(frame, self.folder / "images" / name)
        origin = {} if frame.index is None else {"video": frame.source.name, "video_frame": frame.index}
        # Not "frame_index": that would mean that the data set holds the video itself.
        self._images.append({"file_name": name, "height": height, "width": width, **origin})
        self._things.append([self._annotation(thing, height=height, width=width) for thing in things])

    def finish(self, *, val_share: float, info: Mapping[str, Any]) -> dict[str, Any]:
        """Divide the frames, write the annotations and put the data set at its place.

        Args:
            val_share: about this share of the frames, in blocks, becomes the split val.
            info: the files' ``info``, for people and for model cards.

        Returns:
            Numbers for a report: pictures, of either split, without a thing, linked; and boxes of each class.

        Raises:
            DataError: there is nothing to learn; nothing is left.
            StorageError: writing failed; nothing is left, and what was there before is untouched.
        """
        self._check_found()
        holds = np.array([any(not entry["ignore"] for entry in things) for things in self._things])
        validation = validation_blocks(holds, val_share)
        if validation is None:
            raise DataError(
                f"only one of {len(self._images)} pictures holds something sure; a data set needs one to learn from "
                "and one to evaluate on.\nLabel more pictures, or lower --conf"
            )
        categories = [{"id": number, "name": name} for number, name in enumerate(self.classes, start=1)]
        with self._storage():
            for split, chosen in zip(SPLITS, (~validation, validation), strict=True):
                document = {"info": dict(info), **self._entries(chosen), "categories": categories}
                file = self.folder / "annotations" / f"instances_{split}.json"
                file.write_text(json.dumps(document), encoding="utf-8")
                self._written.append(file)
            # Links need no flushing: their content was there before.
            for path in [*self._written, self.folder / "images", self.folder / "annotations", self.folder]:
                flush_entry(path)
            interruption.check()
            place(self.folder, self.destination)
            flush_entry(self.destination.parent)
        self._folder = None
        return self._report(validation)

    def _check_found(self) -> None:
        if not self._images:
            raise DataError("no picture was labelled, so there is no data set to write")
        if not any(entry["ignore"] == 0 for things in self._things for entry in things):
            best = max((entry["score"] for things in self._things for entry in things), default=None)
            raise DataError(
                f"nothing sure was found in {len(self._images)} pictures of: {', '.join(self.classes)}.\n"
                + (
                    "No part of any picture scores more than the background; lower --background, or see what the model "
                    "makes of a picture: edgekit segment CHECKPOINT --prompts ... --source PICTURE"
                    if best is None
                    else f"The best score is {best:.3f}, and --conf asks for {self.sure:g}; lower it"
                )
            )

    def _free_name(self, name: str) -> str:
        """``name``, numbered if another file has it: not all disks tell small letters from large ones."""
        free, number = name, 2
        while free.lower() in self._names:
            free, number = f"{name}-{number}", number + 1
        self._names.add(free.lower())
        return free

    def _put(self, frame: LabelFrame, path: Path) -> None:
        if not frame.as_stored:
            from PIL import Image

            Image.fromarray(frame.image).save(path, "JPEG", quality=QUALITY, subsampling=0)
        else:
            if not self.copy:
                try:
                    os.link(frame.source.resolve(), path)
                    self._linked += 1
                    return
                except OSError:  # on another disk, one without links, or somebody else's file
                    path.unlink(missing_ok=True)
            shutil.copyfile(frame.source, path)
        self._written.append(path)

    def _annotation(self, thing: Thing, *, height: int, width: int) -> dict[str, Any]:
        left, top, across, down = thing.box_xywh
        whole = np.zeros((height, width), np.uint8, order="F")
        whole[top : top + down, left : left + across] = thing.mask
        outline = _mask_coder().encode(whole)
        return {
            "category_id": thing.class_id + 1,
            "bbox": [left, top, across, down],
            "area": int(thing.mask.sum()),
            "segmentation": {"size": [height, width], "counts": outline["counts"].decode("ascii")},
            "score": round(thing.score, 4),
            "iscrowd": 0,
            "ignore": int(thing.score < self.sure),
        }

    def _entries(self, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        """Images and annotations of the frames that are ``chosen``, numbered; a frame's number is the same in both."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in np.flatnonzero(chosen).tolist():
            images.append({"id": number + 1, **self._images[number]})
            for thing in self._things[number]:
                annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **thing})
        return {"images": images, "annotations": annotations}

    def _report(self, validation: NDArray[np.bool_]) -> dict[str, Any]:
        found = [(entry["category_id"], entry["ignore"]) for things in self._things for entry in things]
        return {
            "pictures": len(self._images),
            "train": int((~validation).sum()),
            "val": int(validation.sum()),
            "empty": sum(not things for things in self._things),
            "linked": self._linked,
            "boxes": {
                name: {"sure": found.count((number, 0)), "unsure": found.count((number, 1))}
                for number, name in enumerate(self.classes, start=1)
            },
        }

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the data set {self.destination} cannot be written: {error.strerror or error}\n"
                "Nothing was left behind. Free some space, or choose another place with -o."
            ) from error


def _mask_coder() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingDependencyError("pycocotools", "segment", "write masks as COCO does") from error
    return mask


def _check_destination(path: Path, overwrite: bool) -> None:
    """Refuse to replace anything by accident, and anything but an older data set of labels at all."""
    if not path.name:
        raise UsageError(f"{str(path)!r} cannot be the path of a data set; choose a name such as labels")
    if not (path.exists() or path.is_symlink()) or _is_empty(path):
        return
    if not overwrite:
        raise UsageError(f"{path} exists already; choose another name with -o, or pass --overwrite")
    if path.is_symlink() or not _is_ours(path):
        raise UsageError(f"{path} is no data set of edgekit label, so it is not replaced; choose another name with -o")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _is_ours(path: Path) -> bool:
    try:
        document = json.loads((path / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
        return isinstance(document["info"][LABELLED_BY], str)
    except (OSError, ValueError, KeyError, TypeError):
        return False
