"""One output, one run: a second one that writes to the same file would mix its lines with the first one's."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from edgekit.errors import StorageError


def claim(path: Path, what: str, *, named: Path | None = None) -> int:
    """Open ``path`` for writing, without emptying it, and keep other runs away until the descriptor is closed.

    Args:
        path: what is opened.
        what: completes "... cannot be written to PATH".
        named: what messages call the file, if it is not the one that the user named.

    Raises:
        StorageError: it cannot be opened, or another run writes to it.
    """
    named = named or path
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(f"{what} cannot be written to {named}: {error.strerror}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise StorageError(
            f"{what} cannot be written to {named}: another run is writing to it.\n"
            "Stop that one, or choose another name."
        ) from error
    except OSError:  # a file system without locks: nobody can be kept away
        return file
    return file


def empty(file: int) -> None:
    """Begin a claimed file anew; a device or pipe has no length."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
