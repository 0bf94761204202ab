"""Cameras of this machine: what is said when one does not open. (That one opens needs hardware.)"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import pytest

from edgekit.cameras import is_source_name, open_source
from edgekit.cameras.device import captures, configure, list_devices, open_device, who_uses, why_no_camera
from edgekit.cameras.uri import CameraOptions
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


@pytest.mark.parametrize(
    ("of_driver", "of_node", "expected"),
    [
        (0x84A00001, 0x04200001, True),  # the picture node of a USB camera
        (0x84A00001, 0x04A00000, False),  # its metadata node
        (0x84204000, 0x04204000, False),  # a Raspberry Pi's codec
        (0x05000001, 0, True),  # an old driver, which has no flags for the node
        (0x85001000, 0x05001000, True),  # several planes
    ],
)
def test_nodes_that_are_no_cameras(of_driver: int, of_node: int, expected: bool) -> None:
    capability = struct.pack("=16s32s32sIII12x", b"uvcvideo", b"Cam", b"usb-1", 0x60100, of_driver, of_node)
    assert len(capability) == 104
    assert captures(capability) is expected


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


def test_busy_camera_names_who_has_it(tmp_path: Path) -> None:
    camera = tmp_path / "video0"
    camera.touch()
    holder = subprocess.Popen(["sh", "-c", f"exec 3<{camera}; echo ready; read line"], stdin=-1, stdout=-1, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    assert who_uses(camera) == f"sh (process {holder.pid})"
    message = why_no_camera(0, dev=tmp_path)
    assert f"camera 0 ({camera}) is busy: sh (process {holder.pid}) uses it" in message
    holder.communicate("")
    assert who_uses(camera) is None


def test_what_stands_in_for_a_camera_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, message in (
        ("garbage", "is there but gives no picture"),
        ("fifo", "is there but gives no picture"),
        ("link", "may not read and write"),
        ("nothing", "does not exist"),
    ):
        with pytest.raises(SourceError, match=message):
            open_device(tmp_path / name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not use a device")
def test_permission_denied_for_a_real_user() -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom edgekit.cameras.device import open_device\n"
        "os.setresuid(65534, 65534, 65534)\nopen_device(Path(sys.argv[1]))"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's own ones are closed to others
        os.chmod(folder, 0o755)
        camera = Path(folder) / "video0"
        camera.touch(mode=0o600)
        done = subprocess.run([sys.executable, "-c", program, str(camera)], capture_output=True, text=True, check=False)
    assert f"SourceError: camera {camera} cannot be opened: this user may not read and write {camera}." in done.stderr


def test_a_camera_put_back_in_is_found_by_its_link(tmp_path: Path) -> None:
    link = tmp_path / "usb-Cam-index0"
    with pytest.raises(SourceError, match=r"did not appear in 2 attempts(.|\n)*does not exist"):
        next(open_device(link, retries=2))
    link.symlink_to("/dev/video97")  # another index than before
    with pytest.raises(SourceError, match="may not read and write"):
        open_device(link)


class Settings:
    """A capture that notes what it is set to, and takes what it likes."""

    def __init__(self) -> None:
        self.set_to: dict[int, float] = {}

    def set(self, key: int, value: float) -> bool:
        self.set_to[key] = value
        return True

    def get(self, key: int) -> float:
        return 640.0 if key == cv2.CAP_PROP_FRAME_WIDTH else self.set_to.get(key, 0.0)


def test_options_reach_the_driver_format_first(caplog: pytest.LogCaptureFixture) -> None:
    capture = Settings()
    options = CameraOptions(height=720, width=1280, fps=25.0, format="yuyv")
    configure(capture, options)  # type: ignore[arg-type]
    assert list(capture.set_to) == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_BUFFERSIZE,
    ]
    assert capture.set_to[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"YUYV")
    assert "the camera has no width 1280: it takes 640" in caplog.text
    assert "height" not in caplog.text
    plain = Settings()
    configure(plain, CameraOptions())  # type: ignore[arg-type]
    assert plain.set_to[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert len(plain.set_to) == 2


def test_a_live_source_does_not_loop() -> None:
    with pytest.raises(UsageError, match="97 is a live source"):
        open_source("97", loop=True)


def test_unknown_scheme() -> None:
    with pytest.raises(UsageError, match=r"no source begins with gopher://; there are usb://, csi://, rtsp://"):
        open_source("gopher://host/1")
    with pytest.raises(UsageError, match=r"Did you mean usb://\?"):
        open_source("v4l2://0")


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
