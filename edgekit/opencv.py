"""OpenCV is for cameras, videos and drawing: a program that brings its own frames does without.

It is an extra because the wheel is larger than all the rest together, and because boards come with a build of their own
(a Jetson's has GStreamer) that the one from pip would hide.
"""

from __future__ import annotations

import importlib

from edgekit.errors import MissingDependencyError


def require_opencv(purpose: str, *, extra: str = "camera") -> None:
    """Call before importing a module that imports ``cv2``.

    Args:
        purpose: completes "is needed to ...".
        extra: the one to name, which brings OpenCV and whatever else ``purpose`` needs.

    Raises:
        MissingDependencyError: there is no OpenCV. One that is there but broken raises its own error.
    """
    try:
        importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise MissingDependencyError("OpenCV", extra, purpose) from error
