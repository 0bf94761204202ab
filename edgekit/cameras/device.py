"""Cameras attached to this machine, by index."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import cv2

from edgekit.cameras.live import LiveSource
from edgekit.cameras.quiet import silence_video_libraries
from edgekit.errors import SourceError


def open_device(index: int) -> LiveSource:
    """Open camera ``index`` (``/dev/videoINDEX`` on Linux).

    Raises:
        SourceError: there is no such camera, it may not be used, or it gives no picture; the message tells which.
    """
    silence_video_libraries()
    capture = _open_capture(index)
    if capture is None:
        raise SourceError(why_no_camera(index))
    return LiveSource(partial(_open_capture, index), name=f"camera {index}", capture=capture)


def list_devices(dev: Path = Path("/dev")) -> dict[int, str]:
    """Index -> name of the video devices of this Linux machine, as far as ``dev`` shows them."""
    devices = {}
    for path in dev.glob("video*"):
        suffix = path.name.removeprefix("video")
        if suffix.isdigit():
            label = Path(f"/sys/class/video4linux/{path.name}/name")
            devices[int(suffix)] = label.read_text().strip() if label.is_file() else ""
    return dict(sorted(devices.items()))


def why_no_camera(index: int, dev: Path = Path("/dev")) -> str:
    """What to tell someone whose camera ``index`` did not open: what is there, the likely cause, the next command."""
    devices = list_devices(dev)
    path = dev / f"video{index}"
    here = ", ".join(
        f"{dev / f'video{n}'} ({label})" if label else f"{dev / f'video{n}'}" for n, label in devices.items()
    )
    if index not in devices:
        others = [n for n in devices if n != index]
        cause = "no camera is plugged in, or its driver is not loaded" if not devices else "the index is another one"
        command = f"edgekit run --camera {others[0]}" if others else "edgekit run --source demo"
        return (
            f"no camera {index}: {path} does not exist. Video devices here: {here or 'none'}.\n"
            f"Likely cause: {cause}.\nTry: {command}"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return (
            f"camera {index} cannot be opened: this user may not read and write {path}.\n"
            "Likely cause: the user is not in the group `video`.\n"
            "Try: sudo usermod -aG video $USER, then log in again"
        )
    return (
        f"camera {index} ({path}) is there but gives no picture. Video devices here: {here}.\n"
        "Likely cause: another program uses it, it is not the capture device of its camera (try the next index), or it"
        " is a Raspberry Pi ribbon-cable camera, which speaks libcamera and not V4L2.\n"
        f"Try: fuser -v {path}; for a ribbon-cable camera serve it with `rpicam-vid -t 0 -n --inline --listen -o"
        " tcp://0.0.0.0:8888` and give --source tcp://127.0.0.1:8888"
    )


def _open_capture(index: int) -> cv2.VideoCapture | None:
    backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
    capture = cv2.VideoCapture(index, backend)
    if capture.isOpened():
        # Raw YUYV fills a USB 2 link at 640x480 and halves the frame rate; a camera without MJPEG ignores this.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if capture.read()[0]:
            return capture
    capture.release()
    return None
