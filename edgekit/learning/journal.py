"""What a training run tells: a progress bar, a CSV row an epoch, scores, plots at the end."""

from __future__ import annotations

import csv
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.data.datasets import DetectionDataset
from edgekit.errors import MissingDependencyError, StorageError
from edgekit.metrics.detection import DetectionMetrics

if TYPE_CHECKING:
    from edgekit.learning.step import Losses
    from edgekit.models.masked_detector import MaskedDetector

log = logging.getLogger("edgekit")

BEFORE_LOSSES = ("epoch", "size", "steps")
AFTER_LOSSES = ("learning_rate", "seconds", "ap50", "map", "ap50_mask_off", "map_mask_off", "mask_recall",
                "mask_threshold", "active_share", "score_threshold")  # fmt: skip
"""Columns of the log on both sides of the losses."""


class Journal:
    """The talking side of a run; silent in every process but the first."""

    def __init__(
        self, output: Path, *, talks: bool, losses: tuple[str, ...], after: tuple[str, ...] = AFTER_LOSSES
    ) -> None:
        """``losses`` are the names under which the parts of the loss come, and are logged; ``after``, later columns."""
        self.output, self.talks, self.losses, self.after = output, talks, losses, after
        self.path = output / "log.csv"
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        self.size = ""
        self._bar: Any = None
        self._task: Any = None
        self._epoch_started = time.monotonic()
        self._metrics: DetectionMetrics | None = None

    def start(self, *, total_steps: int, done: int) -> None:
        """Show a progress bar with the remaining time where standard error is a terminal."""
        if not self.talks or not sys.stderr.isatty():
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError as error:
            raise MissingDependencyError("rich", "train", "show a progress bar") from error
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task("training", total=total_steps, completed=done)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def start_epoch(self, size: str) -> None:
        """A new epoch, or the rest of a resumed one; ``size`` is that of its inputs in pixels."""
        self.size = size
        self._epoch_started = time.monotonic()

    def step(self, losses: Losses, rate: float, *, step: int) -> None:
        """Add one step to the epoch's means."""
        values = {name: float(value.detach()) for name, value in {**losses.parts, **losses.watched}.items()}
        self.add(values, rate, step=step)

    def add(self, values: Mapping[str, float], rate: float, *, step: int) -> None:
        """Add one step's ``values`` to the epoch's means."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums["steps"] = self.sums.get("steps", 0) + 1
        self.sums["learning_rate"] = rate
        if self._bar is not None:
            mean = " ".join(f"{name} {self.sums.get(name, 0.0) / self.sums['steps']:.3f}" for name in self.losses)
            self._bar.update(self._task, completed=step, description=f"{self.size} px  {mean}")

    def finish_epoch(self, epoch: int) -> None:
        """Write the epoch's row."""
        steps = max(1, int(self.sums.get("steps", 1)))
        row: dict[str, Any] = {name: round(self.sums.get(name, 0.0) / steps, 5) for name in self.losses}
        row |= {"epoch": epoch, "size": self.size, "steps": steps, "learning_rate": self.sums.get("learning_rate", 0.0)}
        row["seconds"] = round(time.monotonic() - self._epoch_started, 1)
        self.rows.append(row)
        self.sums = {}
        self.write()
        if self.talks:
            losses = " ".join(f"{name} {row[name]:.3f}" for name in self.losses)
            log.info("epoch %d at %s px: %s, %.0f s", epoch, self.size, losses, row["seconds"])

    def evaluation(self, scores: dict[str, Any], metrics: DetectionMetrics | None) -> None:
        """Add the scores to the epoch's row; without ``metrics`` only the masks were scored."""
        self._metrics = metrics
        if self.rows:
            self.rows[-1] |= {
                name: round(value, 4) if isinstance(value, float) else value for name, value in scores.items()
            }
        self.write()
        masks = f"mask recall {scores['mask_recall']:.3f} at {scores['active_share']:.0%} active"
        if metrics is not None:
            masks = f"AP50 {scores['ap50']:.3f} (mask off {scores['ap50_mask_off']:.3f}), {masks}"
        log.info("epoch %d: %s", scores["epoch"], masks)

    def rewind(self, *, epoch: int, sums: dict[str, float]) -> None:
        """Forget rows of epochs that a resumed run will do again."""
        self.sums = dict(sums)
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [dict(row) for row in csv.DictReader(file) if int(row["epoch"]) <= epoch]

    def plots(self, model: MaskedDetector, dataset: DetectionDataset, *, threads: int) -> None:
        """Draw the curves and some pictures with their masks."""
        from edgekit.learning.plots import draw_losses, draw_masks, draw_precision_recall

        draw_losses(self.rows, self.losses, self.output / "losses.png")
        if self._metrics is not None:
            draw_precision_recall(self._metrics, self.output / "precision_recall.png")
        draw_masks(model, dataset, self.output / "masks.png", threads=threads)
        if model.spec.detr is not None and model.spec.detr.token_share is not None:
            from edgekit.learning.attention_plot import draw_attention

            draw_attention(model, dataset, self.output / "attention.png")

    def write(self) -> None:
        """Replace the log by what is known now."""
        if not self.talks:
            return
        temporary = self.path.with_name(".log.csv.tmp")
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, (*BEFORE_LOSSES, *self.losses, *self.after))
                writer.writeheader()
                writer.writerows(self.rows)
            temporary.replace(self.path)
        except OSError as error:
            raise StorageError(f"the log {self.path} cannot be written: {error.strerror}") from error


def report(scores: dict[str, Any], *, as_json: bool) -> str:
    """The final scores as text for standard output."""
    if as_json:
        return json.dumps(scores)
    return "\n".join(
        f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value}" for name, value in scores.items()
    )
