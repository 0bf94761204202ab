"""The state of one pretraining run: what ``training/pretrain.py`` loops over.

A run can be killed at any moment. ``last.pt`` holds everything that the next step depends on and is replaced
atomically; samples depend on (seed, epoch, index) alone; so a resumed run reaches the weights of an unbroken one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from edgekit.data.training_set import batches_in_epoch, epoch_batches
from edgekit.errors import CheckpointError
from edgekit.learning import distributed
from edgekit.models.torch_file import write_torch_file
from edgekit.pretraining.checkpoint import FORMAT, VERSION, load_networks, weights_of
from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.journal import PretrainJournal
from edgekit.pretraining.networks import Learner, momentum_at
from edgekit.pretraining.pictures import Pictures
from edgekit.pretraining.probe import probe_accuracy
from edgekit.pretraining.samples import ViewBatch, ViewSet, load_views
from edgekit.pretraining.schedule import build_optimiser, learning_rate
from edgekit.pretraining.step import PretrainLosses, step_losses

log = logging.getLogger("edgekit")

COUNTERS = ("epoch", "batch_in_epoch", "best")


class PretrainRun:
    """Networks, optimisers, pictures and counters of a run."""

    def __init__(
        self,
        config: PretrainConfig,
        learner: Learner,
        *,
        pictures: Pictures,
        validation: Pictures,
        output: Path,
        device: torch.device,
        provenance: dict[str, str],
    ) -> None:
        self.config, self.output, self.device, self.provenance = config, output, device, provenance
        self.view_set, self.validation = ViewSet(pictures=pictures, config=config), validation
        self.learner = learner.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.synchronise_batch_norms(self.learner)
        self.optimiser = build_optimiser(self.learner, config)
        self.probe_optimiser = (
            torch.optim.Adam(self.learner.probe.parameters(), lr=config.probe_rate)
            if self.learner.probe is not None
            else None
        )
        self.amp_type = amp_type(device) if config.amp else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_type == torch.float16)
        self.epoch = 0
        self.batch_in_epoch = 0
        self.best = -1.0
        self.scores: dict[str, Any] = {}
        talks = distributed.rank() == 0
        self.journal = PretrainJournal(output, talks=talks, probes=self.learner.probe is not None)
        self._saved_at = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return batches_in_epoch(len(self.view_set), self.config.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def global_step(self) -> int:
        """Steps taken since the first epoch."""
        return self.epoch * self.steps_per_epoch + self.batch_in_epoch

    def __enter__(self) -> PretrainRun:
        self.journal.start(total_steps=self.total_steps, done=self.global_step)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.journal.stop()
        if kind is KeyboardInterrupt:
            log.warning("interrupted; go on with --resume -o %s", self.output)
        distributed.stop()

    def start_epoch(self) -> None:
        """Training mode, the target's too, and a line of the log."""
        self.learner.train()
        self.journal.start_epoch(str(self.config.input_size))

    def batches(self) -> Iterator[ViewBatch]:
        """This process's share of the rest of the epoch."""
        keys = epoch_batches(
            count=len(self.view_set),
            epoch=self.epoch,
            size=self.config.input_size,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rank=distributed.rank(),
            processes=distributed.world_size(),
            start=self.batch_in_epoch,
        )
        cuda = self.device.type == "cuda"
        for batch in load_views(self.view_set, keys, workers=self.config.workers, pin_memory=cuda):
            yield batch.to(self.device)

    def forward(self, batch: ViewBatch) -> PretrainLosses | None:
        """Losses of a batch; ``None`` if none of its pictures has a box."""
        precision: AbstractContextManager[object] = (
            torch.autocast(self.device.type, dtype=self.amp_type) if self.amp_type else nullcontext()
        )
        with precision:
            return step_losses(self.learner, batch, boxes=self.config.method == "scrl")

    def step(self, losses: PretrainLosses | None) -> None:
        """Backward, move the online network, let the target follow; save now and then."""
        rate = learning_rate(self.config, step=self.global_step, steps_per_epoch=self.steps_per_epoch)
        momentum = momentum_at(self.global_step, self.total_steps, self.config.target_momentum)
        if losses is not None:
            self._learn(losses, rate)
            self.learner.follow(momentum)
        self.batch_in_epoch += 1
        logged = {**losses.logged, "momentum": momentum} if losses is not None else {}
        self.journal.add(logged, rate, step=self.global_step)
        if time.monotonic() - self._saved_at > 60 * self.config.save_minutes:
            self.save()

    def _learn(self, losses: PretrainLosses, rate: float) -> None:
        optimisers = [self.optimiser, *([self.probe_optimiser] if self.probe_optimiser is not None else [])]
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            self.scaler.unscale_(optimiser)
        learning = [p for one in optimisers for group in one.param_groups for p in group["params"]]
        learning = [parameter for parameter in learning if parameter.grad is not None]
        distributed.sum_gradients(learning)
        if not self.scaler.is_enabled():
            self._require_finite(learning, rate)
        for optimiser in optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()

    def _require_finite(self, learning: list[torch.nn.Parameter], rate: float) -> None:
        norm = torch.stack([parameter.grad.norm() for parameter in learning if parameter.grad is not None]).norm()
        if not bool(torch.isfinite(norm)):
            lower = self.config.learning_rate / 3
            raise CheckpointError(
                f"pretraining diverged at step {self.global_step}, at a rate of {rate:.2g}: the gradient is not "
                f"finite.\nStart again with a lower rate, in another -o folder: --learning-rate {lower:.1e}"
            )

    def finish_epoch(self) -> None:
        """Count the epoch and write its row of the log."""
        self.epoch, self.batch_in_epoch = self.epoch + 1, 0
        self.journal.finish_epoch(self.epoch)

    def evaluation_due(self) -> bool:
        """Whether the epoch just finished ends with an evaluation of the probe."""
        due = self.epoch % self.config.evaluate_every == 0 or self.epoch == self.config.epochs
        return due and self.learner.probe is not None and len(self.validation.items) > 0

    def evaluate(self) -> None:
        """Score the probe on the validation pictures."""
        if distributed.rank() == 0:
            accuracy = probe_accuracy(
                self.learner, self.validation, side=self.config.input_size, batch_size=self.config.batch_size
            )
            self.best = max(self.best, accuracy)
            self.scores["val_accuracy"] = accuracy
            self.journal.accuracy(accuracy)
        self.best = distributed.broadcast_object(self.best)

    def save(self) -> None:
        """Replace ``last.pt``."""
        self._saved_at = time.monotonic()
        if distributed.rank() == 0:
            write_torch_file(self.output / "last.pt", self._document() | self._state())

    def resume(self, document: dict[str, Any], path: Path) -> None:
        """Go back to the state in ``document``, a ``last.pt`` at ``path``.

        Raises:
            CheckpointError: it belongs to other networks or pictures.
        """
        state = document["state"]
        if state["pictures"] != self._pictures():
            raise CheckpointError(
                f"the run in {path} began with other pictures: {state['pictures'][0]} of "
                f"{document['provenance']['training_data']}; now there are {len(self.view_set)} of "
                f"{self.view_set.pictures.name}, and {state['pictures'][0]} would be needed in the same order.\n"
                f"Give it the same --data and --limit, or start a new run with --weights {path} and another -o folder."
            )
        load_networks(self.learner, document, path)
        for key, part in (("optimizer", self.optimiser), ("scaler", self.scaler)):
            part.load_state_dict(document[f"{key}_state_dict"])
        if self.probe_optimiser is not None:
            self.probe_optimiser.load_state_dict(state["probe_optimiser"])
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.scores = document["metrics"]
        self.journal.rewind(epoch=self.epoch, sums=state["journal"])

    def finish(self) -> dict[str, Any]:
        """Write ``pretrained.pth``, draw the curves and return the final figures."""
        if distributed.rank() == 0:
            write_torch_file(self.output / "pretrained.pth", self._document())
            self.journal.curves()
        last = {name: float(self.journal.rows[-1][name]) for name in self.journal.losses} if self.journal.rows else {}
        return {"epochs": self.epoch, **last, **self.scores, "output": str(self.output / "pretrained.pth")}

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            **weights_of(self.learner),
            "epoch": self.epoch,
            "max_eval_score": self.best,
            "config": self.config.to_json(),
            "classes": list(self.view_set.pictures.classes),
            "metrics": self.scores,
            "provenance": self.provenance,
        }

    def _state(self) -> dict[str, Any]:
        """What only resuming needs."""
        return {
            "optimizer_state_dict": self.optimiser.state_dict(),
            "scheduler_state_dict": {"step": self.global_step},
            "scaler_state_dict": self.scaler.state_dict(),
            "state": {
                "probe_optimiser": self.probe_optimiser.state_dict() if self.probe_optimiser is not None else {},
                "pictures": self._pictures(),
                "journal": self.journal.sums,
                **{name: getattr(self, name) for name in COUNTERS},
            },
        }

    def _pictures(self) -> list[int | str]:
        """How many pictures there are, and a digest of their names and classes in order."""
        return [len(self.view_set), self.view_set.pictures.digest()]


def amp_type(device: torch.device) -> torch.dtype | None:
    """The type of mixed precision that ``device`` takes; ``None`` on a CPU."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
