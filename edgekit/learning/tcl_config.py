"""Everything that a training run of a TCL model can be told. The defaults are the published recipe's.

Precedence: the defaults here < the recipe (``training/recipes/NAME.toml``) < options on the command line.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError
from edgekit.learning.recipe_file import check_entries, read_recipe

PHASES = ("align", "decoder", "masker")
"""In their order (``edgekit.models.tcl.model.TCL.phase``)."""

RATE_BATCH = 4096
"""The published learning rates are for so many pairs in a step, and go with the batch."""


@dataclass(frozen=True, kw_only=True)
class TclConfig:
    """One training run."""

    model: str = "tcl-vit-b16"
    """Name in ``edgekit.models.tcl.spec.VARIANTS``."""

    align_steps: int = 0
    """Steps in which a small model's encoders first learn to meet; CLIP's have."""

    steps: int = 50_000
    """Steps after those, in which the masker learns."""

    decoder_steps: int = 30_000
    """So many of ``steps`` in which its copy of the encoder's last layer stays as it is."""

    batch_size: int = 1024
    """Pairs in a step, over all processes together. Every text is compared with every picture of the batch."""

    learning_rate: float = 3e-4
    """Peak, for 4096 pairs in a step; goes with the batch."""

    least_rate: float = 4e-5
    """What the cosine ends at, likewise."""

    align_rate: float = 1e-3
    """Peak in the steps of ``align_steps``, for any batch; the cosine ends at nothing."""

    warmup_steps: int = 15_000
    """Steps of linear warm-up, in each of the two rounds; never more than half of a round."""

    weight_decay: float = 0.05
    """On everything but vectors and biases; scalars, as published, included."""

    clip_norm: float = 5.0
    """Largest gradient norm of a step."""

    contrast_weight: float = 0.1
    """Of both contrastive losses, TCL_v and TCL_f."""

    area_weight: float = 0.4
    smooth_weight: float = 1.0
    """Of the total variation of the masks, and of the map that they come from."""

    positive_area: float = 0.4
    """Share of a picture that the mask of its own text should cover on average."""

    smallest_crop: float = 0.08
    """Least share of a picture's area that a crop shows."""

    jitter: bool = True
    """Whether colours are changed at random."""

    seed: int = 0
    """Fixes initialisation, order, crops and noise."""

    amp: bool = True
    """bfloat16 on a GPU that has it; CPUs use float32."""

    workers: int = 2
    """Processes that read pictures."""

    log_every: int = 50
    """Steps in a row of the log."""

    evaluate_every: int = 500
    """Steps between evaluations, where there are masks to evaluate on; the last step is always evaluated."""

    save_minutes: float = 5.0
    """Minutes between saves of ``last.pt``."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("align_steps", "decoder_steps", "warmup_steps", "workers"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.smallest_crop <= 1:
            raise UsageError(f"smallest_crop is a share above 0 and at most 1, got {self.smallest_crop:g}")

    @property
    def total_steps(self) -> int:
        """Of both rounds."""
        return self.align_steps + self.steps

    def phase_at(self, step: int) -> str:
        """Which of :data:`PHASES` ``step`` (from 0) belongs to."""
        if step < self.align_steps:
            return "align"
        return "decoder" if step - self.align_steps < self.decoder_steps else "masker"

    def rate_at(self, step: int) -> float:
        """The learning rate of ``step`` (from 0)."""
        if step < self.align_steps:
            return _rate(step, self.align_steps, self.warmup_steps, self.align_rate, 0.0)
        scale = self.batch_size / RATE_BATCH
        rates = self.learning_rate * scale, self.least_rate * scale
        return _rate(step - self.align_steps, self.steps, self.warmup_steps, *rates)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON and for the checkpoint."""
        return asdict(self)


def _rate(step: int, total: int, warmup: int, peak: float, least: float) -> float:
    warmup = min(warmup, total // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return least + (peak - least) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def load_tcl_config(recipe: Path | None, overrides: dict[str, Any]) -> TclConfig:
    """Defaults, then the recipe, then ``overrides`` (entries that are ``None`` are not given).

    Raises:
        UsageError: the recipe is missing, is not TOML or has an unknown entry or a value of the wrong type.
    """
    return tcl_config_from_json(read_recipe(recipe, overrides), where=str(recipe or "the command line"))


def tcl_config_from_json(values: dict[str, Any], *, where: str) -> TclConfig:
    """A checked configuration from plain values; ``where`` names them in messages."""
    return TclConfig(**check_entries(TclConfig(), values, where=where))
