"""Every error that edgekit raises on purpose, and the exit code each one becomes.

    EdgekitError                1   something failed; the message says what and what to do next
    ├── UsageError              2   the command or the call asks for something that cannot be
    ├── MissingDependencyError  3   an extra is not installed; the message quotes the install line
    ├── EngineError             3   an engine is installed but cannot load or run the model
    ├── SourceError             4   a camera, file or stream cannot be opened, or was lost after retries
    ├── GateError               5   an exported model is not good enough to ship
    ├── DataError               1   a data set is empty, malformed or does not fit the model
    ├── CheckpointError         1   a checkpoint is truncated, holds NaN or belongs to another model
    ├── ExportError             1   a graph cannot be converted; the message names the node
    ├── BundleError             1   a bundle is malformed
    │   ├── BundleIntegrityError    a file is missing, truncated or does not match its hash
    │   └── BundlePathError         a path inside the bundle points outside it
    ├── PromptsError            1   a file of prompts is malformed; the message names the field
    ├── SparseProgramError      1   a sparse program is malformed; the message names the operation
    └── StorageError            1   writing failed (disk full, no permission); nothing half-written is left

Only ``edgekit.cli.main`` turns them into exit codes; ``KeyboardInterrupt`` becomes 130. A message has up to
four parts: what was expected and what came, the likely cause, and the next command to type.
"""

from __future__ import annotations


class EdgekitError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is the process's exit status."""

    exit_code = 1


class UsageError(EdgekitError):
    """The request itself is wrong: an unknown name, or options that contradict each other."""

    exit_code = 2


class MissingDependencyError(EdgekitError):
    """A package that an extra brings is not installed.

    Args:
        package: what was imported, e.g. ``"onnxruntime"``.
        extra: the extra that brings it, e.g. ``"onnx"``.
        purpose: what it was needed for, completing "is needed to ...".
    """

    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{package} is needed to {purpose}, and it is not installed.\n"
            f'Install it with: pip install "edgekit-vision[{extra}]"'
        )
        self.package = package
        self.extra = extra


class EngineError(EdgekitError):
    """An inference engine is present but cannot load or run this model."""

    exit_code = 3


class SourceError(EdgekitError):
    """A source of frames cannot be opened, or was lost and did not come back."""

    exit_code = 4


class GateError(EdgekitError):
    """A converted model failed its parity or accuracy gate; no bundle was written."""

    exit_code = 5


class DataError(EdgekitError):
    """A data set, or one entry of it, cannot be used."""


class CheckpointError(EdgekitError):
    """A training checkpoint cannot be used."""


class ExportError(EdgekitError):
    """A model cannot be converted."""


class BundleError(EdgekitError):
    """A bundle is malformed."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, truncated or changed."""


class BundlePathError(BundleError):
    """A path inside the bundle is absolute or leads outside the bundle."""


class PromptsError(EdgekitError):
    """A file of prompts is missing or malformed."""


class SparseProgramError(EdgekitError):
    """A sparse program, or the file that holds it, is malformed."""


class StorageError(EdgekitError):
    """Writing to disk failed; what existed before is untouched."""
