"""Opening a bundle: structure, paths and every hash are checked before anything is loaded."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.archive import read_limited, storing, unpack
from edgekit.bundle.fields import parse_json
from edgekit.bundle.head import MAX_FILES, NAME, Head
from edgekit.bundle.listed import FileEntry
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.segmentation_manifest import SegmentationManifest
from edgekit.bundle.tasks import read_manifest
from edgekit.errors import BundleError, BundleIntegrityError, BundlePathError, UsageError

MAX_MANIFEST_BYTES = 4 << 20
IGNORED = frozenset({".DS_Store"})
"""Files that a file manager leaves behind, in folders only."""


@dataclass(frozen=True, kw_only=True)
class AnyBundle:
    """An open bundle of any task whose files match their hashes."""

    path: Path
    """What was opened: the folder or the zip file."""

    root: Path
    """The folder with the files; of a zip, a temporary one that goes when this object does."""

    manifest: Head

    def graph(self, name: str, engine: str | None = None) -> Path:
        """The file of the graph ``name``, one of ``spec.graphs``: what ``engine``, one of the choices, runs."""
        manifest = self.manifest
        return self.root / (manifest.graphs if engine is None else manifest.graphs_of(engine))[name]

    def file(self, name: str) -> Path:
        """The file that the manifest lists as ``name``."""
        assert name in self.manifest.files
        return self.root / name


@dataclass(frozen=True, kw_only=True)
class Bundle(AnyBundle):
    """A detector's."""

    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class SegmentationBundle(AnyBundle):
    """A segmenter's."""

    manifest: SegmentationManifest


def open_bundle(path: str | Path) -> Bundle:
    """Open a detector's bundle: a folder, or one zip file.

    Raises:
        UsageError: it is no detector's.
        BundleError: nothing is there, or ``bundle.json`` is malformed.
        BundleIntegrityError: a file is missing, too many, truncated or does not match its hash.
        BundlePathError: a path leads outside the bundle, or is a link.
        StorageError: a zip cannot be unpacked to the temporary folder.
    """
    bundle = open_any_bundle(path)
    if isinstance(bundle, Bundle):
        return bundle
    raise UsageError(
        f"{path} segments pictures by words; what is asked for here needs a detector.\n"
        f"See what it is with: edgekit info {path}   and measure it with: edgekit val tcl {path} --data DIR"
    )


def open_segmentation_bundle(path: str | Path) -> SegmentationBundle:
    """Open a segmenter's bundle; raises as :func:`open_bundle`, ``UsageError`` where it is no segmenter's."""
    bundle = open_any_bundle(path)
    if isinstance(bundle, SegmentationBundle):
        return bundle
    raise UsageError(
        f"{path} detects objects; what is asked for here needs a bundle that segments by words.\n"
        'Make one with: edgekit export tcl.pt --prompts "person, red car" -o NAME.edgekit'
    )


def open_any_bundle(path: str | Path) -> AnyBundle:
    """Open a bundle of any task: a :class:`Bundle` or a :class:`SegmentationBundle`; raises as :func:`open_bundle`."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BundleError(f"there is no bundle at {path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise BundleError(f"{str(path)!r} cannot be the path of a bundle: {error}") from error
    if stat.S_ISDIR(mode):
        return _bundle(path=path, root=path, manifest=_check_folder(path))
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path} is neither a folder nor a file; a bundle is one of them")
    return _open_zip(path)


def _bundle(*, path: Path, root: Path, manifest: Head) -> AnyBundle:
    if isinstance(manifest, SegmentationManifest):
        return SegmentationBundle(path=path, root=root, manifest=manifest)
    assert isinstance(manifest, Manifest)
    return Bundle(path=path, root=root, manifest=manifest)


def _open_zip(path: Path) -> AnyBundle:
    with storing(Path(tempfile.gettempdir())):
        root = Path(tempfile.mkdtemp(prefix="edgekit-bundle-"))
    try:
        unpack(path, root, max_manifest_bytes=MAX_MANIFEST_BYTES)
        bundle = _bundle(path=path, root=root, manifest=_check_folder(root))
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    weakref.finalize(bundle, shutil.rmtree, str(root), True)
    return bundle


def _check_folder(root: Path) -> Head:
    """The manifest of the folder ``root``, after everything in it has been compared with it."""
    try:
        found = _list_files(root)
    except OSError as error:
        raise BundleIntegrityError(f"the bundle {root} cannot be read: {error.strerror or error}") from error
    if NAME not in found:
        raise BundleIntegrityError(
            f"{root} has no {NAME}, so it is no bundle, or an incomplete one.\n"
            "Make a bundle with: edgekit export CHECKPOINT -o NAME.edgekit"
        )
    manifest = read_manifest(parse_json(_read(root / NAME, MAX_MANIFEST_BYTES), NAME))
    if missing := sorted(set(manifest.files) - found):
        raise BundleIntegrityError(f"{missing[0]} is missing from the bundle {root}; copy the bundle again")
    if extra := sorted(found - set(manifest.files) - {NAME}):
        raise BundleIntegrityError(f"{extra[0]!r} is in the bundle {root} but not listed in {NAME}; remove it")
    for name, entry in manifest.files.items():
        _check_file(root / name, name, entry)
    return manifest


def _list_files(root: Path) -> set[str]:
    """Every regular file below ``root`` as a path with slashes."""
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            entry = Path(folder, name)
            mode = entry.lstat().st_mode
            where = entry.relative_to(root).as_posix()
            if stat.S_ISLNK(mode):
                raise BundlePathError(
                    f"{where} in the bundle {root} is a symbolic link; a bundle holds plain files only"
                )
            if stat.S_ISREG(mode):
                found.add(where)
            elif not stat.S_ISDIR(mode):
                raise BundlePathError(f"{where} in the bundle {root} is neither a file nor a folder")
        if len(found) > MAX_FILES + 16:
            raise BundleIntegrityError(f"the bundle {root} holds more than {MAX_FILES} files")
    return {name for name in found if name.rpartition("/")[2] not in IGNORED}


def _check_file(path: Path, name: str, entry: FileEntry) -> None:
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                size += len(block)
                digest.update(block)
                if size > entry.bytes:
                    break
    except OSError as error:
        raise BundleIntegrityError(f"{name} in the bundle cannot be read: {error.strerror or error}") from error
    if size != entry.bytes:
        amount = f"more than {entry.bytes}" if size > entry.bytes else str(size)
        raise BundleIntegrityError(
            f"{name} has {amount} bytes where bundle.json says {entry.bytes}; it is truncated or changed. "
            "Copy the bundle again."
        )
    if digest.hexdigest() != entry.sha256:
        raise BundleIntegrityError(
            f"{name} does not match its hash in bundle.json (sha256 {digest.hexdigest()[:12]}..., expected "
            f"{entry.sha256[:12]}...); it was damaged or changed. Copy the bundle again."
        )


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return read_limited(stream, limit, path.name)
    except OSError as error:
        raise BundleIntegrityError(f"{path.name} of the bundle cannot be read: {error.strerror or error}") from error
