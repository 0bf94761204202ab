"""Ribbon-cable cameras: the right program with the right words, frames from its pipe, and what is said without any.

The boards' own programs run only there. Stand-ins check what they are asked for; GStreamer's pipeline is the real one,
with a test picture in place of the Jetson's camera.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.cameras import open_source
from edgekit.errors import SourceError, UsageError

RPICAM_VID = """#!{python}
# Writes what the real one does: full-range YUV 4:2:0, grey 77 and then brighter by 50.
import sys, time
options = dict(zip(sys.argv[1::1], sys.argv[2::1]))
assert options["--codec"] == "yuv420" and options["--timeout"] == "0" and "--nopreview" in sys.argv, sys.argv
assert options["--camera"] == "1" and options["--framerate"] == "15", sys.argv
width, height = int(options["--width"]), int(options["--height"])
with open(options["--output"], "wb", buffering=0) as pipe:
    for luma in (77, 127):
        pipe.write(bytes([luma]) * (width * height) + bytes([128]) * (width * height // 2))
        time.sleep(0.2)
    time.sleep(60)
"""

GST_LAUNCH = """#!/bin/sh
# The real GStreamer; only the elements that a Jetson alone has are replaced.
for word; do
    case $word in
        nvarguscamerasrc) word=videotestsrc ;;
        sensor-id=*) word="pattern=white is-live=true" ;;
        nvvidconv) word=videoconvert ;;
        *NVMM*) word=$(echo "$word" | sed 's/(memory:NVMM)//') ;;
    esac
    set -- "$@" $word
    shift
done
exec {gst_launch} "$@"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; no picamera2."""
    if importlib.util.find_spec("picamera2") is not None:
        pytest.skip("this machine has picamera2, which comes first")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def add(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_nothing_that_can_read_one(programs: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing on this machine can read a ribbon-cable camera") as caught:
        open_source("csi://0", retries=3)
    assert "apt install rpicam-apps-lite" in str(caught.value)
    assert "Jetson" in str(caught.value)


@pytest.mark.parametrize("name", ["rpicam-vid", "libcamera-vid"])
def test_a_raspberry_pi(programs: Path, name: str) -> None:
    add(programs, name, RPICAM_VID.format(python=sys.executable))
    with open_source("csi://1?size=128x96&fps=15") as source:
        assert source.fps == 15
        frame = next(source)
        assert frame.source == "csi://1"
        assert frame.image.shape == (96, 128, 3)
        assert np.unique(frame.image).tolist() == [77]
        assert np.unique(next(source).image).tolist() == [127]


def test_widths_that_would_come_padded_are_refused(programs: Path) -> None:
    add(programs, "rpicam-vid", RPICAM_VID.format(python=sys.executable))
    with pytest.raises(UsageError, match=r"multiple of that, not 800\.\nTry: csi://0\?size=832x600"):
        open_source("csi://0?size=800x600")
    with pytest.raises(UsageError, match="must be even, not 641x480"):
        open_source("csi://0?size=641x480")


def test_a_camera_that_fails(programs: Path) -> None:
    add(programs, "rpicam-vid", '#!/bin/sh\necho "ERROR: *** no cameras available ***" >&2\nexit 255\n')
    with pytest.raises(SourceError, match=r"csi://0 gives no picture\. rpicam-vid said: ERROR: \*\*\* no cameras"):
        open_source("csi://0")


def test_a_jetson(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    gst_launch = shutil.which("gst-launch-1.0")
    if gst_launch is None:
        pytest.skip("needs GStreamer: apt install gstreamer1.0-tools gstreamer1.0-plugins-base")
    add(programs, "gst-launch-1.0", GST_LAUNCH.format(gst_launch=gst_launch))
    add(programs, "gst-inspect-1.0", '#!/bin/sh\n[ "$*" = "--exists nvarguscamerasrc" ]\n')
    monkeypatch.setenv("PATH", f"{programs}:{os.defpath}")
    with open_source("csi://0?size=320x240&fps=20") as source:
        frames = [next(source) for _ in range(3)]
    for frame in frames:
        assert frame.image.shape == (240, 320, 3)
        assert frame.image.mean() > 250
    assert frames[2].captured_s - frames[1].captured_s > 0.02  # live, and not as fast as it goes


PICAMERA2 = '''
import time
import numpy as np

class Picamera2:
    """Answers like the real one; camera 1 is used by another program."""

    def __init__(self, camera_num):
        if camera_num > 1:
            raise IndexError("list index out of range")
        self.camera_num, self.count = camera_num, 0

    def create_video_configuration(self, main, controls):
        assert main["format"] == "BGR888"
        assert controls == {"FrameRate": 30.0}
        return main["size"]

    def configure(self, size):
        self.size = size

    def start(self):
        if self.camera_num == 1:
            raise RuntimeError("Camera __init__ sequence did not complete.")

    def capture_array(self, name, wait):
        assert (name, wait) == ("main", False)
        self.count += 1
        return self.count

    def wait(self, job, timeout):
        if job > 3:
            raise TimeoutError
        time.sleep(0.02)
        return np.full((self.size[1], self.size[0], 3), (job, 0, 255), np.uint8)

    def close(self):
        self.size = None
'''


def test_picamera2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picamera2.py").write_text(PICAMERA2)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    with open_source("csi://0?size=100x50") as source:
        frame = next(source)
        assert frame.image.shape == (50, 100, 3)
        assert frame.image[0, 0].tolist()[1:] == [0, 255]
        while source.counters().outages == 0:  # its fourth picture does not come
            frame = next(source)
        assert frame.image[0, 0, 0] <= 3
    with pytest.raises(SourceError, match=r"csi://1 gives no picture: Camera __init__ sequence"):
        open_source("csi://1")
    with pytest.raises(SourceError, match=r"csi://2 gives no picture: list index out of range"):
        open_source("csi://2")
    sys.modules.pop("picamera2")


def test_a_picamera2_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picamera2.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SourceError, match=r"cannot be imported: numpy.dtype size changed(.|\n)*system-site-packages"):
        open_source("csi://0")
