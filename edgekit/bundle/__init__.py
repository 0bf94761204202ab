"""The bundle: the one thing that travels from training to a board.

A bundle is a folder ``NAME.edgekit/`` or the same as one zip file: ``bundle.json``, the engine's graph files, and a
golden input with its expected output. It is untrusted input: paths, sizes and hashes are checked before anything is
loaded. ``edgekit.bundle.golden`` runs it, so it stands above the pipeline and is imported by its own name.
"""

from edgekit.bundle.head import FORMAT as FORMAT
from edgekit.bundle.head import VERSION as VERSION
from edgekit.bundle.head import Head as Head
from edgekit.bundle.manifest import Manifest as Manifest
from edgekit.bundle.reading import AnyBundle as AnyBundle
from edgekit.bundle.reading import Bundle as Bundle
from edgekit.bundle.reading import SegmentationBundle as SegmentationBundle
from edgekit.bundle.reading import open_any_bundle as open_any_bundle
from edgekit.bundle.reading import open_bundle as open_bundle
from edgekit.bundle.reading import open_segmentation_bundle as open_segmentation_bundle
from edgekit.bundle.segmentation_manifest import SegmentationManifest as SegmentationManifest
from edgekit.bundle.tasks import read_manifest as read_manifest
from edgekit.bundle.writing import BundleWriter as BundleWriter
