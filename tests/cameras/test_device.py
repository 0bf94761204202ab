"""Cameras of this machine: what is said when one does not open. (That one opens needs hardware.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cameras import is_source_name, open_source
from edgekit.cameras.device import list_devices, open_device, why_no_camera
from edgekit.errors import SourceError, UsageError


@pytest.mark.parametrize("text", ["97", "/dev/video97"])
def test_no_such_camera(text: str) -> None:
    with pytest.raises(SourceError, match=r"no camera 97: /dev/video97 does not exist\. Video devices here: "):
        open_source(text)


def test_no_camera_at_all(tmp_path: Path) -> None:
    message = why_no_camera(0, dev=tmp_path)
    assert "Video devices here: none." in message
    assert "Likely cause: no camera is plugged in" in message
    assert "Try: edgekit run --source demo" in message


def test_another_index_is_suggested(tmp_path: Path) -> None:
    for name in ("video10", "video2", "videology"):
        (tmp_path / name).touch()
    assert list(list_devices(tmp_path)) == [2, 10]
    message = why_no_camera(0, dev=tmp_path)
    assert f"Video devices here: {tmp_path}/video2, {tmp_path}/video10." in message
    assert "Try: edgekit run --camera 2" in message


def test_camera_that_may_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "video0").symlink_to(tmp_path / "nowhere")  # not readable, even for root
    message = why_no_camera(0, dev=tmp_path)
    assert f"may not read and write {tmp_path}/video0" in message
    assert "usermod -aG video" in message


def test_camera_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    message = why_no_camera(0, dev=tmp_path)
    assert "gives no picture" in message
    assert f"fuser -v {tmp_path}/video0" in message
    assert "rpicam-vid" in message


def test_a_live_source_does_not_loop() -> None:
    with pytest.raises(UsageError, match="97 is a live source"):
        open_source("97", loop=True)


def test_unknown_scheme() -> None:
    with pytest.raises(UsageError, match=r"no source begins with gopher://; there are rtsp://"):
        open_source("gopher://host/1")
    with pytest.raises(UsageError, match="ribbon-cable camera needs GStreamer"):
        open_source("csi://0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("demo", True), ("demo:3", True), ("0", True), ("/dev/video1", True), ("rtsp://h/", True)),
        *(("default", False), ("demo.edgekit", False), ("clip.mp4", False), ("photos/", False)),
    ],
)
def test_names_that_are_sources(text: str, expected: bool) -> None:
    assert is_source_name(text) is expected


def test_opencv_keeps_quiet(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(bytes(range(256)))
    program = (
        "from edgekit.cameras import open_source\n"
        "from edgekit.errors import SourceError\n"
        f"for text in ('97', {str(tmp_path / 'broken.mp4')!r}, 'http://127.0.0.1:9/'):\n"
        "    try:\n        open_source(text)\n    except SourceError:\n        print('refused')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["refused"] * 3
    assert done.stderr == ""


def test_a_real_camera_if_there_is_one() -> None:
    devices = list_devices()
    if not devices:
        pytest.skip("needs a camera, and this machine has no /dev/video*")
    with open_device(next(iter(devices))) as source:
        assert next(source).image.ndim == 3
