"""Open a training run: data, device, starting weights or the state of an earlier one."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekit.data.datasets import DetectionDataset, open_dataset
from edgekit.data.footage import Footage, open_footage
from edgekit.data.training_set import SampleKey, TrainingSet
from edgekit.errors import UsageError
from edgekit.learning import distributed
from edgekit.learning.batches import collate, normalise
from edgekit.learning.config import TrainConfig, config_from_json
from edgekit.learning.hints import FeatureHints
from edgekit.learning.opening import last_checkpoint, open_place
from edgekit.learning.optimiser import HEAD, OMG, TRUNK
from edgekit.learning.pretrained import pretraining_note
from edgekit.learning.run import TrainingRun, save_config
from edgekit.learning.starting import fill, starting_weights
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.default import default_checkpoint
from edgekit.models.derived import with_masks_of
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.registry import build, find_model
from edgekit.models.yolox import YOLOX, numbers_of

STATISTICS_IMAGES = 128
"""Pictures on which batch norm statistics are measured."""

log = logging.getLogger("edgekit")


def open_run(
    config: TrainConfig,
    *,
    data: Path,
    output: Path,
    weights: str,
    resume: bool,
    device: str,
    threads: int | None,
    limit: int | None,
) -> TrainingRun:
    """Everything before the first step.

    Args:
        config: the resolved configuration; a resumed run takes its own from ``last.pt`` instead.
        data: a data set with the splits train and val.
        output: folder of the run.
        weights: a MobileNetV2 ``.tflite``, a published PVANet ``.caffemodel``, a published Sparse DETR or ResNet-50
            ``.pth`` or a checkpoint to start from; ``default`` is the shipped detector, ``none`` random weights.
        resume: go on from ``output/last.pt``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; ``None`` leaves PyTorch's choice.
        limit: use only the first pictures of each split.

    Raises:
        DataError, UsageError, CheckpointError: the data, the options or the files do not fit.
    """
    find_model(config.model)
    place = open_place(device=device, threads=threads)
    if config.batch_size % distributed.world_size():
        raise UsageError(f"batch size {config.batch_size} cannot be divided over {distributed.world_size()} processes")
    last = last_checkpoint(output, resume=resume)
    earlier = load_checkpoint(last) if resume else None
    if earlier is not None:
        config = config_from_json(earlier.config, where=str(last))
    training = labelled_share(_limited(open_dataset(data, "train"), limit), config.label_share, seed=config.seed)
    validation = _limited(open_dataset(data, "val", classes=training.classes), limit)
    if validation.labelled_by:
        log.info("%s: scores there say how far both models agree", validation.name)
    torch.manual_seed(config.seed)
    footage = _footage(training, config)
    model = build(
        config.model,
        training.classes,
        size=max(size for _, size in config.sizes),
        width_multiplier=config.width_multiplier,
        token_share=config.token_share or None,
    )
    _check_parts(model, config)
    start = starting_weights(weights)
    if earlier is not None:
        provenance, started = earlier.provenance, _started(earlier)
    else:
        started, source = fill(model, start, pictures=lambda: _statistics_batches(model, training, config))
        if config.parts == "head" and not {TRUNK, HEAD} <= started:
            raise UsageError(
                f"only the RoI head would learn, over a {config.model} that {weights} does not fill.\n"
                "Give a trained one with --weights, or let both networks learn with --parts both"
            )
        provenance = _provenance(training, footage, start, source, config, started)
        if source is not None and config.parts in ("detector", "head"):
            # A mask network that does not learn goes on making the masks that it made.
            model.spec = with_masks_of(model.spec, source.spec)
    run = TrainingRun(
        config,
        model,
        training=training,
        validation=validation,
        output=output,
        device=place,
        provenance=provenance,
        started=started,
        threads=torch.get_num_threads(),
        hints=_hints(model, training, config, resume=resume),
        footage=footage,
    )
    if resume:
        run.resume()
    elif distributed.rank() == 0:
        save_config(run.config, output)
    return run


def _provenance(
    training: DetectionDataset,
    footage: Footage | None,
    start: Path | None,
    source: Checkpoint | None,
    config: TrainConfig,
    started: frozenset[str],
) -> dict[str, str]:
    """What a model card says; a checkpoint to start from passes on where it came from itself."""
    weights, teachers = "random" if start is None else start.name + pretraining_note(start), []
    if source is not None:
        earlier = source.provenance
        history = f"(trained on {earlier.get('training_data')}, from {earlier.get('starting_weights')})"
        if TRUNK in started and start is not None and start.suffix == ".pt":
            weights += f" {history}"
        elif TRUNK in started:
            weights += f", the mask network {default_checkpoint().name} {history}"
        else:
            weights = f"random, the mask network {weights} {history}"
        teachers.append(earlier.get("teacher", ""))
    if config.teacher:
        teachers.append(Path(config.teacher).stem)
    data = training.name + (f": {training.labelled_by}" if training.labelled_by else "")
    if footage is not None:
        data += f", {footage.name}"
    provenance = {"training_data": data, "starting_weights": weights}
    if any(teachers):
        provenance["teacher"] = ", ".join(dict.fromkeys(filter(None, teachers)))
    return provenance


def _started(earlier: Checkpoint) -> frozenset[str]:
    """The parts that started from weights in the run of ``earlier``; runs once did not say which."""
    anything = earlier.provenance.get("starting_weights") != "random"
    return frozenset((earlier.state or {}).get("started", (OMG, TRUNK) if anything else ()))


def _check_parts(model: MaskedDetector, config: TrainConfig) -> None:
    """Refuse what only the other kind of detector can be told."""
    if config.parts == "head" and model.spec.kind != "two_stage":
        raise UsageError(f"{config.model} has no RoI head that could learn alone; --parts head is for PVANets")
    if config.teacher and model.spec.kind != "one_stage":
        raise UsageError(f"{config.model} cannot learn from a teacher; --teacher is for mobilenetv2-ssdlite-omg")


def _footage(training: DetectionDataset, config: TrainConfig) -> Footage | None:
    """The footage that the configuration names, with what is pasted into it."""
    if not config.footage:
        return None
    return open_footage(Path(config.footage), Path(config.cutouts), numbers_of(training.classes))


def _hints(
    model: MaskedDetector, training: DetectionDataset, config: TrainConfig, *, resume: bool
) -> FeatureHints | None:
    """The teacher that the configuration names, its channels measured on this data or, resuming, to be restored."""
    if not config.teacher:
        return None
    hints = FeatureHints(YOLOX(Path(config.teacher)))
    if not resume:
        hints.measure(_plain_pictures(model, training, config))
    return hints.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _limited(dataset: DetectionDataset, limit: int | None) -> DetectionDataset:
    return dataset if limit is None else replace(dataset, samples=tuple(islice(dataset.samples, limit)))


def labelled_share(dataset: DetectionDataset, share: float, *, seed: int) -> DetectionDataset:
    """``share`` (above 0 to 1) of the pictures with their labels, at least one; ``seed`` says which, in their order."""
    if share >= 1:
        return dataset
    count = max(1, round(share * len(dataset)))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])
    samples = tuple(dataset.samples[index] for index in chosen)
    return replace(dataset, samples=samples, name=f"{dataset.name} ({count} of {len(dataset)} pictures)")


def _statistics_batches(model: MaskedDetector, training: DetectionDataset, config: TrainConfig) -> list[Tensor]:
    """The plain pictures, normalised: float32 [16, 3, H, W]."""
    return [normalise(images, model.spec) for images in _plain_pictures(model, training, config)]


def _plain_pictures(model: MaskedDetector, training: DetectionDataset, config: TrainConfig) -> list[Tensor]:
    """The first pictures of the training split without augmentation, uint8 [16, 3, H, W] each."""
    plain = TrainingSet(dataset=training, seed=config.seed, augmentation=0.0)
    size = model.spec.height
    count = min(STATISTICS_IMAGES, len(training))
    batches = []
    for start in range(0, count, 16):
        keys = [SampleKey(epoch=0, index=index, size=size) for index in range(start, min(start + 16, count))]
        batches.append(collate([plain[key] for key in keys]).images)
    return batches
