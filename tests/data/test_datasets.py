"""Layouts, classes, broken boxes and reading of pictures."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.data.datasets import Sample, open_dataset
from edgekit.data.voc_xml import VOC_CLASSES
from edgekit.errors import DataError

Write = Callable[..., Path]
Document = dict[str, Any]


def test_one_instances_file_serves_every_split(write_coco: Write, document: Document) -> None:
    folder = write_coco(document)
    train, val = open_dataset(folder, "train"), open_dataset(folder, "val")
    assert (train.name, val.name) == ("pets train", "pets val")
    assert train.classes == ("cat", "dog")  # by category id
    assert len(train) == len(val) == 2
    first, second = train.samples
    assert first.image_id == 7
    np.testing.assert_array_equal(first.boxes_xyxy, np.array([[1, 2, 11, 22], [5.5, 6, 13.5, 15]], np.float32))
    assert first.boxes_xyxy.dtype == np.float32
    assert first.class_ids.dtype == np.int64
    assert first.class_ids.tolist() == [0, 1]
    assert first.ignore.tolist() == [False, True]
    assert first.crowd is None
    assert second.ignore.tolist() == [True]
    assert second.crowd is not None
    assert second.crowd.tolist() == [True]


@pytest.mark.parametrize(
    ("info", "labelled_by"), [({"labelled_by": "tcl best.pt"}, "tcl best.pt"), ({"year": 2012}, ""), ([1], "")]
)
def test_who_made_the_boxes_is_known_where_the_file_says_so(
    write_coco: Write, document: Document, info: object, labelled_by: str
) -> None:
    dataset = open_dataset(write_coco({"info": info, **document}), "val")
    assert dataset.labelled_by == labelled_by
    assert dataset.name == "pets val" + " (labelled by a model)" * bool(labelled_by)


def test_split_files(write_coco: Write, document: Document) -> None:
    folder = write_coco(document, "annotations/instances_train.json")
    assert len(open_dataset(folder, "train")) == 2
    with pytest.raises(DataError, match=r"no split 'val'.*only train(.|\n)*--split train"):
        open_dataset(folder, "val")


def test_pictures_may_lie_in_a_folder_of_the_split(write_coco: Write, document: Document) -> None:
    folder = write_coco(document, "annotations/instances_train.json")
    (folder / "images").rename(folder / "moved")
    (folder / "images").mkdir()
    (folder / "moved").rename(folder / "images" / "train")
    assert open_dataset(folder, "train").samples[0].read().shape == (30, 40, 3)


def test_pictures_are_read_as_rgb(write_coco: Write, document: Document) -> None:
    picture = open_dataset(write_coco(document), "val").samples[0].read()
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [200, 0, 0]


def test_a_model_with_more_classes_keeps_its_order(write_coco: Write, document: Document) -> None:
    dataset = open_dataset(write_coco(document), "val", ["bird", "dog", "cat"])
    assert dataset.classes == ("bird", "dog", "cat")
    assert dataset.samples[0].class_ids.tolist() == [2, 1]


def test_classes_that_the_model_lacks(write_coco: Write, document: Document) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(write_coco(document), "val", ["car", "dog"])
    for part in ("not among the model's: cat", "the data: cat, dog", "the model: car, dog", "--class-map cat=car"):
        assert part in str(caught.value)


def test_a_class_without_boxes_need_not_be_known(write_coco: Write, document: Document) -> None:
    document["categories"].append({"id": 9, "name": "zebra"})
    assert open_dataset(write_coco(document), "val", ["cat", "dog"]).classes == ("cat", "dog")


def test_class_map_renames_and_drops(write_coco: Write, document: Document) -> None:
    folder = write_coco(document)
    dataset = open_dataset(folder, "val", ["animal"], class_map={"cat": "animal", "dog": None})
    assert [len(sample.boxes_xyxy) for sample in dataset.samples] == [1, 1]
    merged = open_dataset(folder, "val", class_map={"cat": "animal", "dog": "animal"})
    assert merged.classes == ("animal",)
    assert merged.samples[0].class_ids.tolist() == [0, 0]


def test_class_map_of_an_unknown_class(write_coco: Write, document: Document) -> None:
    with pytest.raises(DataError, match=r"names 'cow', which .* does not have(.|\n)*cat, dog"):
        open_dataset(write_coco(document), "val", class_map={"cow": "cat"})


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_dataset(tmp_path / "nowhere", "val")


def test_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no data set: expected a VOCdevkit year"):
        open_dataset(tmp_path, "val")


def test_the_devkit_instead_of_its_year(write_voc: Write) -> None:
    folder = write_voc("")
    with pytest.raises(DataError, match=r"Did you mean --data .*VOC2007\?"):
        open_dataset(folder.parent, "train")


def test_no_images(write_coco: Write, document: Document) -> None:
    document["images"], document["annotations"] = [], []
    with pytest.raises(DataError, match=r"\(val\) is empty: .* lists no image"):
        open_dataset(write_coco(document), "val")


def test_no_boxes(write_coco: Write, document: Document) -> None:
    document["annotations"] = []
    with pytest.raises(DataError, match="holds no box"):
        open_dataset(write_coco(document), "val")


def test_missing_pictures_are_counted(write_coco: Write, document: Document) -> None:
    folder = write_coco(document)
    (folder / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures do not exist, the first is .*b\.png"):
        open_dataset(folder, "val")


def test_boxes_without_area_are_dropped(
    write_coco: Write, document: Document, caplog: pytest.LogCaptureFixture
) -> None:
    # The last has an area in float64 only; boxes are float32.
    document["annotations"][0]["bbox"] = [1, 2, 0, 5]
    document["annotations"][1]["bbox"] = [20, 2, 1e-9, 5]
    with caplog.at_level(logging.WARNING, "edgekit"):
        dataset = open_dataset(write_coco(document), "val")
    assert [len(sample.boxes_xyxy) for sample in dataset.samples] == [0, 1]
    assert dataset.samples[0].boxes_xyxy.shape == (0, 4)
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["dropped 2 boxes without area"]


def test_nothing_but_boxes_without_area(
    write_coco: Write, document: Document, caplog: pytest.LogCaptureFixture
) -> None:
    for entry in document["annotations"]:
        entry["bbox"][2] = 0
    with pytest.raises(DataError, match="holds no usable box: 3 have no area, 0 lie outside"):
        open_dataset(write_coco(document), "val")
    assert "dropped 3" in caplog.text


def test_boxes_are_clipped_to_their_picture(
    write_coco: Write, document: Document, caplog: pytest.LogCaptureFixture
) -> None:
    document["annotations"][0]["bbox"] = [-5, -5, 100, 100]
    document["annotations"][1]["bbox"] = [50, 2, 5, 5]
    document["annotations"][2]["bbox"] = [0, 0, 40.3, 30]  # rounding: clipped without a word
    with caplog.at_level(logging.WARNING, "edgekit"):
        dataset = open_dataset(write_coco(document), "val")
    assert dataset.samples[0].boxes_xyxy.tolist() == [[0, 0, 40, 30]]
    assert dataset.samples[1].boxes_xyxy.tolist() == [[0, 0, 40, 30]]
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "dropped 1 boxes wholly outside their picture",
        "clipped 1 boxes that reach outside their picture",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_boxes_must_be_finite(write_coco: Write, document: Document, value: float) -> None:
    document["annotations"][1]["bbox"][2] = value
    with pytest.raises(DataError, match=r"annotations\[1\] of image a\.png is not a box.*must be finite"):
        open_dataset(write_coco(document), "val")


def test_a_picture_of_another_size_than_annotated(write_coco: Write, document: Document) -> None:
    document["images"][0]["width"], document["images"][0]["height"] = 30, 40
    sample = open_dataset(write_coco(document), "val").samples[0]
    with pytest.raises(DataError, match=r"is 40x30 pixels, but its annotation says 30x40"):
        sample.read()


def test_a_picture_that_cannot_be_read(write_coco: Write, document: Document) -> None:
    folder = write_coco(document)
    sample = open_dataset(folder, "val").samples[0]
    sample.path.write_text("no picture")
    with pytest.raises(DataError, match="cannot be decoded as a picture"):
        sample.read()
    sample.path.unlink()
    with pytest.raises(DataError, match=r"a\.png does not exist \(image 7\)"):
        sample.read()


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), index * 10, np.uint8))
    writer.release()


def video_document(frames: int) -> Document:
    return {
        "images": [{"id": k + 1, "frame_index": k, "width": 64, "height": 48} for k in range(frames)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    }


def level(sample: Sample) -> float:
    return float(sample.read().mean())


def test_frames_of_a_video_in_any_order(write_coco: Write) -> None:
    folder = write_coco(video_document(12))
    write_video(folder / "clip.avi", 12)
    samples = open_dataset(folder, "val").samples
    for index in (0, 1, 2, 7, 3, 3, 11, 0):
        assert level(samples[index]) == pytest.approx(index * 10, abs=3), index
        assert samples[index].frame_index == index


def test_frames_of_two_videos_in_turns(write_coco: Write, tmp_path: Path) -> None:
    folder = write_coco(video_document(5))
    write_video(folder / "clip.avi", 5)
    shutil.copytree(folder, tmp_path / "copy")
    one, two = open_dataset(folder, "val").samples, open_dataset(tmp_path / "copy", "val").samples
    assert [round(level(sample) / 10) for pair in zip(one, two, strict=True) for sample in pair] == [
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4
    ]  # fmt: skip


def test_a_video_that_ends_too_early(write_coco: Write) -> None:
    folder = write_coco(video_document(8))
    write_video(folder / "clip.avi", 5)
    with pytest.raises(DataError, match=r"clip\.avi ends after 5 frames; frame 7 was asked for"):
        open_dataset(folder, "val").samples[7].read()


def test_a_video_that_is_none(write_coco: Write) -> None:
    folder = write_coco(video_document(2))
    (folder / "clip.avi").write_text("no video")
    with pytest.raises(DataError, match=r"clip\.avi cannot be opened as a video"):
        open_dataset(folder, "val").samples[0].read()
    (folder / "clip.avi").unlink()
    with pytest.raises(DataError, match=r"exactly one video is expected beside it; found none"):
        open_dataset(folder, "val")


def test_a_video_that_vanished(write_coco: Write) -> None:
    folder = write_coco(video_document(2))
    write_video(folder / "clip.avi", 2)
    sample = open_dataset(folder, "val").samples[0]
    sample.path.unlink()
    with pytest.raises(DataError, match=r"clip\.avi does not exist"):
        sample.read()


def test_the_real_photographs(voc07: Path) -> None:
    dataset = open_dataset(voc07, "val", VOC_CLASSES)
    assert len(dataset) == 500
    assert sum(len(sample.boxes_xyxy) for sample in dataset.samples) == 1472
    assert dataset.samples[0].read().shape == (480, 354, 3)


def test_the_real_fixed_camera(pets09: Path) -> None:
    dataset = open_dataset(pets09, "val", VOC_CLASSES)
    assert len(dataset) == 795
    assert {int(name) for sample in dataset.samples for name in sample.class_ids} == {VOC_CLASSES.index("person")}
    assert dataset.samples[1].read().shape == (360, 480, 3)


def test_the_traffic_cameras_need_a_class_map(shared: Path) -> None:
    folder = shared / "data" / "fixedcam_montreal_cctv"
    with pytest.raises(DataError, match="not among the model's: vehicle, pedestrian, cyclist"):
        open_dataset(folder, "val", VOC_CLASSES)
    mapping = {"vehicle": "car", "pedestrian": "person", "cyclist": "bicycle", "construction": None}
    assert len(open_dataset(folder, "val", VOC_CLASSES, class_map=mapping)) == 101
