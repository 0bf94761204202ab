"""Changing what a bundle says of itself, so that at any moment there is either the old bundle or the new one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.bundle.head import NAME
from edgekit.bundle.reading import Bundle, open_bundle
from edgekit.bundle.sparse_part import BreakEven
from edgekit.bundle.tasks import read_manifest
from edgekit.bundle.writing import BundleWriter
from edgekit.errors import StorageError


def store_break_even(bundle: Bundle, known: BreakEven) -> None:
    """Write ``known`` into a bundle with sparse programs, a folder or a zip, in place of what it knew.

    Raises:
        StorageError: the bundle is read-only, was changed since it was opened, or cannot be written; it is as before.
        BundleError: it was damaged since.
    """
    path = bundle.path.resolve()
    target = path / NAME if path.is_dir() else path
    if not os.access(target, os.W_OK):
        raise StorageError(f"{target} is read-only, so the bundle is left as it was.\nMake a copy that you may write.")
    old = bundle.manifest.document
    if open_bundle(path).manifest.document != old:
        raise StorageError(f"{path} is another bundle than the one that was measured, so it is left as it is.")
    document = {**old, "sparse": {**old["sparse"], "break_even": known.to_json()}}
    if path.is_dir():
        _replace_manifest(target, document)
        return
    with BundleWriter(path, overwrite=True, zipped=True) as writer:
        for name in bundle.manifest.files:
            writer.add_file(name, bundle.file(name))
        writer.finish({key: value for key, value in document.items() if key not in ("format", "version", "files")})


def _replace_manifest(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the ``bundle.json`` at ``path`` in one step."""
    read_manifest(document)
    new = None
    try:
        # Beside the bundle: whatever is left of a crash must not lie in it, where no file may be that is not listed.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent.parent, prefix=f".{path.parent.name}.", delete=False
        ) as file:
            new = Path(file.name)
            file.write(json.dumps(document, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, new)
        new.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}\nThe bundle is as it was before."
        ) from error
    finally:
        if new is not None:
            new.unlink(missing_ok=True)
