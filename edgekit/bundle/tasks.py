"""A ``bundle.json`` of any task: which reader is asked is decided here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.bundle import manifest, segmentation_manifest
from edgekit.bundle.fields import Fields
from edgekit.bundle.head import FORMAT, NAME, VERSION, Head
from edgekit.errors import BundleError

TASKS: dict[str, Callable[[object, str], Head]] = {
    manifest.TASK: manifest.read_detection,
    segmentation_manifest.TASK: segmentation_manifest.read_segmentation,
}
"""``task`` -> who checks the rest."""


def read_manifest(document: object, where: str = NAME) -> Head:
    """Check a parsed ``bundle.json``: a ``Manifest`` or a ``SegmentationManifest``.

    Raises:
        BundleError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        BundlePathError: a path leads outside the bundle.
        BundleIntegrityError: a path names a file that ``files`` does not list.
    """
    root = Fields(document, where)
    root.choice("format", (FORMAT,))
    if root.integer("version", 1, 10**6) != VERSION:
        raise BundleError(
            f"{where}: version {root.value['version']} is not known; this edgekit reads version {VERSION}.\n"
            "The bundle comes from a newer edgekit: pip install --upgrade edgekit-vision"
        )
    return TASKS[root.choice("task", TASKS)](document, where)
