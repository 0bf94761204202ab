"""Keep OpenCV's and FFmpeg's own messages off stderr: edgekit's errors say the same in words that help."""

from __future__ import annotations

import os

import cv2


def silence_video_libraries() -> None:
    """Call before OpenCV opens its first video or camera.

    FFmpeg reads its log level once, from the environment; a level that the user has set there stays, and then OpenCV's
    own log (``OPENCV_LOG_LEVEL``) is left alone too.
    """
    if "OPENCV_LOG_LEVEL" in os.environ or "OPENCV_FFMPEG_LOGLEVEL" in os.environ:
        return
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # AV_LOG_QUIET
    _set_log_level()


def _set_log_level() -> None:
    logging = cv2.utils.logging
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
