"""Unpacking a zipped bundle from an untrusted source.

The manifest is read first, within a limit; after that each file may be exactly as large as the manifest says, whatever
the zip's own directory claims. Names, duplicates, links, encryption and compression methods are checked before the
first byte is written.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO

from edgekit.bundle.fields import parse_json
from edgekit.bundle.head import MAX_FILES, NAME
from edgekit.bundle.listed import FileEntry
from edgekit.bundle.paths import check_distinct, check_path
from edgekit.bundle.tasks import read_manifest
from edgekit.errors import BundleIntegrityError, BundlePathError, StorageError

MAX_RATIO = 200
"""Files together may be at most this many times the zip: trained weights shrink by a half, bombs a thousandfold."""

_BLOCK = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
"""What ``zipfile`` raises on damaged, encrypted or exotic archives."""


def unpack(path: Path, root: Path, *, max_manifest_bytes: int) -> None:
    """Unpack the zip ``path`` into the empty folder ``root``.

    Raises:
        BundleError: the manifest is malformed.
        BundleIntegrityError: the zip is damaged, or its files are not the manifest's.
        BundlePathError: an entry leads outside, is a link or appears twice.
        StorageError: ``root`` cannot be written.
    """
    with _damage(path), zipfile.ZipFile(path) as archive:
        entries = _entries(archive)
        if NAME not in entries:
            raise BundleIntegrityError(_no_manifest(path, entries))
        with archive.open(entries[NAME]) as stream:
            text = read_limited(stream, max_manifest_bytes, NAME)
        files = read_manifest(parse_json(text, NAME)).files
        _compare(entries, files, path)
        _write(root / NAME, [text])
        for name, entry in files.items():
            _write(root / name, _blocks(archive, entries[name], entry))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise BundleIntegrityError(
            f"{path} is no zip file, or a damaged one: {error}\nA bundle is a folder or a zip file; copy it again."
        ) from error
    except OSError as error:
        raise BundleIntegrityError(f"{path} cannot be read: {error.strerror or error}") from error


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of the archive by name, after the checks that need no decompression."""
    infos = archive.infolist()
    if len(infos) > 2 * MAX_FILES:
        raise BundleIntegrityError(f"the zip has {len(infos)} entries; a bundle has at most {MAX_FILES} files")
    for info in infos:
        # orig_filename: zipfile cuts `filename` at a NUL and turns some separators into slashes.
        check_path(info.orig_filename.removesuffix("/"), "the zip")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BundlePathError(
                f"the zip: {info.filename!r} is a symbolic link or a device; a bundle holds plain files"
            )
        if info.flag_bits & 1:
            raise BundleIntegrityError(f"the zip: {info.filename!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleIntegrityError(f"the zip: {info.filename!r} is compressed by another method than deflate")
    files = [info for info in infos if not info.is_dir()]
    check_distinct([info.filename for info in files], "the zip")
    return {info.filename: info for info in files}


def _no_manifest(path: Path, entries: dict[str, zipfile.ZipInfo]) -> str:
    nested = [name for name in entries if name.endswith(f"/{NAME}")]
    if nested:
        return f"{path} has {nested[0]!r} where {NAME!r} is expected: zip the folder's contents, not the folder"
    return f"{path} has no {NAME}, so it is no bundle; make one with: edgekit export CHECKPOINT -o NAME.edgekit"


def read_limited(stream: IO[bytes], limit: int, name: str) -> bytes:
    """All of ``stream``; raises :class:`BundleIntegrityError` if it is longer than ``limit`` bytes."""
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleIntegrityError(f"{name} is larger than {limit} bytes")
    return data


def _compare(entries: dict[str, zipfile.ZipInfo], files: Mapping[str, FileEntry], path: Path) -> None:
    """Refuse files too many or too few, and an archive that promises far more than it holds."""
    if missing := sorted(set(files) - set(entries)):
        raise BundleIntegrityError(f"{missing[0]} is missing from the bundle {path}; copy the bundle again")
    if extra := sorted(set(entries) - set(files) - {NAME}):
        raise BundleIntegrityError(f"{extra[0]!r} is in the bundle {path} but not listed in {NAME}")
    total = sum(entry.bytes for entry in files.values())
    if total > MAX_RATIO * path.stat().st_size:
        raise BundleIntegrityError(
            f"{path} would unpack to {total} bytes, more than {MAX_RATIO} times its own size; it is not a real bundle"
        )


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: FileEntry) -> Iterator[bytes]:
    """The content, and not one byte more than the manifest says."""
    left = entry.bytes
    with archive.open(info) as stream:
        while block := stream.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise BundleIntegrityError(f"{info.filename} unpacks to more than the {entry.bytes} bytes of {NAME}")
            yield block


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    """Write ``blocks``; a failure to write is told apart from a failure to read them."""
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("xb", buffering=0)  # unbuffered: a full disk shows at once, not again when it is closed
    with stream:
        for block in blocks:
            with storing(path.parent):
                _write_whole(stream, block)


def _write_whole(stream: RawIOBase, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[stream.write(left) or 0 :]


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Raise an ``OSError`` of writing to ``folder`` as :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the bundle cannot be unpacked to {folder}: {error.strerror or error}\n"
            "Free some space, or set TMPDIR to a folder that has it."
        ) from error
