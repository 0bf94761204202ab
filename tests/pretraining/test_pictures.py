"""Where pictures come from: folders, data sets, videos; and what class each has, if any."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.datasets import Sample
from edgekit.errors import DataError, StorageError
from edgekit.pretraining import frames
from edgekit.pretraining.frames import frames_of
from edgekit.pretraining.pictures import PictureItem, dominant, open_pictures

MakeVideo = Callable[[Path, int], None]


def picture(path: Path, level: int = 100, *, height: int = 40, width: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(path)
    return path


def test_folders_are_classes(drawings: Path, tmp_path: Path) -> None:
    training, validation = open_pictures([drawings], tmp_path, interval_s=1.0)
    assert (len(training.items), len(validation.items)) == (24, 24)
    assert training.classes == validation.classes == ("box", "disc")
    assert training.name == drawings.name
    for one in (training, validation):
        assert all(item.path.parent.name == one.classes[item.label] for item in one.items)
    names = [item.path.name for item in training.items[:12]]
    assert names == [f"{index}.png" for index in range(12)], "natural order"


def test_without_train_the_folders_themselves_are_classes(drawings: Path, tmp_path: Path) -> None:
    training, validation = open_pictures([drawings / "train"], tmp_path, interval_s=1.0)
    assert (len(training.items), training.classes, len(validation.items)) == (24, ("box", "disc"), 0)


def test_other_folders_are_searched_and_have_no_classes(tmp_path: Path, make_video: MakeVideo) -> None:
    for name in ("10.png", "9.png", "deep/down/1.png", ".hidden/2.png", "deep/.3.png"):
        picture(tmp_path / "data" / name)
    (tmp_path / "data" / "index.jsonl").write_text("{}\n")
    make_video(tmp_path / "data" / "deep" / "clip.avi", 21)
    training, validation = open_pictures([tmp_path / "data"], tmp_path / "store", interval_s=1.0)
    names = [str(item.path.relative_to(tmp_path / "data")) for item in training.items[:3]]
    assert names == ["9.png", "10.png", "deep/down/1.png"]
    assert len(training.items) == 3 + 3
    assert training.classes == ()
    assert {item.label for item in training.items} == {-1}
    assert validation.items == ()


def test_one_class_teaches_a_probe_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cat" / "1.png")
    picture(tmp_path / "train" / "cat" / "2.png")
    training, _ = open_pictures([tmp_path], tmp_path / "store", interval_s=1.0)
    assert (len(training.items), training.classes) == (2, ())


def coco(root: Path, split: str, boxes: dict[int, list[tuple[int, list[int]]]]) -> None:
    """A data set in COCO's form: by number of a picture its boxes, class 1 is cat and 2 is dog."""
    for number in boxes:
        picture(root / "images" / f"{number}.png")
    document = {
        "images": [{"id": number, "file_name": f"{number}.png", "height": 40, "width": 50} for number in boxes],
        "annotations": [
            {"id": index, "image_id": number, "category_id": kind, "bbox": box}
            for index, (number, kind, box) in enumerate(
                (number, kind, box) for number, these in boxes.items() for kind, box in these
            )
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def test_pictures_of_a_data_set_have_the_class_that_covers_most(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    train = {
        1: [(1, [0, 0, 20, 20])],
        2: [(2, [0, 0, 20, 20]), (1, [20, 20, 10, 10])],
        3: [(2, [0, 0, 20, 20]), (1, [20, 20, 18, 18])],  # covers less than twice as much
        4: [],
    }
    coco(root, "train", train)
    coco(root, "val", {11: [(2, [0, 0, 10, 10])], 12: []})
    training, validation = open_pictures([root], tmp_path / "store", interval_s=1.0)
    assert training.classes == ("cat", "dog")
    assert [item.label for item in training.items] == [0, 1, -1, -1]
    assert [(item.path.name, item.label) for item in validation.items] == [("11.png", 1)]
    assert training.name == "pets train"


def test_pictures_that_are_trained_on_do_not_validate(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    both = {1: [(1, [0, 0, 20, 20])], 2: [(2, [0, 0, 20, 20])]}
    coco(root, "train", both)
    coco(root, "val", both)
    _, validation = open_pictures([root], tmp_path / "store", interval_s=1.0)
    assert validation.items == ()


def test_ignored_boxes_name_no_picture() -> None:
    def sample(ignore: list[bool]) -> Sample:
        boxes = np.array([[0, 0, 30, 30], [0, 0, 10, 10]], np.float32)
        return Sample(image_id=1, path=Path("x"), boxes_xyxy=boxes, class_ids=np.array([0, 1]), ignore=np.array(ignore))

    assert dominant(sample([False, False]), ("cat", "dog")) == "cat"
    assert dominant(sample([True, False]), ("cat", "dog")) == "dog"
    assert dominant(sample([True, True]), ("cat", "dog")) is None


def test_sources_come_together(drawings: Path, tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "street.avi", 11)
    picture(tmp_path / "loose" / "1.png")
    sources = [drawings, tmp_path / "street.avi", tmp_path / "loose", tmp_path / "loose" / "*.png"]
    training, validation = open_pictures(sources, tmp_path / "store", interval_s=1.0)
    assert len(training.items) == 24 + 2 + 1 + 1
    assert training.classes == ("box", "disc")
    assert [item.label for item in training.items[24:]] == [-1] * 4
    assert len(validation.items) == 24
    assert training.name == f"{drawings.name}, street.avi, loose, *.png"


def test_frames_are_taken_at_the_interval(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "clip.avi", 25)
    found = frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=0.5)
    assert [path.name for path in found] == [f"{index:08d}.jpg" for index in (0, 5, 10, 15, 20)]
    for path, index in zip(found, (0, 5, 10, 15, 20), strict=True):
        assert PictureItem(path=path).read().mean() == pytest.approx(8 * index, abs=3)
    assert len(frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=10.0)) == 1
    assert len(frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=0.01)) == 25


def test_frames_are_taken_once(tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "clip.avi", 5)
    first = frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(frames, "_extract", lambda *_, **__: pytest.fail("they are there"))
        assert frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=0.2) == first
    make_video(tmp_path / "clip.avi", 15)  # another video under the same name
    os.utime(tmp_path / "clip.avi", ns=(1, 1))
    assert len(frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=0.2)) > len(first)


def test_large_frames_are_reduced(tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "clip.avi", 2)
    monkeypatch.setattr(frames, "SHORTER_SIDE", 24)
    found = frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=1.0)
    assert PictureItem(path=found[0]).read().shape == (24, 32, 3)


def test_a_labelled_video_gives_its_frames(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "camera.avi", 21)
    document = {
        "images": [{"id": 1, "frame_index": 3, "height": 48, "width": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    training, _ = open_pictures([tmp_path], tmp_path / "store", interval_s=1.0)
    assert (len(training.items), training.classes) == (3, ())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "--data .*nowhere: there is no picture"),
        ("nowhere.mp4", "--data .*nowhere.mp4: there is no picture"),
        ("empty", "no picture and no video is in it or its subfolders; its 1 files have other"),
        ("text.mp4", "no frames could be taken from a video: .*text.mp4 is not a video"),
    ],
)
def test_what_has_no_picture_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    (tmp_path / "text.mp4").write_text("nothing")
    with pytest.raises(DataError, match=message):
        open_pictures([tmp_path / name], tmp_path / "store", interval_s=1.0)
    assert not (tmp_path / "store").exists() or list((tmp_path / "store").iterdir()) == []


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "clip.avi", 5)
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StorageError, match=r"frames of .*clip\.avi could not be written"):
        frames_of(tmp_path / "clip.avi", tmp_path / "store", interval_s=1.0)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    with pytest.raises(DataError, match=r"(?s)1\.jpg cannot be read as a picture.*Mend or delete it"):
        PictureItem(path=tmp_path / "1.jpg").read()


def test_the_digest_tells_other_pictures_and_classes(drawings: Path, tmp_path: Path) -> None:
    training, validation = open_pictures([drawings], tmp_path, interval_s=1.0)
    assert training.digest() == open_pictures([drawings], tmp_path, interval_s=1.0)[0].digest()
    assert len({training.digest(), validation.digest(), training.first(23).digest()}) == 3
