"""Everything that a pretraining run can be told, in one frozen dataclass.

Precedence: the defaults here < the recipe (``training/recipes/pretrain/NAME.toml``) < options on the command line. The
resolved configuration is saved beside the checkpoints and inside them. Defaults are those of SCRL's 200 epochs
(arXiv 2103.06122; https://github.com/kakaobrain/scrl), which ran on 32 GPUs, but for the batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError
from edgekit.learning.recipe_file import check_entries, read_recipe
from edgekit.pretraining.backbones import STRIDE, find_backbone

METHODS = ("scrl", "byol")
OPTIMISERS = ("lars", "sgd", "adamw")

BASE_BATCH = 256
"""Pictures that ``learning_rate`` is for; it grows in proportion (arXiv 1706.02677)."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    backbone: str = "resnet50"
    """Registered name (``edgekit.pretraining.backbones``)."""

    width_multiplier: float = 1.0
    """Channels of a PVANet over those of the published network."""

    method: str = "scrl"
    """``scrl`` compares boxes of two views, ``byol`` whole views."""

    epochs: int = 200
    """Passes over the pictures."""

    batch_size: int = 64
    """Pictures in a step, over all processes together, each in two views. Published: 8192."""

    input_size: int = 224
    """Side of the views in pixels, a multiple of 32."""

    smallest_crop: float = 0.2
    """Share of a picture's area that a view shows at least."""

    boxes: int = 10
    """SCRL: shared boxes of a picture."""

    smallest_box: int = 32
    """SCRL: side of the smallest, in pixels of the view that magnifies less; 32 is one cell of the map."""

    largest_iou: float = 0.5
    """SCRL: boxes of a picture overlap by less than this, if 50 tries find such."""

    head_hidden: int = 4096
    """Hidden units of projector and predictor."""

    head_outputs: int = 256
    """Dimensions in which views are compared."""

    optimiser: str = "lars"
    """``lars`` as published; ``sgd`` (momentum .9); ``adamw``, which gets further in few steps of small batches."""

    learning_rate: float = 0.45
    """Peak, for 256 pictures in a step; it grows in proportion to the batch."""

    weight_decay: float = 1e-6
    """On weights of convolutions and linear layers."""

    trust: float = 0.001
    """LARS: length of a step relative to the weight's, at a learning rate of 1."""

    published_quirks: bool = False
    """LARS: group parameters and scale gradients as the published program does by mistake
    (``edgekit.pretraining.lars``)."""

    warmup_epochs: float = 10.0
    """Epochs of linear warm-up, from 0; a cosine to 0 follows."""

    target_momentum: float = 0.97
    """Of the target network at the start, for 200 epochs; .996 for 1000."""

    probe_rate: float = 2e-3
    """Learning rate of the linear probe (Adam), for pictures that have classes; constant. Adam, because the length of
    pooled features differs tenfold between backbones and in the course of a run: with SGD some diverge."""

    frame_interval_s: float = 1.0
    """Seconds between the frames that are taken from a video."""

    seed: int = 0
    """Fixes initialisation, order, views and boxes."""

    amp: bool = True
    """Mixed precision on a GPU (bfloat16 where it has it, else float16 with loss scaling); CPUs use float32."""

    workers: int = 2
    """Processes that read pictures and make views."""

    evaluate_every: int = 10
    """Epochs between evaluations of the probe, where there are pictures to evaluate it on; the last is always one."""

    save_minutes: float = 5.0
    """Minutes between saves of ``last.pt`` inside an epoch; every epoch's end is saved too."""

    def __post_init__(self) -> None:
        known = find_backbone(self.backbone)
        for name in ("epochs", "batch_size", "boxes", "smallest_box", "head_hidden", "head_outputs", "evaluate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.input_size < STRIDE or self.input_size % STRIDE:
            raise UsageError(f"input_size must be a multiple of {STRIDE}, got {self.input_size}")
        if self.method == "scrl" and self.smallest_box >= self.input_size:
            raise UsageError(
                f"smallest_box must be below the input size, {self.input_size}, got {self.smallest_box}: no view has "
                "room for such boxes"
            )
        for name, allowed in (("method", METHODS), ("optimiser", OPTIMISERS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("smallest_crop", "largest_iou"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        for name in ("learning_rate", "trust", "probe_rate", "frame_interval_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.target_momentum <= 1:
            raise UsageError(f"target_momentum must be between 0 and 1, got {self.target_momentum}")
        if self.weight_decay < 0 or self.warmup_epochs < 0:
            raise UsageError("weight_decay and warmup_epochs must not be negative")
        if self.width_multiplier != 1 and not known.widths:
            raise UsageError(f"{self.backbone} has one width, 1; got {self.width_multiplier:g}. PVANets have others")

    @property
    def peak_rate(self) -> float:
        """Peak learning rate at this batch size."""
        return self.learning_rate * self.batch_size / BASE_BATCH

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON and for the checkpoint."""
        return asdict(self)


def load_pretrain_config(recipe: Path | None, overrides: dict[str, Any]) -> PretrainConfig:
    """Defaults, then the recipe, then ``overrides`` (entries that are ``None`` are not given).

    Raises:
        UsageError: the recipe is missing, is not TOML or has an unknown entry or a value of the wrong type.
    """
    return pretrain_config(read_recipe(recipe, overrides), where=str(recipe or "the command line"))


def pretrain_config(values: dict[str, Any], *, where: str) -> PretrainConfig:
    """A checked configuration from plain values; ``where`` names them in messages."""
    default = PretrainConfig()
    return replace(default, **check_entries(default, values, where=where))
