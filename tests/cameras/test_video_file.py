"""Video files: every frame once, in RGB, and a plain word on files that are no videos."""

from __future__ import annotations

import io
import logging
import zipfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.cameras import open_source
from edgekit.errors import SourceError


def make_video(path: Path, *, frames: int = 12, fps: float = 8.0, codec: str = "MJPG") -> Path:
    """Frame n has the red level 20 n; green is 0 and blue is 128."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), (128, 0, 20 * index), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_every_frame_in_order_as_rgb(tmp_path: Path, name: str, codec: str) -> None:
    path = make_video(tmp_path / name, codec=codec)
    with open_source(str(path)) as source:
        assert (source.live, source.fps, source.frame_count) == (False, 8.0, 12)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(12) / 8)
    assert {frame.source for frame in frames} == {str(path)}
    for index, frame in enumerate(frames):
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.reshape(-1, 3).mean(axis=0) == pytest.approx((20 * index, 0, 128), abs=12)


def test_file_url(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.avi", frames=2)
    assert len(list(open_source(f"file://{path}"))) == 2


def test_loop_counts_on(tmp_path: Path) -> None:
    with open_source(str(make_video(tmp_path / "clip.avi", frames=4)), loop=True) as source:
        frames = list(islice(source, 10))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(10) / 8)
    assert abs(int(frames[1].image[0, 0, 0]) - int(frames[5].image[0, 0, 0])) < 3


def test_truncated_video_gives_what_there_is_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_video(tmp_path / "clip.avi", frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING, logger="edgekit"), open_source(str(path)) as source:
        assert source.frame_count is not None
        assert 5 < len(list(source)) < 40
    assert "damaged or truncated" in caplog.text


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"frame,label\n1,cat\n" * 500, 'a text file that begins with "frame,label"'),
        ("Größe\n".encode() * 1500, 'a text file that begins with "Größe"'),
        (zip_bytes(), "a zip archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0", "a PNG picture"),
        (b"", "the file is empty"),
        (bytes(range(256)) * 40, "no decoder knows it"),
    ],
)
def test_other_files_as_video(tmp_path: Path, content: bytes, looks: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"clip\.mp4 is not a video: .*{looks}"):
        open_source(str(path))


def test_recording_without_an_index(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", codec="mp4v")
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(SourceError, match=r"not a video: no decoder knows it\. Likely cause: it is truncated"):
        open_source(str(path))


def test_video_without_a_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.avi", frames=3)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(SourceError, match=r"not one frame of it can be decoded|is not a video"):
        list(open_source(str(path)))


def test_missing_video(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no file .*nothing\.mp4"):
        open_source(str(tmp_path / "nothing.mp4"))


def test_unreadable_video() -> None:
    with pytest.raises(SourceError, match="/proc/self/mem cannot be read"):
        open_source("/proc/self/mem")


def test_real_clips(shared: Path) -> None:
    for path in sorted((shared / "data" / "videos").iterdir()):
        with open_source(str(path)) as source:
            times = [frame.time_s for frame in islice(source, 20)]
        assert len(times) == 20
        assert (np.diff(times) > 0).all()
