"""Keep OpenCV's and FFmpeg's own messages off stderr: edgekit's errors say the same in words that help."""

from __future__ import annotations

import os

import cv2


def silence_video_libraries() -> None:
    """Call before OpenCV opens its first video or camera.

    A level that the user has set in the environment stays (``OPENCV_LOG_LEVEL``, ``OPENCV_FFMPEG_LOGLEVEL``). FFmpeg
    reads its own once, at the first video of the process.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
