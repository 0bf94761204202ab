"""Ribbon-cable (CSI) cameras of a Raspberry Pi or Jetson, which OpenCV from PyPI cannot open.

The first of these that is installed reads the camera:

=================================== =====================================================================
picamera2                           Raspberry Pi OS: ``apt install python3-picamera2``
``rpicam-vid``, ``libcamera-vid``   Raspberry Pi OS, also Lite: ``apt install rpicam-apps-lite``
``gst-launch-1.0 nvarguscamerasrc`` Jetson: comes with JetPack
=================================== =====================================================================

The programs write raw frames into a pipe: nothing is encoded on the way, and OpenCV needs no GStreamer.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekit.cameras.live import Capture, LiveSource
from edgekit.cameras.raw_frames import ProgramCapture
from edgekit.cameras.uri import CameraOptions, RawOptions
from edgekit.errors import SourceError, UsageError
from edgekit.opencv import require_opencv

HEIGHT, WIDTH, FPS = 720, 1280, 30.0
"""Where the query says nothing: what every sensor of these boards does without cropping much."""

ALIGNED_WIDTH = 64
"""The Raspberry Pi's camera pads each line to a multiple of this, and rpicam-vid writes the padding too."""


def open_csi(
    index: int, options: CameraOptions, *, retries: float | None = None, max_age_s: float | None = None
) -> LiveSource:
    """Open ribbon-cable camera ``index``; ``retries`` and ``max_age_s`` as :class:`LiveSource` has them.

    Raises:
        SourceError: nothing here can read such a camera, or the camera does not work.
        UsageError: a width that its program cannot do.
        MissingDependencyError: OpenCV, which all but picamera2 need, is not installed.
    """
    raw = RawOptions(
        height=options.height or HEIGHT, width=options.width or WIDTH, fps=options.fps or FPS, format="yuvj420p"
    )
    if raw.height % 2 or raw.width % 2:
        raise UsageError(f"csi://{index}: width and height must be even, not {raw.width}x{raw.height}")
    opener = _find_opener(index, raw)
    return LiveSource(opener, name=f"csi://{index}", retries=retries, max_age_s=max_age_s)


def _find_opener(index: int, raw: RawOptions) -> Callable[[], Capture]:
    name = f"csi://{index}"
    if importlib.util.find_spec("picamera2") is not None:
        from edgekit.cameras.picamera import PicameraCapture

        return lambda: PicameraCapture(index, raw)
    require_opencv("convert a camera's YUV")
    for program in ("rpicam-vid", "libcamera-vid"):
        if shutil.which(program):
            if raw.width % ALIGNED_WIDTH:
                wider = -(-raw.width // ALIGNED_WIDTH) * ALIGNED_WIDTH
                raise UsageError(
                    f"{name}: {program} pads lines to {ALIGNED_WIDTH} pixels, so the width must be a multiple of that,"
                    f" not {raw.width}.\nTry: {name}?size={wider}x{raw.height},"
                    " or install picamera2, which can do without"
                )
            command = _rpicam_command(program, index, raw)
            return lambda: ProgramCapture(command, raw, what=name)
    if _has_argus():
        video = replace(raw, format="yuv420p")
        return lambda: ProgramCapture(_argus_command(index, video), video, what=name)
    raise SourceError(
        f"{name}: nothing on this machine can read a ribbon-cable camera: there is no picamera2 for this Python, no"
        " rpicam-vid and no GStreamer with nvarguscamerasrc.\n"
        "On a Raspberry Pi: sudo apt install rpicam-apps-lite (or python3-picamera2, with a virtual environment made by"
        " python3 -m venv --system-site-packages).\n"
        "On a Jetson they come with JetPack: sudo apt install nvidia-l4t-gstreamer gstreamer1.0-tools"
    )


def _rpicam_command(program: str, index: int, raw: RawOptions) -> Callable[[int], Sequence[str]]:
    # Full range, since rpicam-vid asks for the JPEG colour space where the codec is yuv420.
    return lambda fd: [
        program, "--timeout", "0", "--nopreview", "--verbose", "0", "--flush", "--camera", str(index),
        "--width", str(raw.width), "--height", str(raw.height), "--framerate", f"{raw.fps:g}",
        "--codec", "yuv420", "--output", f"/dev/fd/{fd}",
    ]  # fmt: skip


def _argus_command(index: int, raw: RawOptions) -> Callable[[int], Sequence[str]]:
    caps = f"width={raw.width},height={raw.height}"
    return lambda fd: [
        "gst-launch-1.0", "-q",
        "nvarguscamerasrc", f"sensor-id={index}", "!",
        f"video/x-raw(memory:NVMM),{caps},framerate={round((raw.fps or FPS) * 1000)}/1000", "!",
        "nvvidconv", "!", f"video/x-raw,format=I420,{caps}", "!",
        "fdsink", f"fd={fd}", "sync=false",
    ]  # fmt: skip


def _has_argus() -> bool:
    """Whether GStreamer knows the Jetson's camera."""
    if shutil.which("gst-launch-1.0") is None or shutil.which("gst-inspect-1.0") is None:
        return False
    command = ["gst-inspect-1.0", "--exists", "nvarguscamerasrc"]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
