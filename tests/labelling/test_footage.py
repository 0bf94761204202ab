"""Pictures and frames of videos, in order."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from edgekit.errors import SourceError
from edgekit.labelling.footage import Footage, find_footage


def save(path: Path, *, turned: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.full((20, 30, 3), 90, np.uint8))
    exif = picture.getexif()
    if turned:
        exif[ExifTags.Base.Orientation] = 6
    picture.save(path, exif=exif)
    return path


def save_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for index in range(frames):
        writer.write(np.full((24, 32, 3), 10 * index, np.uint8))
    writer.release()
    return path


def test_a_folder_holds_pictures_and_videos_at_any_depth(tmp_path: Path) -> None:
    save(tmp_path / "10.png")
    save(tmp_path / "2.png")
    save(tmp_path / "deeper" / "1.png")
    save(tmp_path / ".hidden" / "1.png")
    save_video(tmp_path / "street.avi", 7)
    (tmp_path / "notes.txt").write_text("")
    files = find_footage(str(tmp_path))
    assert [path.name for path in files] == ["2.png", "10.png", "1.png", "street.avi"]
    footage = Footage(files, every=3)
    assert footage.count == 6
    frames = list(footage)
    assert [frame.name for frame in frames] == ["2", "10", "1", "street-000000", "street-000003", "street-000006"]
    assert [frame.as_stored for frame in frames] == [True] * 3 + [False] * 3
    assert frames[4].image.mean() == pytest.approx(30, abs=3)
    assert [frame.name for frame in Footage(files, every=3, limit=4)] == ["2", "10", "1", "street-000000"]


def test_a_turned_photograph_stands_up(tmp_path: Path) -> None:
    (frame,) = Footage([save(tmp_path / "1.jpg", turned=True)], every=1)
    assert frame.image.shape == (30, 20, 3)
    assert not frame.as_stored


def test_a_broken_picture_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.jpg").write_bytes(b"nothing")
    save(tmp_path / "2.jpg")
    footage = Footage(find_footage(str(tmp_path)), every=1)
    with caplog.at_level(logging.WARNING, "edgekit"):
        assert [frame.name for frame in footage] == ["2"]
    assert footage.unreadable == [tmp_path / "1.jpg"]
    assert "1.jpg cannot be read as a picture" in caplog.text


def test_a_broken_video_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "1.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"1\.mp4 is not a video"):
        Footage(find_footage(str(tmp_path / "1.mp4")), every=1)


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture and no video is in"):
        find_footage(str(tmp_path))
    with pytest.raises(SourceError, match="there is no picture"):
        find_footage(str(tmp_path / "absent"))


def test_a_labelled_data_set_is_pointed_at_its_pictures(tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png")
    (tmp_path / "instances.json").write_text("{}")
    with pytest.raises(SourceError, match=f"--frames {tmp_path}/images"):
        find_footage(str(tmp_path))
