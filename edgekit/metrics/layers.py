"""The layer table of whatever ``edgekit val`` and ``edgekit profile`` are given."""

from __future__ import annotations

from pathlib import Path

from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError, MissingDependencyError
from edgekit.metrics.macs import LayerMacs, count_macs, executed_macs, layers_from_json
from edgekit.pipeline import FrameResult, is_checkpoint
from edgekit.spec import DetectorSpec


def layer_table(path: Path) -> tuple[LayerMacs, ...]:
    """The layers of the checkpoint or bundle at ``path`` (``edgekit.pipeline.resolve_model`` gives it).

    A bundle carries them under ``layers``. One without is counted anew from its spec, which needs PyTorch.

    Raises:
        MissingDependencyError: PyTorch is needed and not installed.
        BundleError, CheckpointError: the file is malformed.
        UsageError: the bundle has no table and names no network that this edgekit knows.
    """
    if is_checkpoint(path):
        from edgekit.models.checkpoint import load_checkpoint

        return count_macs(load_checkpoint(path).model)
    manifest = open_bundle(path).manifest
    if "layers" in manifest.document:
        return layers_from_json(manifest.document["layers"])
    return count_spec(manifest.spec)


class FrameMacs:
    """Executed MACs of one frame after another; the table of layers is read when the first is asked for."""

    def __init__(self, path: Path) -> None:
        """``path`` as in :func:`layer_table`."""
        self._path = path
        self._table: tuple[LayerMacs, ...] | None = None

    def __call__(self, result: FrameResult) -> int | None:
        """Those at active sites and regions, with the OMG network's if it ran; None where there is no table."""
        if self._table is None:
            try:
                self._table = layer_table(self._path)
            except EdgekitError:  # a number less, nothing worse
                self._table = ()
        if not self._table:
            return None
        return executed_macs(self._table, result.mask, omg=result.omg_ran, regions=result.regions)


def count_spec(spec: DetectorSpec) -> tuple[LayerMacs, ...]:
    """The layers of the network that ``spec`` names, counted without memory for its weights.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        UsageError: no such network.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "train", "count the MACs of a model") from error

    from edgekit.models.registry import build

    with torch.device("meta"):
        return count_macs(build(spec.model, spec.classes, size=spec.height))
