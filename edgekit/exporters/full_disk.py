"""Saying that the disk was full where an engine's own writer does not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.bundle import BundleWriter
from edgekit.errors import EngineError, GateError, StorageError


@contextmanager
def full_disk_named(writer: BundleWriter, needed_bytes: int) -> Iterator[None]:
    """Engines' own writers do not say that the disk was full, or only in passing: after a failure, look.

    ``needed_bytes`` is about the size of the bundle; a disk with less left is to blame.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if isinstance(error, GateError) and not isinstance(error.__cause__, EngineError):
            raise  # what was written could be read back and measured
        for folder in (writer.folder, Path(tempfile.gettempdir())):
            free = shutil.disk_usage(folder).free
            if free < needed_bytes:
                raise StorageError(
                    f"the export failed with {free / 1e6:.1f} MB free on the disk of {folder.parent}, where it needs"
                    f" about {needed_bytes / 1e6:.0f}: {error}\n"
                    "Nothing was left behind. Free some space, or choose another place with -o (or TMPDIR)."
                ) from error
        raise
