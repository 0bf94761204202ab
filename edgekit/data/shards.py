"""Webdataset shards: tar files in which the parts of a sample have one key, ``KEY.jpg`` and ``KEY.txt``.

A shard is scanned once for where each part lies; parts are then read in any order. Compressed tars have no such places
and are refused. The convention: github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import glob
import tarfile
from pathlib import Path

from edgekit.errors import DataError

LARGEST_PART = 256 * 2**20
"""Bytes; a part that says it is larger is not read."""


def find_shards(text: str) -> list[Path]:
    """The shards that a file, a folder or a glob names, in the order of their names; none if it names none."""
    path = Path(text)
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    found = [path] if path.is_file() else [Path(name) for name in glob.glob(text, recursive=True)]
    return sorted(file for file in found if file.suffix == ".tar" and file.is_file())


def scan_shard(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """By key, by suffix in small letters (".jpg"): (first byte, number of bytes) of each part.

    As webdataset does, a key ends at the first dot of a file's name; the folder belongs to the key.

    Raises:
        DataError: the file is missing, truncated, compressed or no tar, or a part is larger than 256 MiB.
    """
    parts: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > LARGEST_PART:
                    raise DataError(f"{path}: {member.name} is said to have {member.size} bytes; is the shard damaged?")
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                parts.setdefault(key, {})[f".{suffix.lower()}"] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"the shard {path} cannot be read as an uncompressed tar: {error}") from error
    return parts


def read_part(path: Path, first: int, count: int) -> bytes:
    """``count`` bytes of ``path`` from ``first``; raises ``OSError`` if they are not there."""
    with path.open("rb") as file:
        file.seek(first)
        content = file.read(count)
    if len(content) != count:
        raise OSError(f"{len(content)} of {count} bytes are there; the shard is truncated")
    return content
