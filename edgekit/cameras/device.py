"""USB cameras and other V4L2 devices of this machine: ``usb://0``, ``usb:///dev/v4l/by-id/...``."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
import sys
from functools import partial
from pathlib import Path

import cv2

from edgekit.cameras.live import LiveSource
from edgekit.cameras.opencv_capture import OpenCVCapture, first_picture
from edgekit.cameras.quiet import silence_video_libraries
from edgekit.cameras.uri import CameraOptions
from edgekit.errors import SourceError

log = logging.getLogger("edgekit")

FORMATS = {"mjpg": "MJPG", "yuyv": "YUYV"}
"""Pixel format of the query -> V4L2's code."""

VIDIOC_QUERYCAP = 0x80685600
V4L2_CAP_VIDEO_CAPTURE = 0x1 | 0x1000
V4L2_CAP_DEVICE_CAPS = 0x80000000
"""From linux/videodev2.h; 0x1000 is capture in several planes."""

FRAME_TIMEOUT_S = 5
"""A camera that gives nothing for so long hangs, and is opened again; OpenCV's own patience is 10 s."""

SETTLE_S = 0.01
"""A camera that is pulled out in the middle of a picture says so with the next one."""


def open_device(
    device: int | Path,
    options: CameraOptions | None = None,
    *,
    retries: float | None = None,
    max_age_s: float | None = None,
) -> LiveSource:
    """Open a camera by its index (``/dev/videoINDEX`` on Linux) or by a path.

    A path in ``/dev/v4l/by-id`` or ``by-path`` follows its camera: after it was pulled out and put back in, the index
    may be another one. ``retries`` and ``max_age_s`` are as :class:`LiveSource` has them.

    Raises:
        SourceError: there is no such camera, it may not be used, or it gives no picture; the message tells which.
    """
    silence_video_libraries()
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(FRAME_TIMEOUT_S))
    return LiveSource(
        partial(_open_capture, device, options or CameraOptions()),
        name=f"camera {device}",
        retries=retries,
        max_age_s=max_age_s,
        settle_s=SETTLE_S,
    )


def list_devices(dev: Path = Path("/dev")) -> dict[int, str]:
    """Index -> name of the cameras of this Linux machine, as far as ``dev`` shows them.

    Nodes that say that they are none are left out: most USB cameras have a second one for metadata, and a Raspberry Pi
    has a dozen for its codecs.
    """
    devices = {}
    for path in dev.glob("video*"):
        suffix = path.name.removeprefix("video")
        if suffix.isdigit() and _may_capture(path):
            label = Path(f"/sys/class/video4linux/{path.name}/name")
            devices[int(suffix)] = label.read_text().strip() if label.is_file() else ""
    return dict(sorted(devices.items()))


def _may_capture(path: Path) -> bool:
    """Whether the driver says that pictures come from this node, or does not say anything."""
    capability = bytearray(104)  # struct v4l2_capability
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # not ours to open, or in use: it may well be a camera
        return True
    try:
        fcntl.ioctl(fd, VIDIOC_QUERYCAP, capability)
    except OSError:
        return True
    finally:
        os.close(fd)
    return captures(capability)


def captures(capability: bytes | bytearray) -> bool:
    """Whether a ``struct v4l2_capability`` is that of a camera."""
    of_driver, of_node = struct.unpack_from("=II", capability, 84)
    flags = of_node if of_driver & V4L2_CAP_DEVICE_CAPS else of_driver
    return bool(flags & V4L2_CAP_VIDEO_CAPTURE)


def why_no_camera(device: int | Path, dev: Path = Path("/dev")) -> str:
    """What to tell someone whose camera did not open: what is there, the likely cause, the next command."""
    devices = list_devices(dev)
    path = dev / f"video{device}" if isinstance(device, int) else device
    here = ", ".join(
        f"{dev / f'video{n}'} ({label})" if label else f"{dev / f'video{n}'}" for n, label in devices.items()
    )
    if not os.path.lexists(path):
        others = [n for n in devices if n != device]
        cause = "no camera is plugged in, or its driver is not loaded" if not devices else "the index is another one"
        command = f"edgekit run --camera {others[0]}" if others else "edgekit run --source demo"
        return (
            f"no camera {device}: {path} does not exist. Video devices here: {here or 'none'}.\n"
            f"Likely cause: {cause}.\nTry: {command}"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return (
            f"camera {device} cannot be opened: this user may not read and write {path}.\n"
            "Likely cause: the user is not in the group `video`.\n"
            "Try: sudo usermod -aG video $USER, then log in again"
        )
    if user := who_uses(path):
        return (
            f"camera {device} ({path}) is busy: {user} uses it, and a camera serves one program at a time.\n"
            "Try: end that program, or let it serve a network stream and give its URL"
        )
    return (
        f"camera {device} ({path}) is there but gives no picture. Video devices here: {here or 'none'}.\n"
        "Likely cause: another program uses it, it is not the capture device of its camera (try the next index), or it"
        " is a Raspberry Pi ribbon-cable camera, which speaks libcamera and not V4L2.\n"
        f"Try: fuser -v {path}; for a ribbon-cable camera: edgekit run --source csi://0 (picamera2 or rpicam-vid)"
    )


def who_uses(path: Path, proc: Path = Path("/proc")) -> str | None:
    """``name (process 123)`` of another program that has ``path`` open, as far as this user may see."""
    wanted = os.path.realpath(path)
    for folder in proc.glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        try:
            if any(os.path.realpath(handle) == wanted for handle in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
        except OSError:  # another user's, or just gone
            continue
    return None


def _open_capture(device: int | Path, options: CameraOptions) -> OpenCVCapture:
    if sys.platform.startswith("linux"):
        path = Path(f"/dev/video{device}") if isinstance(device, int) else device
        # Looked up at each attempt: where the link of a camera leads changes when it is put back in.
        real = os.path.realpath(path)
        index = re.fullmatch(r"/dev/video([0-9]{1,9})", real)
        capture = cv2.VideoCapture(int(index[1]), cv2.CAP_V4L2) if index else cv2.VideoCapture(real, cv2.CAP_V4L2)
    else:
        capture = cv2.VideoCapture(device if isinstance(device, int) else str(device), cv2.CAP_ANY)
    if capture.isOpened():
        configure(capture, options)
        if (opened := first_picture(capture)) is not None:
            return opened
    capture.release()
    raise SourceError(why_no_camera(device))


def configure(capture: cv2.VideoCapture, options: CameraOptions) -> None:
    """Ask for format, size and rate, in this order, which drivers want; warn where the camera has another."""
    # Raw YUYV fills a USB 2 link at 640x480 and halves the frame rate; a camera without MJPEG ignores this.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*FORMATS[options.format or "mjpg"]))
    wishes = {
        "width": (cv2.CAP_PROP_FRAME_WIDTH, options.width),
        "height": (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
        "fps": (cv2.CAP_PROP_FPS, options.fps),
    }
    for key, wish in wishes.values():
        if wish is not None:
            capture.set(key, wish)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    for name, (key, wish) in wishes.items():
        got = capture.get(key)
        if wish is not None and abs(got - wish) > 0.5:
            log.warning("the camera has no %s %g: it takes %g (v4l2-ctl --list-formats-ext lists all)", name, wish, got)
