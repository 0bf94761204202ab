"""What a pretraining run tells: a progress bar, a CSV row an epoch, a word when it collapses, curves at the end."""

from __future__ import annotations

import logging
from pathlib import Path

from edgekit.learning.journal import Journal
from edgekit.learning.plots import new_figure, save_figure

LOSSES = ("loss", "std_online", "std_target", "pairs", "momentum")
PROBE_LOSSES = ("probe_loss", "probe_accuracy")
AFTER = ("learning_rate", "seconds", "val_accuracy")

COLLAPSED = 0.1
"""Spread of the embeddings' directions (1 everywhere, 0 all the same) below which they have lost their pictures."""

log = logging.getLogger("edgekit")


class PretrainJournal(Journal):
    """The talking side of a run; silent in every process but the first."""

    def __init__(self, output: Path, *, talks: bool, probes: bool) -> None:
        super().__init__(output, talks=talks, losses=LOSSES + PROBE_LOSSES * probes, after=AFTER)

    def finish_epoch(self, epoch: int) -> None:
        """Write the epoch's row, and warn of embeddings that have become all alike."""
        super().finish_epoch(epoch)
        spread = self.rows[-1]["std_online"]
        if self.talks and self.rows[-1]["steps"] and spread < COLLAPSED:
            log.warning(
                "the embeddings have collapsed: their directions are spread by %.3f, where 1 is everywhere.\n"
                "Likely cause: too high a rate, or a target that follows too fast. Try a lower --learning-rate, or a "
                "higher target_momentum",
                spread,
            )

    def accuracy(self, share: float) -> None:
        """Add the probe's accuracy on pictures that it has not learnt from, 0..1, to the epoch's row."""
        if self.rows:
            self.rows[-1]["val_accuracy"] = round(share, 4)
        self.write()
        log.info("the probe names %.1f %% of the validation pictures", 100 * share)

    def curves(self) -> None:
        """Draw the log as ``losses.png``."""
        figure = new_figure(width=10, height=4)
        for axes, names in zip(
            figure.subplots(1, 2),
            (("loss", "probe_loss"), ("std_online", "std_target", "probe_accuracy", "val_accuracy")),
            strict=True,
        ):
            for name in names:
                rows = [row for row in self.rows if row.get(name) not in (None, "")]
                if rows:
                    axes.plot([int(row["epoch"]) for row in rows], [float(row[name]) for row in rows], label=name)
            axes.set(xlabel="epoch")
            axes.legend()
        save_figure(figure, self.output / "losses.png")
