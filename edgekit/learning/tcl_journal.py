"""What a training run of a TCL model tells: rows of mean losses in ``log.csv``, scores, curves at the end."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.errors import StorageError
from edgekit.learning.tcl_losses import TCL_LOSSES

COLUMNS = ("step", "phase", *TCL_LOSSES, "learning_rate", "seconds", "miou", "pixel_accuracy")

log = logging.getLogger("edgekit")


class TclJournal:
    """The talking side of a run; silent in every process but the first."""

    def __init__(self, output: Path, *, talks: bool) -> None:
        self.path, self.talks = output / "log.csv", talks
        self.rows: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._rate, self._phase = 0.0, ""
        self._started = time.monotonic()

    def step(self, losses: dict[str, Tensor], *, rate: float, phase: str) -> None:
        """Add one step to the means."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._steps += 1
        self._rate, self._phase = rate, phase

    def write_row(self, step: int, *, total: int) -> None:
        """The means since the last row, up to ``step`` of ``total``."""
        row: dict[str, Any] = {name: round(value / self._steps, 5) for name, value in self._sums.items()}
        seconds = round(time.monotonic() - self._started, 1)
        row |= {"step": step, "phase": self._phase, "learning_rate": self._rate, "seconds": seconds}
        self.rows.append(row)
        if self.talks:
            shown = " ".join(f"{name} {row[name]:.3f}" for name in TCL_LOSSES if name in row)
            log.info("step %d of %d, %s: %s, %.0f s", step, total, self._phase, shown, seconds)
        self._sums, self._steps, self._started = {}, 0, time.monotonic()
        self._write()

    def evaluation(self, scores: dict[str, Any]) -> None:
        """Add the scores to the newest row."""
        if self.rows:
            self.rows[-1] |= {name: round(scores[name], 4) for name in ("miou", "pixel_accuracy")}
        log.info("step %d: mIoU %.3f, %.0f %% of the pixels right", scores["step"], scores["miou"],
                 100 * scores["pixel_accuracy"])  # fmt: skip
        self._write()

    def last(self) -> dict[str, Any]:
        """The losses of the newest row."""
        return {name: value for name, value in (self.rows[-1] if self.rows else {}).items() if name in TCL_LOSSES}

    def rewind(self, step: int) -> None:
        """Forget rows of steps that a resumed run will do again."""
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [dict(row) for row in csv.DictReader(file) if int(row["step"]) <= step]

    def plot(self) -> None:
        """Draw the losses and the scores against the step."""
        from edgekit.learning.plots import new_figure, save_figure

        figure = new_figure(width=10, height=4)
        losses, scores = figure.subplots(1, 2)
        for axes, names in ((losses, TCL_LOSSES), (scores, ("miou", "pixel_accuracy"))):
            for name in names:
                rows = [row for row in self.rows if row.get(name) not in (None, "")]
                if rows:
                    axes.plot([int(row["step"]) for row in rows], [float(row[name]) for row in rows], label=name)
                    axes.legend()
            axes.set(xlabel="step")
        losses.set(ylabel="training loss")
        scores.set(ylim=(0, 1), title="validation")
        save_figure(figure, self.path.with_name("losses.png"))

    def _write(self) -> None:
        if not self.talks:
            return
        temporary = self.path.with_name(".log.csv.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(self.rows)
            temporary.replace(self.path)
        except OSError as error:
            raise StorageError(f"the log {self.path} cannot be written: {error.strerror}") from error
