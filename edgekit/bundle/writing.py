"""Writing a bundle so that there is either a whole one or none.

Files go into a hidden folder beside the destination; ``finish`` checks the manifest with the same code that will read
it, flushes everything to the disk and renames. Whatever goes wrong before that, the hidden folder is removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit import interruption
from edgekit.bundle.head import FORMAT, NAME, VERSION, Head
from edgekit.bundle.paths import check_path
from edgekit.bundle.tasks import read_manifest
from edgekit.errors import StorageError, UsageError
from edgekit.placing import flush, flush_entry, place

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}
"""Failures of the disk, whoever wrote: an exporter's own OSError with one of these becomes a StorageError too."""

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Equal content gives equal zip files."""


class BundleWriter:
    """Makes one bundle.

    >>> with BundleWriter(Path("x.edgekit")) as writer:
    ...     export_graph(writer.path("detector.onnx"))
    ...     writer.add_bytes("notes.txt", b"...")
    ...     manifest = writer.finish({"name": "x", ...})   # without "format", "version" and "files"
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, zipped: bool = False) -> None:
        """Prepare to write ``path``: a folder, or one file with ``zipped``.

        Raises:
            UsageError: something is there already, and ``overwrite`` is off or it is no bundle.
        """
        self.destination = Path(path)
        self.zipped = zipped
        _check_destination(self.destination, overwrite)
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """The hidden folder; only inside the ``with`` block, before ``finish``."""
        assert self._folder is not None, "use BundleWriter in a with statement, and nothing after finish()"
        return self._folder

    def __enter__(self) -> BundleWriter:
        parent = self.destination.parent
        folder = parent / f".{self.destination.name}.{secrets.token_hex(8)}.partial"
        try:
            with self._storage():
                parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
                folder.chmod(0o755)  # whatever the umask: the bundle is to be copied by others
            self._folder = folder
        except BaseException:  # a Ctrl-C as well: __exit__ is not called before this has returned
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if isinstance(error, OSError) and error.errno in _DISK:
            raise self._storage_error(error) from error

    def path(self, name: str) -> Path:
        """Where to write the file ``name`` of the bundle; its folder exists."""
        interruption.check()
        path = self.folder / check_path(name, "the new bundle")
        with self._storage():
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add_bytes(self, name: str, data: bytes) -> None:
        """Write ``data`` as the file ``name``."""
        path = self.path(name)
        with self._storage():
            path.write_bytes(data)

    def add_file(self, name: str, source: Path) -> None:
        """Copy ``source`` as the file ``name``."""
        path = self.path(name)
        with self._storage():
            shutil.copyfile(source, path)

    def finish(self, manifest: Mapping[str, Any]) -> Head:
        """Write ``bundle.json`` and put the bundle at its place.

        Args:
            manifest: everything but ``format``, ``version`` and ``files``, which are filled in.

        Raises:
            BundleError: the manifest would not be readable; nothing is left.
            StorageError: writing failed; nothing is left, and what was there before is untouched.
        """
        with self._storage():
            document = {"format": FORMAT, "version": VERSION, **manifest, "files": _describe(self.folder)}
            checked = read_manifest(json.loads(json.dumps(document)))
            (self.folder / NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            result = _zip(self.folder) if self.zipped else self.folder
            flush(result)
            interruption.check()
            place(result, self.destination)
            flush_entry(self.destination.parent)
        if not self.zipped:
            self._folder = None
        return checked

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(
            f"the bundle {self.destination} cannot be written: {error.strerror or error}\n"
            "Nothing was left behind. Free some space, or choose another place with -o."
        )


def _check_destination(path: Path, overwrite: bool) -> None:
    """Refuse to replace anything by accident, and anything but a bundle at all."""
    if not path.name:
        raise UsageError(f"{str(path)!r} cannot be the path of a bundle; choose a name such as model.edgekit")
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise UsageError(f"{path} exists already; choose another name with -o, or pass --overwrite")
    if path.is_symlink() or not _is_replaceable(path):
        raise UsageError(f"{path} is not a bundle, so it is not replaced; choose another name with -o")


def _is_replaceable(path: Path) -> bool:
    """An empty folder, or something with a ``bundle.json`` in it."""
    if path.is_dir():
        return (path / NAME).is_file() or not any(path.iterdir())
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return NAME in archive.namelist()


def _describe(folder: Path) -> dict[str, dict[str, str | int]]:
    """Size and hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    return {path.relative_to(folder).as_posix(): _entry(path) for path in files}


def _entry(path: Path) -> dict[str, str | int]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _zip(folder: Path) -> Path:
    """The files of ``folder`` as a zip, inside ``folder``, so that it disappears with it when something fails."""
    target = folder / ".bundle.zip"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    return target
