"""Open a training run of a TCL model: pairs, device, starting weights or the state of an earlier run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edgekit.data.pair_crops import PairCrops
from edgekit.data.pairs import PairSet, join, open_pairs
from edgekit.data.segmentation import SegmentationDataset, open_segmentation
from edgekit.data.training_set import SampleKey
from edgekit.errors import CheckpointError, UsageError
from edgekit.learning import distributed
from edgekit.learning.opening import last_checkpoint, open_place
from edgekit.learning.tcl_batches import collate_pairs
from edgekit.learning.tcl_config import TclConfig, tcl_config_from_json
from edgekit.learning.tcl_run import TclRun
from edgekit.models.starting_weights import read_tflite_convolutions, start_trunk_from_mobilenetv2
from edgekit.models.tcl.checkpoint import load_tcl
from edgekit.models.tcl.clip_weights import load_clip
from edgekit.models.tcl.mobile import MobileImageEncoder
from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.segmenter import options_for
from edgekit.models.tcl.spec import VitSpec, find_variant
from edgekit.models.tcl.tokenizer import Tokenizer

STATISTICS_IMAGES = 128
"""Pictures on which batch norm statistics are measured."""


def open_tcl_run(
    config: TclConfig,
    *,
    data: tuple[str, ...],
    output: Path,
    weights: str | None,
    resume: bool,
    validation: Path | None,
    protocol: str,
    split: str,
    device: str,
    threads: int | None,
    limit: int | None,
) -> TclRun:
    """Everything before the first step.

    Args:
        config: the resolved configuration; a resumed run takes its own from ``last.pt`` instead.
        data: what :func:`edgekit.data.pairs.open_pairs` takes, each.
        output: folder of the run.
        weights: a MobileNetV2 ``.tflite``, a CLIP ``.pt`` or a TCL checkpoint to start from, or ``none``: random ones;
            needed unless a run is resumed.
        resume: go on from ``output/last.pt``.
        validation: a data set with masks, or ``None``.
        protocol: of that data set.
        split: of that data set.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; ``None`` leaves PyTorch's choice.
        limit: use only the first pairs, and the first pictures of ``validation``.

    Raises:
        DataError, UsageError, CheckpointError: the data, the options or the files do not fit.
    """
    spec = find_variant(config.model)
    place = open_place(device=device, threads=threads)
    last = last_checkpoint(output, resume=resume)
    if not resume and weights is None:
        raise UsageError(
            f"what should {config.model} start from? Give --weights FILE, "
            f"{'CLIP' if isinstance(spec.image, VitSpec) else 'an ImageNet MobileNetV2 .tflite'}, or --weights none"
        )
    if resume:
        config = tcl_config_from_json(load_tcl(last).config, where=str(last))
    pairs = _limited(join([open_pairs(text) for text in data]), limit)
    _check_batch(config, pairs)
    masks = None if validation is None else _first(open_segmentation(validation, protocol, split), limit)
    torch.manual_seed(config.seed)
    crops = PairCrops(
        pairs=pairs,
        tokenizer=Tokenizer(),
        context=spec.text.context,
        seed=config.seed,
        smallest=config.smallest_crop,
        jitter=config.jitter,
    )
    model = TCL(spec)
    start = None if weights in (None, "none") else Path(str(weights))
    if start is not None and not resume:
        _fill(model, start, config, crops)
    run = TclRun(
        config,
        model,
        crops=crops,
        validation=masks,
        options=options_for(model),
        output=output,
        device=place,
        provenance={"training_data": pairs.name, "starting_weights": "random" if start is None else start.name},
    )
    if resume:
        run.resume()
        run.provenance = load_tcl(last).provenance
    return run


def _check_batch(config: TclConfig, pairs: PairSet) -> None:
    processes = distributed.world_size()
    if config.batch_size % processes:
        raise UsageError(f"batch size {config.batch_size} cannot be divided over {processes} processes")
    if config.batch_size > len(pairs):
        raise UsageError(
            f"a batch of {config.batch_size} pairs needs as many, and {pairs.name} holds {len(pairs)}.\n"
            f"Give more with another --data, or say --batch-size {len(pairs)}"
        )


def _fill(model: TCL, path: Path, config: TclConfig, crops: PairCrops) -> None:
    """Load what the encoders, or the whole, start from."""
    encoder = model.clip_image_encoder
    if path.suffix == ".tflite":
        if not isinstance(encoder, MobileImageEncoder):
            raise UsageError(f"{config.model} cannot start from {path.name}; it takes CLIP's ViT-B-16.pt")
        start_trunk_from_mobilenetv2(encoder.trunk, read_tflite_convolutions(path), _plain(model, crops))
        return
    if isinstance(encoder, MobileImageEncoder):
        source = load_tcl(path).model
        if source.spec != model.spec:
            raise CheckpointError(f"{path} is a {source.spec.name} of other sizes, not the {model.spec.name} to train")
        model.load_state_dict(source.state_dict())
    else:
        load_clip(model, path)


def _plain(model: TCL, crops: PairCrops) -> list[torch.Tensor]:
    """Some training pictures, nearly whole, as the image encoder wants them: float32 [16, 3, S, S]."""
    whole = replace(crops, smallest=0.9, jitter=False)
    side, count = model.spec.training_side, min(STATISTICS_IMAGES, len(crops))
    batches = []
    for start in range(0, count, 16):
        keys = [SampleKey(epoch=0, index=index, size=side) for index in range(start, min(start + 16, count))]
        batches.append(model.normalise(collate_pairs([whole[key] for key in keys]).images.float()))
    return batches


def _limited(pairs: PairSet, limit: int | None) -> PairSet:
    return pairs if limit is None else replace(pairs, pairs=pairs.pairs[:limit])


def _first(dataset: SegmentationDataset, limit: int | None) -> SegmentationDataset:
    return dataset if limit is None else replace(dataset, pictures=dataset.pictures[:limit])
