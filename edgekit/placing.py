"""Putting something finished in its place: on the disk, and by one rename, so that nobody ever sees a part of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def flush(path: Path) -> None:
    """Force a file, or a folder with all its files, to the disk; raises ``OSError``."""
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        flush_entry(entry)


def flush_entry(path: Path) -> None:
    """The same for a file, or for the list of names in a folder."""
    if path.is_dir() and os.name != "posix":
        return  # only POSIX systems open folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place(source: Path, destination: Path) -> None:
    """Rename ``source`` to ``destination``; an old folder there steps aside first, and comes back on failure.

    Raises ``OSError``; what was there before is then untouched.
    """
    if not destination.exists() or (source.is_file() and destination.is_file()):
        source.replace(destination)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".old", dir=destination.parent))
    old = aside / destination.name
    try:
        destination.rename(old)
        try:
            source.rename(destination)
        except OSError:
            old.rename(destination)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
