"""The bundle: the one thing that travels from training to a board.

A bundle is a folder ``NAME.edgekit/`` or the same as one zip file: ``bundle.json``, the engine's graph files, and a
golden input with its expected output. It is untrusted input: paths, sizes and hashes are checked before anything is
loaded. ``edgekit.bundle.golden`` runs it, so it stands above the pipeline and is imported by its own name.
"""

from edgekit.bundle.manifest import FORMAT as FORMAT
from edgekit.bundle.manifest import VERSION as VERSION
from edgekit.bundle.manifest import Manifest as Manifest
from edgekit.bundle.manifest import read_manifest as read_manifest
from edgekit.bundle.reading import Bundle as Bundle
from edgekit.bundle.reading import open_bundle as open_bundle
from edgekit.bundle.writing import BundleWriter as BundleWriter
