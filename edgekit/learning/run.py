"""The state of one training run: what ``training/train.py`` loops over.

A run can be killed at any moment. ``last.pt`` holds everything that the next step depends on and is replaced
atomically; samples depend on (seed, epoch, index) alone; so a resumed run reaches the weights of an unbroken one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.data.datasets import DetectionDataset
from edgekit.data.footage import Footage
from edgekit.data.training_set import SampleKey, TrainingSet, batches_in_epoch, epoch_batches
from edgekit.errors import CheckpointError
from edgekit.learning import distributed
from edgekit.learning.batches import Batch, load_batches
from edgekit.learning.config import TrainConfig
from edgekit.learning.config_file import save_config_file
from edgekit.learning.ema import WeightAverage
from edgekit.learning.hints import FeatureHints
from edgekit.learning.journal import Journal
from edgekit.learning.optimiser import TRUNK, build_optimiser, freeze, set_learning_rate, training_mode
from edgekit.learning.plateau import LossPlateau
from edgekit.learning.recipe_file import Resolved
from edgekit.learning.step import Losses, loss_names, step_losses
from edgekit.learning.validation import THRESHOLDS, ThresholdChoice, choose_mask_threshold, evaluate_model
from edgekit.models.anchors import anchor_boxes
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.registry import spec_at
from edgekit.spec import DetectorSpec

THRESHOLD_IMAGES = 150
"""Validation pictures that the mask threshold follows between evaluations."""

log = logging.getLogger("edgekit")


class TrainingRun:
    """Model, optimiser, average, data and counters of a run."""

    def __init__(
        self,
        config: TrainConfig,
        model: MaskedDetector,
        *,
        training: DetectionDataset,
        validation: DetectionDataset,
        output: Path,
        device: torch.device,
        provenance: dict[str, str],
        started: frozenset[str],
        threads: int,
        hints: FeatureHints | None = None,
        footage: Footage | None = None,
    ) -> None:
        self.config, self.output, self.device, self.threads = config, output, device, threads
        self.provenance, self.started = provenance, started
        self.validation = validation
        self.training_set = TrainingSet(
            dataset=training,
            seed=config.seed,
            augmentation=config.augmentation,
            mosaics=config.mosaic,
            sparse_scenes=config.sparse_scenes,
            footage=footage,
            footage_share=config.footage_share,
        )
        self.model = model.to(device)
        self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if TRUNK not in started:
            self.config = config = replace(config, frozen_blocks=0, freeze_statistics=False)
        freeze(self.model, config)
        self.hints = hints.to(device) if hints is not None else None
        distributed.synchronise_batch_norms(self.model)
        if self.hints is not None:
            distributed.synchronise_batch_norms(self.hints)
        self.average = WeightAverage(self.model, config.ema_decay)
        self.optimiser = build_optimiser(self.model, config, started=started, further=self.hints)
        self.amp_type = _amp_type(config, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_type == torch.float16)
        self._geometries: dict[int, tuple[DetectorSpec, Tensor]] = {}
        self.epoch = 0
        self.batch_in_epoch = 0
        self.evaluations_without_gain = 0
        self.plateaus = 0
        self.loss_plateau = LossPlateau(config.plateau_windows)
        self.best: float = -1.0
        self.scores: dict[str, Any] = {}
        self.journal = Journal(output, talks=distributed.rank() == 0, losses=loss_names(model.spec))
        self._saved_at = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return batches_in_epoch(len(self.training_set), self.config.batch_size)

    @property
    def global_step(self) -> int:
        """Steps taken since the first epoch."""
        return self.epoch * self.steps_per_epoch + self.batch_in_epoch

    @property
    def stopped_early(self) -> bool:
        """Whether the score has not risen for ``early_stop`` evaluations."""
        return 0 < self.config.early_stop <= self.evaluations_without_gain

    def __enter__(self) -> TrainingRun:
        self.journal.start(total_steps=self.config.epochs * self.steps_per_epoch, done=self.global_step)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.journal.stop()
        if kind is KeyboardInterrupt:
            log.warning("interrupted; go on with --resume -o %s", self.output)
        distributed.stop()

    def start_epoch(self) -> None:
        """Training mode, and a line of the log."""
        training_mode(self.model, self.config, started=self.started)
        sides = self.config.multi_scale or (self.config.size_at(self.epoch),)
        self.journal.start_epoch("-".join(map(str, sides)))

    def _geometry(self, size: int) -> tuple[DetectorSpec, Tensor]:
        """The model's spec and its anchors [A, 4] at an input size."""
        if size not in self._geometries:
            spec = spec_at(self.model.spec, height=size, width=size)
            self._geometries[size] = spec, torch.from_numpy(anchor_boxes(spec)).to(self.device)
        return self._geometries[size]

    def batches(self) -> Iterator[Batch]:
        """This process's share of the rest of the epoch."""
        keys = epoch_batches(
            count=len(self.training_set),
            epoch=self.epoch,
            size=self.config.size_at(self.epoch),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rank=distributed.rank(),
            processes=distributed.world_size(),
            start=self.batch_in_epoch,
        )
        cuda = self.device.type == "cuda"
        if self.config.multi_scale:
            keys = self._at_random_sizes(keys)
        for batch in load_batches(self.training_set, keys, workers=self.config.workers, pin_memory=cuda):
            yield batch.to(self.device)

    def _at_random_sizes(self, keys: Iterator[list[SampleKey]]) -> Iterator[list[SampleKey]]:
        for number, batch in enumerate(keys, self.batch_in_epoch):
            size = self.config.size_of_batch(self.epoch, number)
            yield [replace(key, size=size) for key in batch]

    def forward(self, batch: Batch) -> Losses:
        """Losses of a batch under this step's masks."""
        precision: AbstractContextManager[object] = (
            torch.autocast(self.device.type, dtype=self.amp_type) if self.amp_type else nullcontext()
        )
        self._seed_dropout()
        spec, anchors = self._geometry(batch.images.shape[-1])
        with precision:
            return step_losses(
                self.model,
                batch,
                spec=spec,
                anchors=anchors,
                config=self.config,
                progress=self.epoch / self.config.epochs,
                hints=self.hints,
            )

    def _seed_dropout(self) -> None:
        """What a layer draws depends on (seed, epoch, batch, process) alone, as samples do."""
        place = (self.config.seed, self.epoch, self.batch_in_epoch, distributed.rank())
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def step(self, losses: Losses) -> None:
        """Backward, clip, move the weights and their average; save now and then."""
        total_steps = self.config.epochs * self.steps_per_epoch
        rate = set_learning_rate(
            self.optimiser, self.config, step=self.global_step, total_steps=total_steps, drops=self._drops()
        )
        self.optimiser.zero_grad(set_to_none=True)
        total = losses.total(self.config)
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        learning = [p for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        distributed.sum_gradients(learning)
        norm = float(torch.nn.utils.clip_grad_norm_(learning, self.config.clip_norm))
        if not self.scaler.is_enabled() and norm != norm:
            raise CheckpointError(
                f"training diverged at step {self.global_step}: the gradient is NaN.\n"
                f"Go on from the last save with a lower rate: --resume --learning-rate {rate / 3:.1e}"
            )
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.model)
        if self.config.schedule == "plateau-loss":
            self.loss_plateau.step(float(distributed.sum_over_processes(total)))
        self.batch_in_epoch += 1
        self.journal.step(losses, rate, step=self.global_step)
        if time.monotonic() - self._saved_at > 60 * self.config.save_minutes:
            self.save()

    def _drops(self) -> int:
        """How often the schedule has divided the rate by ten."""
        match self.config.schedule:
            case "steps":
                return self.epoch // self.config.drop_epochs
            case "plateau-loss":
                return self.loss_plateau.drops
            case _:
                return self.plateaus

    def finish_epoch(self) -> None:
        """Count the epoch and write its row of the log."""
        self.epoch, self.batch_in_epoch = self.epoch + 1, 0
        self.journal.finish_epoch(self.epoch)

    def follow_masks(self) -> None:
        """Move the mask threshold along with the objectness network: the detector trains under masks like the final."""
        if self.config.masks == "apart" or self.config.parts in ("detector", "head"):
            return
        few = replace(self.validation, samples=self.validation.samples[:THRESHOLD_IMAGES])
        choice = None
        if distributed.rank() == 0:
            choice = choose_mask_threshold(
                self.average.model, few, recall=self.config.mask_recall_target, threads=self.threads
            )
        self._set_threshold(choice)

    def _set_threshold(self, choice: ThresholdChoice | None) -> None:
        choice = distributed.broadcast_object(choice)
        self.model.spec = self.average.model.spec = replace(self.model.spec, mask_threshold=choice.threshold)

    def evaluation_due(self) -> bool:
        """Whether the epoch just finished ends with an evaluation."""
        return self.epoch % self.config.evaluate_every == 0 or self.epoch == self.config.epochs

    def evaluate(self) -> None:
        """Set the mask threshold, score the averaged weights, keep them if they are the best so far."""
        choice = None
        if distributed.rank() == 0:
            # A mask network that does not learn keeps its threshold.
            kept = (self.model.spec.mask_threshold,) if self.config.parts in ("detector", "head") else THRESHOLDS
            choice = choose_mask_threshold(
                self.average.model,
                self.validation,
                recall=self.config.mask_recall_target,
                threads=self.threads,
                thresholds=kept,
            )
        self._set_threshold(choice)
        gained = distributed.broadcast_object(distributed.rank() == 0 and self._evaluate(choice))
        self.evaluations_without_gain = 0 if gained else self.evaluations_without_gain + 1
        patience = max(1, round(self.config.plateau_epochs / self.config.evaluate_every))
        if self.evaluations_without_gain and self.evaluations_without_gain % patience == 0:
            self.plateaus += 1

    def _evaluate(self, choice: ThresholdChoice | None) -> bool:
        assert choice is not None
        self.scores = {
            "epoch": self.epoch,
            "mask_recall": choice.recall,
            "mask_threshold": choice.threshold,
            "active_share": choice.active_share,
        }
        if self.config.parts == "omg":
            # The detector stays as it is, perhaps untrained; of mask networks of one recall, the sparest is best.
            self.journal.evaluation(self.scores, None)
            merit = 1 - choice.active_share
        else:
            merit = self._average_precision()
        if merit <= self.best:
            return False
        self.best = merit
        save_checkpoint(self.output / "best.pt", self._checkpoint(with_state=False))
        return True

    def _average_precision(self) -> float:
        """AP50 of the averaged weights under their masks; more scores go into ``scores`` and the journal."""
        model = self.average.model
        on = evaluate_model(model, self.validation, mask="omg", threads=self.threads)
        off = evaluate_model(model, self.validation, mask="off", threads=self.threads)
        self.model.spec = model.spec = replace(model.spec, score_threshold=on.best_score_threshold())
        self.scores |= {
            "ap50": on.ap50,
            "map": on.map,
            "ap50_mask_off": off.ap50,
            "map_mask_off": off.map,
            "score_threshold": model.spec.score_threshold,
        }
        self.journal.evaluation(self.scores, on)
        return on.ap50

    def save(self) -> None:
        """Replace ``last.pt``."""
        self._saved_at = time.monotonic()
        if distributed.rank() == 0:
            save_checkpoint(self.output / "last.pt", self._checkpoint(with_state=True))

    def resume(self) -> None:
        """Go back to the state in ``last.pt``."""
        path = self.output / "last.pt"
        checkpoint = load_checkpoint(path)
        state = checkpoint.state
        if state is None:
            raise CheckpointError(f"{path} holds no training state; start a new run from it with --weights {path}")
        if checkpoint.spec.classes != self.model.spec.classes:
            raise CheckpointError(f"{path} was trained on other classes: {', '.join(checkpoint.spec.classes)}")
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(checkpoint.model.state_dict())
        self.model.spec = self.average.model.spec = checkpoint.spec
        self.average.updates = state["average_updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        if self.hints is not None:
            self.hints.load_state(state["hints"])
        self.scaler.load_state_dict(state["scaler"])
        if "loss_plateau" in state:
            self.loss_plateau.load_state(state["loss_plateau"])
        for name in ("epoch", "batch_in_epoch", "evaluations_without_gain", "plateaus", "best"):
            setattr(self, name, state[name])
        self.scores = checkpoint.metrics
        self.journal.rewind(epoch=self.epoch, sums=state["journal"])

    def finish(self) -> dict[str, Any]:
        """Draw the plots and return the final scores."""
        if distributed.rank() == 0:
            self.journal.plots(self.average.model, self.validation, threads=self.threads)
        best = {} if self.config.parts == "omg" else {"best_ap50": self.best}
        return {**self.scores, **best, "output": str(self.output)}

    def _checkpoint(self, *, with_state: bool) -> Checkpoint:
        state = None
        if with_state:
            state = {
                "model": self.model.state_dict(),
                "average_updates": self.average.updates,
                "optimiser": self.optimiser.state_dict(),
                "hints": self.hints.state() if self.hints is not None else {},
                "scaler": self.scaler.state_dict(),
                "loss_plateau": self.loss_plateau.state(),
                "started": sorted(self.started),
                "journal": self.journal.sums,
                **{
                    name: getattr(self, name)
                    for name in ("epoch", "batch_in_epoch", "evaluations_without_gain", "plateaus", "best")
                },
            }
        return Checkpoint(
            model=self.average.model,
            config=self.config.to_json(),
            metrics=self.scores,
            provenance=self.provenance,
            state=state,
        )


def _amp_type(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    if not config.amp or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def save_config(config: Resolved, output: Path) -> None:
    """Write the resolved configuration beside the checkpoints."""
    save_config_file(config.to_json(), output)
