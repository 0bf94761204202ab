"""Writing labels: what pycocotools and our own reader make of them, and that nothing is half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools")
pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.data.coco_json import LABELLED_BY
from edgekit.data.datasets import open_dataset
from edgekit.errors import DataError, StorageError, UsageError
from edgekit.labelling.dataset import LabelWriter
from edgekit.labelling.footage import LabelFrame
from edgekit.segmentation.things import Thing

INFO = {LABELLED_BY: "finder best.pt from the words 'person, car'"}


def frame(folder: Path, name: str) -> LabelFrame:
    image = np.full((20, 30, 3), 90, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)
    return LabelFrame(image=image, source=folder / name, as_stored=True)


def thing(score: float = 0.9, class_id: int = 1) -> Thing:
    """5 of the 6 pixels of a box."""
    mask = np.array([[1, 1, 1], [1, 1, 0]], np.bool_)
    return Thing(class_id=class_id, score=score, left=4, top=7, mask=mask)


def write(folder: Path, frames: list[tuple[LabelFrame, list[Thing]]], **options: Any) -> dict[str, Any]:
    with LabelWriter(folder, classes=("person", "car"), sure=0.6, **options) as writer:
        for one, things in frames:
            writer.add(one, things)
        return writer.finish(val_share=0.25, info=INFO)


def four(folder: Path) -> list[tuple[LabelFrame, list[Thing]]]:
    """Two things of which one is unsure, one, none, and a frame of a video."""
    video = LabelFrame(image=np.zeros((20, 30, 3), np.uint8), source=folder / "street.mp4", index=50)
    return [
        (frame(folder, "1.png"), [thing(), thing(0.55, class_id=0)]),
        (frame(folder, "2.PNG"), [thing()]),
        (frame(folder, "3.png"), []),
        (video, [thing(0.6)]),
    ]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools under numpy 2
def test_both_readers_find_what_was_written(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    report = write(tmp_path / "out", four(tmp_path / "in"))
    assert report == {
        "pictures": 4, "train": 3, "val": 1, "empty": 1, "linked": 3,
        "boxes": {"person": {"sure": 0, "unsure": 1}, "car": {"sure": 3, "unsure": 0}},
    }  # fmt: skip
    # The third in four is the middle, but nothing is in it.
    train, val = open_dataset(tmp_path / "out", "train"), open_dataset(tmp_path / "out", "val")
    assert (len(train), len(val), train.classes) == (3, 1, ("person", "car"))
    assert train.labelled_by == INFO[LABELLED_BY]
    first = train.samples[0]
    assert first.boxes_xyxy.tolist() == [[4, 7, 7, 9]] * 2
    assert first.class_ids.tolist() == [1, 0]
    assert first.ignore.tolist() == [False, True]
    samples = train.samples + val.samples
    assert [sample.path.name for sample in samples] == ["1.png", "2.png", "3.png", "street-000050.jpg"]
    assert all(sample.read().shape == (20, 30, 3) for sample in samples)
    coco = COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    annotation = coco.anns[1]
    assert annotation["area"] == 5
    assert annotation["score"] == 0.9
    whole = np.zeros((20, 30), np.uint8)
    whole[7:9, 4:7] = thing().mask
    assert (coco.annToMask(annotation) == whole).all()
    (frame_of_video,) = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())["images"]
    assert (frame_of_video["video"], frame_of_video["video_frame"]) == ("street.mp4", 50)


def test_pictures_are_links_or_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "linked", four(tmp_path / "in"))
    assert (tmp_path / "linked" / "images" / "1.png").samefile(tmp_path / "in" / "1.png")
    assert write(tmp_path / "copied", four(tmp_path / "in"), copy=True)["linked"] == 0
    assert not (tmp_path / "copied" / "images" / "1.png").samefile(tmp_path / "in" / "1.png")

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert write(tmp_path / "apart", four(tmp_path / "in"))["linked"] == 0
    assert (tmp_path / "apart" / "images" / "1.png").read_bytes() == (tmp_path / "in" / "1.png").read_bytes()


def test_pictures_of_one_name_are_numbered(tmp_path: Path) -> None:
    frames = [(frame(tmp_path / name, "A.png" if name == "b" else "a.png"), [thing()]) for name in "abc"]
    write(tmp_path / "out", frames)
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["A-2.png", "a-3.png", "a.png"]


def nothing_sure(folder: Path) -> list[tuple[LabelFrame, list[Thing]]]:
    return [(frame(folder, "1.png"), [thing(0.55)])]


def nothing_at_all(folder: Path) -> list[tuple[LabelFrame, list[Thing]]]:
    return [(frame(folder, "1.png"), [])]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (nothing_sure, r"nothing sure was found in 1 pictures of: person, car\.\nThe best score is 0\.550"),
        (nothing_at_all, r"No part of any picture scores more than the background"),
        (lambda folder: four(folder)[1:3], "only one of 2 pictures holds something sure"),
        (lambda _: [], "no picture was labelled"),
    ],
)
def test_where_nothing_was_found_nothing_is_left(
    tmp_path: Path, found: Callable[[Path], list[tuple[LabelFrame, list[Thing]]]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "out" / "set", found(tmp_path / "in"))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_run_leaves_nothing_and_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "sets" / "out", four(tmp_path / "in"))
    before = (tmp_path / "sets" / "out" / "annotations" / "instances_train.json").read_bytes()

    def interrupted() -> None:
        with LabelWriter(tmp_path / "sets" / "out", classes=("person",), sure=0.6, overwrite=True) as writer:
            writer.add(*four(tmp_path / "in")[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["out"]
    assert (tmp_path / "sets" / "out" / "annotations" / "instances_train.json").read_bytes() == before


def test_only_labels_are_replaced_and_only_if_asked(tmp_path: Path) -> None:
    write(tmp_path / "out", four(tmp_path / "in"))
    with pytest.raises(UsageError, match="exists already; choose another name with -o, or pass --overwrite"):
        write(tmp_path / "out", four(tmp_path / "in"))
    assert write(tmp_path / "out", four(tmp_path / "in")[:2], overwrite=True)["pictures"] == 2
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    file = tmp_path / "out" / "annotations" / "instances_train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "info": {"description": "by hand"}}))
    with pytest.raises(UsageError, match="is no data set of edgekit label, so it is not replaced"):
        write(tmp_path / "out", four(tmp_path / "in"), overwrite=True)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgekit.labelling.dataset.flush_entry", refuse)
    with pytest.raises(StorageError, match=r"out cannot be written: No space left on device\nNothing was left behind"):
        write(tmp_path / "sets" / "out", four(tmp_path / "in"))
    assert list((tmp_path / "sets").iterdir()) == []
