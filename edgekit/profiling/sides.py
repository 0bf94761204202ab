"""``HxW`` of a benchmark's ``--imgsz``."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.errors import UsageError


def read_sides(text: str, fits: Callable[[int], bool], *, wanted: str) -> tuple[int, int]:
    """Height and width.

    Args:
        text: what was typed.
        fits: whether a side in pixels can be taken.
        wanted: which can, with an example, completing "expected rows and columns".

    Raises:
        UsageError: these are not two such numbers.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and fits(int(part)) for part in parts):
        raise UsageError(f"--imgsz: expected rows and columns{wanted}, got {text!r}")
    return int(parts[0]), int(parts[1])
