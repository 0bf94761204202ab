"""Open a pretraining run: pictures, device, networks, or the state of an earlier run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from edgekit.errors import DataError, UsageError
from edgekit.learning import distributed
from edgekit.learning.opening import last_checkpoint, open_place
from edgekit.learning.run import save_config
from edgekit.models.torch_file import read_torch_file
from edgekit.pretraining.checkpoint import load_networks, read_run
from edgekit.pretraining.config import PretrainConfig, pretrain_config
from edgekit.pretraining.networks import Learner
from edgekit.pretraining.pictures import Pictures, open_pictures
from edgekit.pretraining.run import PretrainRun

log = logging.getLogger("edgekit")

FRAMES = "frames"
"""Folder, in that of the run, for frames of videos."""


def open_pretraining(
    config: PretrainConfig,
    *,
    data: Sequence[Path],
    output: Path,
    weights: str,
    resume: bool,
    device: str,
    threads: int | None,
    limit: int | None,
) -> PretrainRun:
    """Everything before the first step.

    Args:
        config: the resolved configuration; a resumed run takes its own from ``last.pt`` instead.
        data: sources of pictures (``edgekit.pretraining.pictures``).
        output: folder of the run.
        weights: ``none``, or a pretraining to go on from: one of edgekit's or a published one of SCRL.
        resume: go on from ``output/last.pt``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; ``None`` leaves PyTorch's choice.
        limit: use only the first pictures of each split.

    Raises:
        DataError, UsageError, CheckpointError: the data, the options or the files do not fit.
    """
    place = open_place(device=device, threads=threads)
    if config.batch_size % distributed.world_size():
        raise UsageError(f"batch size {config.batch_size} cannot be divided over {distributed.world_size()} processes")
    last = last_checkpoint(output, resume=resume)
    if weights != "none" and not Path(weights).is_file():
        raise UsageError(
            f"--weights {weights}: there is no such file.\nGive a pretraining to go on from (pretrained.pth of a run, "
            "or a published checkpoint of SCRL for resnet50), or 'none' for random weights."
        )
    document = read_run(last) if resume else None
    if document is not None:
        config = pretrain_config(document["config"], where=str(last))
    pictures, validation = _pictures(config, data, output, limit)
    torch.manual_seed(config.seed)
    learner = Learner(
        config.backbone,
        width=config.width_multiplier,
        hidden=config.head_hidden,
        outputs=config.head_outputs,
        classes=len(pictures.classes),
    )
    if document is None and weights != "none":
        load_networks(learner, read_torch_file(Path(weights)), Path(weights))
    start = "random" if weights == "none" else Path(weights).name
    run = PretrainRun(
        config,
        learner,
        pictures=pictures,
        validation=validation,
        output=output,
        device=place,
        provenance=document["provenance"]
        if document is not None
        else {"training_data": pictures.name, "starting_weights": start},
    )
    if document is not None:
        run.resume(document, last)
    elif distributed.rank() == 0:
        save_config(run.config, output)
    return run


def _pictures(
    config: PretrainConfig, data: Sequence[Path], output: Path, limit: int | None
) -> tuple[Pictures, Pictures]:
    """Found, and frames of videos written, by the first process for all of them."""
    found = None
    if distributed.rank() == 0:
        found = open_pictures(data, output / FRAMES, interval_s=config.frame_interval_s)
    found = distributed.broadcast_object(found)
    assert found is not None
    training, validation = (one.first(limit) for one in found)
    if len(training.items) < 2 * distributed.world_size():
        raise DataError(
            f"{len(training.items)} pictures are too few to pretrain on: batch norm needs two in each process, and "
            "hundreds to learn from"
        )
    if distributed.rank() == 0:
        labelled = sum(item.label >= 0 for item in training.items)
        probe = f", {labelled} of them of {len(training.classes)} classes" if training.classes else ", without classes"
        log.info("%d pictures of %s%s", len(training.items), training.name, probe)
    return training, validation
