"""Live sources: the newest frame, reconnection, loss. A real HTTP camera and real captures, on this machine."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgekit.cameras import open_source
from edgekit.cameras.live import LiveSource
from edgekit.cameras.stream import open_stream, without_password
from edgekit.errors import SourceError

if TYPE_CHECKING:
    from conftest import MjpegCamera


def test_frames_come_as_rgb_with_their_time_of_capture(mjpeg_camera: MjpegCamera) -> None:
    with open_source(mjpeg_camera.url) as source:
        assert source.live
        assert source.frame_count is None
        frame = next(source)
    assert abs(time.time() - frame.time_s) < 5
    assert frame.image.shape == (48, 64, 3)
    assert frame.image[..., 0].mean() > 180  # red
    assert frame.image[..., 1].mean() < 30
    assert frame.source == mjpeg_camera.url


def test_a_slow_reader_gets_the_newest_frame_and_none_twice(mjpeg_camera: MjpegCamera) -> None:
    with open_source(mjpeg_camera.url) as source:
        indices = []
        for _ in range(4):
            frame = next(source)
            indices.append(frame.index)
            time.sleep(0.2)  # ten frames pass
        assert time.time() - frame.time_s < 1.0
        assert source.dropped >= 10
    steps = np.diff(indices)
    assert (steps > 3).all()
    assert source.dropped >= steps.sum() - len(steps)


def test_it_comes_back_after_a_loss_even_with_another_size(
    mjpeg_camera: MjpegCamera, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="edgekit"), open_stream(mjpeg_camera.url) as source:
        source._first_pause_s = 0.1
        first = next(source)
        mjpeg_camera.online = False
        time.sleep(0.3)
        mjpeg_camera.size = (32, 40)
        mjpeg_camera.online = True
        sizes, last = set(), first
        deadline = time.monotonic() + 20
        while (32, 40, 3) not in sizes and time.monotonic() < deadline:
            last = next(source)
            sizes.add(last.image.shape)
    assert (32, 40, 3) in sizes
    assert last.index > first.index
    assert "is lost; attempt 1 of" in caplog.text
    assert "is back" in caplog.text


def make_clip(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(frames):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    return path


def test_lost_for_good_after_the_last_attempt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    attempts = []

    def gone() -> None:
        attempts.append(time.monotonic())

    # A clip that ends is, for a live source, a camera that stops answering.
    capture = cv2.VideoCapture(str(make_clip(tmp_path / "clip.avi")), cv2.CAP_FFMPEG)
    source = LiveSource(gone, name="camera 3", capture=capture, retries=3, first_pause_s=0.05)
    with (
        caplog.at_level(logging.WARNING, logger="edgekit"),
        source,
        pytest.raises(SourceError, match="camera 3 was lost and did not come back in 3 attempts"),
    ):
        list(source)
    assert len(attempts) == 3
    assert attempts[2] - attempts[1] > attempts[1] - attempts[0] > 0.08  # the pauses double
    assert caplog.text.count("camera 3 is lost") == 3


def test_the_last_frame_is_given_before_the_loss_is_told(tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(make_clip(tmp_path / "clip.avi")), cv2.CAP_FFMPEG)
    source = LiveSource(lambda: None, name="camera 3", capture=capture, retries=1, first_pause_s=0.01)
    time.sleep(0.3)
    assert next(source).index == 4
    with pytest.raises(SourceError, match="camera 3 was lost"):
        next(source)
    assert source.dropped == 4
    source.close()


def test_closing_ends_the_thread_and_a_waiting_reader(mjpeg_camera: MjpegCamera) -> None:
    mjpeg_camera.fps = 2.0
    source = open_source(mjpeg_camera.url)
    next(source)
    threading.Timer(0.2, source.close).start()
    assert len(list(source)) <= 2
    source.close()
    assert not any(thread.name.startswith("reader of") for thread in threading.enumerate())


def test_closing_does_not_wait_for_the_next_attempt(tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(make_clip(tmp_path / "clip.avi")), cv2.CAP_FFMPEG)
    source = LiveSource(lambda: None, name="camera 3", capture=capture, retries=5, first_pause_s=30)
    time.sleep(0.1)
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 1.5


def test_nobody_answers_and_the_password_stays_secret() -> None:
    with pytest.raises(SourceError, match=r"no picture came from http://\*\*\*@127\.0\.0\.1:9/x") as caught:
        open_source("http://anna:secret@127.0.0.1:9/x")
    assert "secret" not in str(caught.value)


def test_without_password() -> None:
    assert without_password("rtsp://a:b%40c@cam/live?x=1@2") == "rtsp://***@cam/live?x=1@2"
    assert without_password("rtsp://cam/live@home") == "rtsp://cam/live@home"
