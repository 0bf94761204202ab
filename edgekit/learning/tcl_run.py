"""The state of one training run of a TCL model: what ``training/train_tcl.py`` loops over.

A run can be killed at any moment: ``last.pt`` holds everything that the next step depends on, and crops and noise
depend on (seed, step) alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.data.pair_crops import PairCrops
from edgekit.data.segmentation import SegmentationDataset
from edgekit.errors import CheckpointError
from edgekit.learning import distributed
from edgekit.learning.config_file import save_config_file
from edgekit.learning.tcl_batches import PairBatch, endless_keys, load_pair_batches
from edgekit.learning.tcl_config import TclConfig
from edgekit.learning.tcl_journal import TclJournal
from edgekit.learning.tcl_losses import TclWeights, align_losses, find_matches, tcl_losses
from edgekit.metrics.segmentation import SegmentationMetrics, evaluate_segmentation
from edgekit.models.tcl.checkpoint import TclCheckpoint, load_tcl, save_tcl
from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.segmenter import Segmenter, SegmentOptions

log = logging.getLogger("edgekit")


class TclRun:
    """Model, optimiser, data and the number of the next step."""

    def __init__(
        self,
        config: TclConfig,
        model: TCL,
        *,
        crops: PairCrops,
        validation: SegmentationDataset | None,
        options: SegmentOptions,
        output: Path,
        device: torch.device,
        provenance: dict[str, str],
    ) -> None:
        self.config, self.output, self.device, self.provenance = config, output, device, provenance
        self.crops, self.validation, self.options = crops, validation, options
        self.model = model.to(device).train()
        self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = build_tcl_optimiser(self.model, config)
        self.step_number = 0
        self.best = -1.0
        self.scores: dict[str, Any] = {}
        self.journal = TclJournal(output, talks=distributed.rank() == 0)
        self._autocast = config.amp and device.type == "cuda" and torch.cuda.is_bf16_supported()
        self._phase = config.phase_at(0)
        self.model.phase(self._phase)
        self._saved_at = time.monotonic()

    def __enter__(self) -> TclRun:
        if distributed.rank() == 0:
            save_config_file(self.config.to_json(), self.output)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            log.warning("interrupted; go on with --resume -o %s", self.output)
        distributed.stop()

    @property
    def weights(self) -> TclWeights:
        """Those of the losses."""
        return TclWeights(
            contrast=self.config.contrast_weight,
            area=self.config.area_weight,
            smoothness=self.config.smooth_weight,
            positive_area=self.config.positive_area,
        )

    def batches(self) -> Iterator[PairBatch]:
        """This process's share of each step that is left."""
        keys = endless_keys(
            total=len(self.crops),
            side=self.model.spec.training_side,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rank=distributed.rank(),
            processes=distributed.world_size(),
            first_step=self.step_number,
        )
        batches = load_pair_batches(self.crops, keys, workers=self.config.workers)
        while self.step_number < self.config.total_steps:
            yield next(batches).to(self.device)

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """The losses of a batch in this step's phase."""
        place = (self.config.seed, self.step_number, distributed.rank())
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        matches = find_matches(batch.tokens, batch.captions)
        precision: AbstractContextManager[object] = (
            torch.autocast(self.device.type, dtype=torch.bfloat16) if self._autocast else nullcontext()
        )
        pictures = batch.images.float()
        with precision:
            if self._phase == "align":
                return align_losses(self.model, pictures, batch.tokens, matches=matches)
            return tcl_losses(self.model, pictures, batch.tokens, weights=self.weights, matches=matches)

    def step(self, losses: dict[str, Tensor]) -> None:
        """Backward, clip, move the weights; save now and then."""
        rate = self.config.rate_at(self.step_number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        # Losses are means over a process's pairs, and gradients are summed over the processes.
        (torch.stack(list(losses.values())).sum() / distributed.world_size()).backward()  # type: ignore[no-untyped-call]
        learning = [value for _, value in self.model.learning() if value.grad is not None]
        distributed.sum_gradients(learning)
        norm = float(torch.nn.utils.clip_grad_norm_(learning, self.config.clip_norm))
        if norm != norm:
            raise CheckpointError(
                f"training diverged at step {self.step_number}: the gradient is NaN.\n"
                f"Start again with a lower rate: --learning-rate {self.config.learning_rate / 3:.1e}"
            )
        self.optimiser.step()
        self.step_number += 1
        self.journal.step(losses, rate=rate, phase=self._phase)
        self._enter_phase(self.config.phase_at(self.step_number))
        if self.step_number % self.config.log_every == 0 or self.step_number == self.config.total_steps:
            self.journal.write_row(self.step_number, total=self.config.total_steps)
        if time.monotonic() - self._saved_at > 60 * self.config.save_minutes:
            self.save()

    def _enter_phase(self, phase: str) -> None:
        """Open what ``phase`` trains; the masker starts from what aligning has taught its encoder."""
        if phase == self._phase:
            return
        if self._phase == "align":
            self.model.masker.start_from(self.model.clip_image_encoder)
        self.model.phase(phase)
        self._phase = phase

    def evaluation_due(self) -> bool:
        """Whether the step just taken ends with an evaluation."""
        last = self.step_number == self.config.total_steps
        return last or (self.step_number % self.config.evaluate_every == 0 and self.validation is not None)

    def evaluate(self) -> None:
        """Score the masks and keep the best weights so far; without masks, the last ones."""
        if distributed.rank() == 0:
            self._evaluate()
        self.model.train()

    def _evaluate(self) -> None:
        aligning = self.step_number < self.config.align_steps
        if self.validation is None:
            merit = self.best + 1
        elif aligning:
            return  # the masker has learnt nothing yet
        else:
            metrics = self.measure(self.validation)
            merit = metrics.miou
            self.scores = {"step": self.step_number, "miou": merit, "pixel_accuracy": metrics.pixel_accuracy}
            self.journal.evaluation(self.scores)
        if merit > self.best:
            self.best = merit
            save_tcl(self.output / "best.pt", self._checkpoint(with_state=False))

    def measure(self, dataset: SegmentationDataset) -> SegmentationMetrics:
        """The model's masks against a data set's."""
        segmenter = Segmenter(self.model, dataset.classes, self.options, self.crops.tokenizer)
        return evaluate_segmentation(dataset, segmenter.segment)

    def save(self) -> None:
        """Replace ``last.pt``."""
        self._saved_at = time.monotonic()
        if distributed.rank() == 0:
            save_tcl(self.output / "last.pt", self._checkpoint(with_state=True))

    def resume(self) -> None:
        """Go back to the state in ``last.pt``."""
        path = self.output / "last.pt"
        checkpoint = load_tcl(path)
        if checkpoint.state is None:
            raise CheckpointError(f"{path} holds no training state; start a new run from it with --weights {path}")
        self.model.load_state_dict(checkpoint.model.state_dict())
        self.optimiser.load_state_dict(checkpoint.state["optimiser"])
        self.step_number, self.best = checkpoint.state["step"], checkpoint.state["best"]
        self._phase = checkpoint.state["phase"]
        self.model.phase(self._phase)
        self.scores = checkpoint.metrics
        self.journal.rewind(self.step_number)

    def finish(self) -> dict[str, Any]:
        """Save, draw the curves and some pictures, and return the final scores."""
        self.save()
        if distributed.rank() == 0:
            self.journal.plot()
            if self.validation is not None:
                from edgekit.learning.tcl_plots import draw_segmentations

                segmenter = Segmenter(self.model, self.validation.classes, self.options, self.crops.tokenizer)
                draw_segmentations(segmenter, self.validation, self.output / "segmentations.png")
        best = {} if self.validation is None else {"best_miou": self.best}
        return {**self.journal.last(), **self.scores, **best, "output": str(self.output)}

    def _checkpoint(self, *, with_state: bool) -> TclCheckpoint:
        state = None
        if with_state:
            state = {
                "optimiser": self.optimiser.state_dict(),
                "step": self.step_number,
                "best": self.best,
                "phase": self._phase,
            }
        return TclCheckpoint(
            model=self.model,
            config=self.config.to_json(),
            metrics=self.scores,
            provenance=self.provenance,
            state=state,
        )


def build_tcl_optimiser(model: TCL, config: TclConfig) -> torch.optim.Optimizer:
    """AdamW (betas .9, .999, eps 1e-6) over whatever some phase trains; vectors and biases do not decay."""
    names: dict[str, torch.nn.Parameter] = {}
    for phase in ("align", "decoder", "masker") if config.align_steps else ("decoder", "masker"):
        model.phase(phase)
        names |= dict(model.learning())
    plain = [value for name, value in names.items() if value.ndim == 1 or name.endswith(".bias")]
    decayed = [value for name, value in names.items() if not (value.ndim == 1 or name.endswith(".bias"))]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-6)
