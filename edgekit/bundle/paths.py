"""Which names a file of a bundle may have: the rule is narrow, so that nothing can lead outside on any system."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgekit.errors import BundlePathError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
MAX_LENGTH = 200


def check_path(name: str, where: str) -> str:
    """``name``, if it is a plain relative path such as ``detector.onnx`` or ``graphs/omg.tflite``.

    Args:
        name: the path as the bundle spells it.
        where: what the message calls its place.

    Raises:
        BundlePathError: it is absolute, has ``..``, a backslash, a drive or a character outside A-Z a-z 0-9 _ . - /.
    """
    reason = _fault(name)
    if reason:
        shown = repr(name if len(name) <= 60 else name[:57] + "...")
        raise BundlePathError(
            f"{where}: the path {shown} {reason}; a bundle may name only files inside itself.\n"
            "Do not use this bundle unless you know who made it."
        )
    return name


def check_distinct(names: Iterable[str], where: str) -> None:
    """Raise :class:`BundlePathError` if two names of files are equal, or would be on a disk that ignores case.

    Also if one is a folder of another.
    """
    names = list(names)
    folded = [name.casefold() for name in names]
    folders = {"/".join(name.split("/")[:depth]) for name in folded for depth in range(1, name.count("/") + 1)}
    for i, name in enumerate(folded):
        if name in folded[:i]:
            raise BundlePathError(f"{where}: {names[i]!r} and {names[folded.index(name)]!r} are the same file")
        if name in folders:
            raise BundlePathError(f"{where}: {names[i]!r} is both a file and a folder")


def _fault(name: str) -> str:
    if "\\" in name:
        return "has a backslash"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is absolute"
    parts = name.split("/")
    if ".." in parts:
        return "leads outside with '..'"
    if len(name) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if not all(_PART.fullmatch(part) for part in parts):
        return "has an empty part, a leading dot or a character other than A-Z a-z 0-9 _ . -"
    return ""
