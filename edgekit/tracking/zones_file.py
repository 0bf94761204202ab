"""A zones file that may change while it is used: the browser page saves it, people edit it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from edgekit.errors import StorageError, UsageError
from edgekit.tracking.zones import Zones, read_zones, zones_document

log = logging.getLogger("edgekit")

Stamp = tuple[int, int, int] | None
"""What tells one state of a file from another: time of change, size, inode. None where it cannot be read."""


class ZonesFile:
    """The zones of a file as it is now."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; raises :class:`UsageError` when it is missing or malformed."""
        self.path = path
        self._stamp = _stamp(path)
        self.zones = read_zones(path)
        self.version = 0
        """How often ``zones`` became others."""

    def refresh(self) -> bool:
        """Read the file again if it was changed; whether ``zones`` are others now.

        Cheap enough for every frame. A file that is missing or malformed leaves the zones as they were, and is said in
        one line of the log each time it changes.
        """
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.zones = read_zones(self.path)
        except UsageError as error:
            _say(self.path, stamp, logging.WARNING, f"the zones stay as they were: {' '.join(str(error).split())}")
            return False
        self.version += 1
        counts = f"{len(self.zones.zones)} polygons, {len(self.zones.lines)} lines"
        _say(self.path, stamp, logging.INFO, f"new zones in {self.path}: {counts}")
        return True


_said: dict[Path, Stamp] = {}
"""The state of each file of which something was said last: the mask, events and the page may all use one."""


def _say(path: Path, stamp: Stamp, level: int, message: str) -> None:
    if path not in _said or _said[path] != stamp:
        _said[path] = stamp
        log.log(level, "%s", message)


def save_zones(path: Path, zones: Zones) -> None:
    """Write ``zones`` to ``path``: at any moment there is either the old file or the new one.

    Raises:
        StorageError: it cannot be written; the old file is untouched.
    """
    new = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            new = Path(file.name)
            file.write(zones_document(zones))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, new)
        else:
            new.chmod(0o644)  # a temporary file is its owner's alone
        new.replace(path)
    except OSError as error:
        raise StorageError(
            f"the zones {path} cannot be written: {error.strerror or error}\nThe file is as it was before."
        ) from error
    finally:
        if new is not None:
            new.unlink(missing_ok=True)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
