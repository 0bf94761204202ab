"""What a benchmark of Sparse DETR measures: a network of random weights, or a trained one at any share of tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import UsageError
from edgekit.exporters.dependencies import load

if TYPE_CHECKING:
    from edgekit.models.checkpoint import Checkpoint
    from edgekit.models.sparse_detr import SparseDetr
    from edgekit.pipeline import Pipeline

Share = float | None
"""Of tokens that the encoder refines; ``None`` is all of them, without a network that scores them."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network that is made for several shares."""

    name: str
    height: int
    """Of the input, in pixels."""

    width: int
    """Likewise."""

    classes: int
    network: Callable[[Share], SparseDetr]
    """Makes one of a share, in evaluation mode."""

    ap50: Callable[[Share], float] | None = None
    """AP50 (0..1) at a share, where there are annotated pictures."""

    remarks: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to say of it: the data, the number of pictures, the share it was trained with."""


def random_subject(variant: str, *, height: int, width: int, classes: int = 91) -> Subject:
    """A variant of :data:`edgekit.models.detr_variants.VARIANTS`, with the same random weights at each share.

    Raises:
        MissingDependencyError: torch is not installed.
        UsageError: there is no such variant.
    """
    torch = load("torch", package="torch", purpose="make a DETR of random weights")
    from edgekit.models.detr_variants import VARIANTS
    from edgekit.models.sparse_detr import SparseDetr

    if variant not in VARIANTS:
        raise UsageError(f"no DETR is called {variant!r}; there are: {', '.join(VARIANTS)}")
    info = VARIANTS[variant]

    def network(share: Share) -> SparseDetr:
        torch.manual_seed(0)
        return SparseDetr(info.backbone(), classes=classes, size=info.size, share=share, encoder_heads=False).eval()

    return Subject(name=variant, height=height, width=width, classes=classes, network=network)


def trained_subject(path: Path, data: Path | None, *, limit: int | None, threads: int) -> Subject:
    """The network of a checkpoint; its dense form refines every token, whatever its scores.

    Args:
        path: the checkpoint.
        data: an annotated data set, whose val split AP50 is measured on; ``None`` leaves it out.
        limit: only so many pictures of it.
        threads: CPU threads of the evaluation.

    Raises:
        CheckpointError, DataError: a file is damaged.
        MissingDependencyError: torch, or with ``data`` pycocotools, is not installed.
        UsageError: no file is there, or it is no detector whose tokens are scored.
    """
    load("torch", package="torch", purpose="run a checkpoint")
    from edgekit.data.datasets import open_dataset
    from edgekit.exporters.gate import measure_ap50
    from edgekit.metrics.detection import require_pycocotools
    from edgekit.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    spec = checkpoint.spec
    if spec.detr is None or spec.detr.token_share is None:
        raise UsageError(
            f"{path} has no network that scores tokens, so there are no shares of them to compare.\n"
            "Train one that has with: edgekit train sparse-detr-mobilenetv2-omg"
        )
    ap50: Callable[[Share], float] | None = None
    remarks: dict[str, Any] = {"token_share": spec.detr.token_share}
    if data is not None:
        require_pycocotools()
        dataset = open_dataset(data, "val", spec.classes)
        dataset = replace(dataset, samples=dataset.samples[:limit])
        remarks |= {"data": dataset.name, "images": len(dataset)}

        def ap50_at(share: Share) -> float:
            return measure_ap50(_pipeline_at(checkpoint, share, threads), dataset)

        ap50 = ap50_at
    return Subject(
        name=spec.model,
        height=spec.height,
        width=spec.width,
        classes=len(spec.classes),
        network=lambda share: _at_share(checkpoint, share).model.detr,
        ap50=ap50,
        remarks=remarks,
    )


def _at_share(checkpoint: Checkpoint, share: Share) -> Checkpoint:
    """A copy whose encoder refines another share of the tokens."""
    model = copy.deepcopy(checkpoint.model)
    assert model.spec.detr is not None
    model.spec = replace(model.spec, detr=replace(model.spec.detr, token_share=share))
    model.detr.share = share
    return replace(checkpoint, model=model)


def _pipeline_at(checkpoint: Checkpoint, share: Share, threads: int) -> Pipeline:
    """PyTorch at a share, without a mask."""
    from edgekit.backends.torch import load_pair
    from edgekit.masks.sources import off
    from edgekit.pipeline import Pipeline

    model = _at_share(checkpoint, share).model
    return Pipeline(model.spec, *load_pair(model, threads=threads), off)
