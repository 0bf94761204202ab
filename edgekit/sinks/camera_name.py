"""The name of a frame's camera where it becomes part of a topic, a label or an address."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.cameras import Frame

LONGEST = 48


def camera_name(frame: Frame) -> str:
    """``Frame.camera`` where the run gave the camera a name, otherwise one made of ``Frame.source``."""
    name = getattr(frame, "camera", None)
    return slug(name if isinstance(name, str) and name else _place(frame.source))


@lru_cache(maxsize=64)
def slug(text: str) -> str:
    """``text`` in the characters a-z, A-Z, 0-9, - and _, which mean nothing to MQTT, URLs or files: ``yard_door_2``."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")[:LONGEST].strip("_") or "camera"


def _place(source: str) -> str:
    """A picture of a folder is from the folder: a name a file would be a camera a frame."""
    if "://" in source or "/" not in source:
        return source
    folder, _, name = source.rpartition("/")
    if name.lower().endswith((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")):
        return folder.rpartition("/")[2] or "pictures"
    return name
